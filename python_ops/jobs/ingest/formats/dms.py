"""AWS DMS files on S3: where the operation, the commit time and the order of a row come from.

A full load (`LOAD00000001.csv`) has no operation. Files of changes are named by their time (`20250303-060000123.csv`)
and have an operation (I, U, D) and the commit time (`TimestampColumnName`, which the contract names) before the
table's columns. csv files have a header line only with `AddColumnName`. Rows of one commit time are told apart by file
and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from python_ops.jobs.ingest.formats.format import Format
from python_ops.jobs.ingest.formats.values import Check
from python_ops.lake.contracts import Column, Contract
from python_ops.lake.rejections import Kind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

OPERATION = "Op"

_LOAD = re.compile(r"LOAD[0-9A-Fa-f]{8}")
_CHANGES = re.compile(r"[0-9]{8}-[0-9]{9,10}")
_FILE_TIME = "regexp_extract(_file, '([0-9]{8}-[0-9]{9})[0-9]?', 1)"


class Dms(Format):
    """Rows of full loads and of changes, told apart by the name of their file."""

    has_changes = True
    null_text = "NULL"
    carried = ("_given_op", "_given_at", "_op", "_source_ts", "_file_position")

    # A full load is before every change of its generation; DMS starts to read changes before it loads.
    metadata = {  # noqa: RUF012 (read alone)
        "op": "_op",
        "lsn": "case when _op = 'r' then 0 else unix_micros(_source_ts) end",
        "position": "_file_position",
        "at": "_source_ts",
    }

    def is_full_load(self, name: str) -> bool:
        return _LOAD.search(name) is not None

    def name_fault(self, name: str) -> str | None:
        if self.is_full_load(name) or _CHANGES.search(name):
            return None
        return "the name has neither LOAD and a number nor a date and time: the order of its rows is not known"

    def fields(self, contract: Contract) -> tuple[str, ...]:
        return OPERATION, contract.timestamp_column or ""

    def has_header(self, first: Sequence[str], contract: Contract) -> bool:
        return set(contract.key) <= {name.strip().lower() for name in first}

    def layout(self, first: Sequence[str], contract: Contract) -> tuple[tuple[str, ...], bool] | str | None:
        columns = tuple(column.name for column in contract.columns)
        at = contract.timestamp_column or ""
        if set(contract.key) <= set(first):
            return tuple(first), True
        has_op = len(first) > len(columns) and first[0] in ("I", "U", "D")
        by_count = {
            len(columns) + 2: (OPERATION, at, *columns),
            len(columns) + 1: (OPERATION, *columns) if has_op else (at, *columns),
            len(columns): columns,
        }
        if len(first) not in by_count:
            return f"{len(first)} fields; the contract wants {len(columns)}, with {OPERATION} and {at} before them"
        return by_count[len(first)], False

    def given(self, contract: Contract, value: Callable[[str], str]) -> list[str]:
        return [f"{value(OPERATION)} as _given_op", f"{value(contract.timestamp_column or '')} as _given_at"]

    def positions(self) -> tuple[str, ...]:
        moment = "try_make_timestamp(" + ", ".join(
            f"try_cast(substr({_FILE_TIME}, {start}, {length}) as int)"
            for start, length in ((1, 4), (5, 2), (7, 2), (10, 2), (12, 2))
        )
        # Ten-thousandths of a second since 2000, and 19 bits of line: fits into a bigint until 2055.
        ticks = (
            f"(unix_micros({moment}, try_cast(substr({_FILE_TIME}, 14, 2) as int))) - 946684800000000) div 100"
            " + 10 * try_cast(substr(" + _FILE_TIME + ", 16, 3) as int)"
            " + coalesce(try_cast(regexp_extract(_file, '[0-9]{8}-[0-9]{9}([0-9])', 1) as int), 0)"
        )
        loaded = f"_file rlike '{_LOAD.pattern}'"
        return (
            f"case when {loaded} then 'r' when _given_op = 'I' then 'c' when _given_op = 'U' then 'u'"
            " when _given_op = 'D' then 'd' end as _op",
            "try_cast(_given_at as timestamp) as _source_ts",
            f"case when {loaded} then _line when {_FILE_TIME} <> '' then ({ticks}) * 524288 + _line end"
            " as _file_position",
        )

    def checks(self) -> list[Check]:
        return [
            Check("_op is null", Kind.EVENT, "unknown operation"),
            Check("_given_at is not null and _source_ts is null", Kind.EVENT, "not a commit time"),
            Check("_op <> 'r' and _source_ts is null", Kind.EVENT, "no commit time"),
        ]

    def read_as(self, contract: Contract) -> Contract:
        """The contract whose times need no zone: DMS writes UTC without one."""
        columns = (
            replace(c, accepts=(*c.accepts, "no_zone")) if c.type == "timestamp" else c for c in contract.columns
        )
        return replace(contract, columns=tuple(columns))

    def is_sent(self, contract: Contract, column: Column) -> str:
        return "true" if column.name in contract.key else "_op <> 'd'"

    def as_sent(self, typed: DataFrame, contract: Contract) -> DataFrame:
        """Rows of deletes with their key alone, as all formats have them."""
        others = [column.name for column in contract.columns if column.name not in contract.key]
        if not others:
            return typed
        return typed.selectExpr(
            "* except (" + ", ".join(f"`{name}`" for name in others) + ")",
            *[f"case when _op <> 'd' then `{name}` end as `{name}`" for name in others],
        )
