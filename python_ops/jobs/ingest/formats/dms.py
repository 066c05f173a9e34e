"""AWS DMS files on S3: where the operation, the commit time and the order of a row come from.

A full load (`LOAD00000001.csv`) has an operation only with `IncludeOpForFullLoad`. Files of changes are named by their
time (`20250303-060000123.csv`) and have an operation (I, U, D) and the commit time (`TimestampColumnName`, which the
contract names) before the table's columns. With `CdcInsertsOnly` or `CdcInsertsAndUpdates` they may lack the operation,
and then hold no deletes. csv files have a header line only with `AddColumnName`. Rows of one commit time are told apart
by file and line. Source: "Using Amazon S3 as a target" in the user guide of AWS DMS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from python_ops.jobs.ingest.formats.format import Format
from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.jobs.ingest.formats.rows import names_of
from python_ops.jobs.ingest.formats.values import CUT, Check, from_text
from python_ops.lake.contracts import Column, Contract
from python_ops.lake.contracts.dms import CHANGES, FULL_LOAD, OPERATION
from python_ops.lake.rejections import Kind
from python_ops.lake.sql import escaped

_FILE_TIME = "regexp_extract(_file, '([0-9]{8}-[0-9]{9})[0-9]?', 1)"
_IS_LOAD = f"_file rlike '{FULL_LOAD.pattern}'"
_YEAR_2000 = 946_684_800_000_000
_COMMITTED = Column("_given_at", "timestamp", "The commit time: UTC without a zone.", accepts=("no_zone",))


class Dms(Format):
    """Rows of full loads and of changes, told apart by the name of their file."""

    has_changes = True
    null_text = "NULL"
    carried = ("_given_op", "_given_at", "_op", "_source_ts", "_file_position", "_before")

    # A full load is before every change of its generation; DMS starts to read changes before it loads.
    metadata = {  # noqa: RUF012 (read alone)
        "op": "_op",
        "lsn": "case when _op = 'r' then 0 else unix_micros(_source_ts) end",
        "position": "_file_position",
        "at": "_source_ts",
        "unsent": "_missing",
    }

    def is_full_load(self, name: str) -> bool:
        return FULL_LOAD.search(name) is not None

    def name_fault(self, name: str) -> str | None:
        if self.is_full_load(name) or CHANGES.search(name):
            return None
        return "the name has neither LOAD and a number nor a date and time: the order of its rows is not known"

    def fields(self, contract: Contract) -> tuple[str, ...]:
        at = (contract.timestamp_column,) if contract.timestamp_column else ()
        return (OPERATION, *at, *(name for column in contract.columns for name in _spellings(contract, column)))

    def has_header(self, first: Sequence[str], contract: Contract) -> bool:
        return set(contract.key) <= {name.strip().lower() for name in first}

    def layout(self, first: Sequence[str], contract: Contract) -> tuple[tuple[str, ...], bool] | str | None:
        if set(contract.key) <= set(first):
            return tuple(first), True
        columns = tuple(column.name for column in contract.columns)
        at = (contract.timestamp_column,) if contract.timestamp_column else ()
        layouts = [(OPERATION, *columns)] if first[:1] in (["I"], ["U"], ["D"]) else []
        layouts += [columns, (*at, *columns), *([(OPERATION, *at, *columns)] if at else [])]
        found = next((layout for layout in layouts if len(layout) == len(first)), None)
        if found is None:
            before = " and ".join((OPERATION, *at))
            return (
                f"{len(first)} fields; the contract wants {len(columns)}, with {before} before them. Files with other "
                "columns, as before images, need AddColumnName; those of PreserveTransactions are not read"
            )
        return found, False

    def given(self, contract: Contract, value: Callable[[str], str], has: Callable[[str], str]) -> list[str]:
        at = value(contract.timestamp_column) if contract.timestamp_column else "cast(null as string)"
        null_text = escaped(contract.null_text or self.null_text)
        before = [
            f"'{column.name}', nullif(coalesce({', '.join(map(value, names))}), '{null_text}')"
            for column in _key(contract)
            if (names := _spellings(contract, column))
        ]
        return [
            f"{value(OPERATION)} as _given_op",
            f"{has(OPERATION)} as _has_op",
            f"{at} as _given_at",
            f"{'named_struct(' + ', '.join(before) + ')' if before else 'cast(null as string)'} as _before",
            f"{_ticks()} as _file_ticks",
        ]

    def positions(self, contract: Contract) -> tuple[str, ...]:
        at = from_text(_COMMITTED, "_given_at")
        if contract.timestamp_column is None:
            at = f"timestamp_micros(_file_ticks * 100 + {_YEAR_2000})"
        return (
            f"case when {_IS_LOAD} then 'r' when not _has_op then 'u' when _given_op = 'I' then 'c'"
            " when _given_op = 'U' then 'u' when _given_op = 'D' then 'd' end as _op",
            f"{at} as _source_ts",
            # 19 bits of line: fits into a bigint until 2055.
            f"case when {_IS_LOAD} then _line else _file_ticks * 524288 + _line end as _file_position",
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
        if column.name in contract.key:
            return "true"
        if contract.csv_no_sup_value is None:
            return "_op <> 'd'"
        return f"_op <> 'd' and not `_text_{column.name}` <=> '{escaped(contract.csv_no_sup_value)}'"

    def as_sent(self, typed: Pipe, contract: Contract) -> Pipe:
        """Deletes with their key alone, as all formats have them, and a delete of the key that an update left."""
        if contract.lob_max_kb is not None:
            typed = typed.select("* except (_changes)", f"{_changes(contract, contract.lob_max_kb)} as _changes")
        if contract.before_image_prefix is not None:
            typed = _with_keys_left(typed, self.read_as(contract))
        others = {c.name: self.is_sent(contract, c) for c in contract.columns if c.name not in contract.key}
        missing = _missing(others) if others and contract.csv_no_sup_value else "cast(null as array<string>)"
        kept = "* except (" + ", ".join(f"`{name}`" for name in others) + ")" if others else "*"
        return typed.select(
            kept,
            *[f"case when {is_sent} then `{name}` end as `{name}`" for name, is_sent in others.items()],
            f"{missing} as _missing",
        )


def _key(contract: Contract) -> list[Column]:
    return [contract.column(name) for name in contract.key]


def _spellings(contract: Contract, column: Column) -> tuple[str, ...]:
    """Names that the before image of a column may have: a source writes its names in lower or in upper case."""
    prefix = contract.before_image_prefix
    return () if prefix is None else (f"{prefix}{column.given_name}", f"{prefix}{column.given_name.upper()}")


def _ticks() -> str:
    """SQL of the time in a file's name, in ten-thousandths of a second since 2000; NULL of a full load."""
    moment = "try_make_timestamp(" + ", ".join(
        f"try_cast(substr({_FILE_TIME}, {start}, {length}) as int)"
        for start, length in ((1, 4), (5, 2), (7, 2), (10, 2), (12, 2), (14, 2))
    )  # fmt: skip
    return (
        f"(unix_micros({moment})) - {_YEAR_2000}) div 100 + 10 * try_cast(substr({_FILE_TIME}, 16, 3) as int)"
        " + coalesce(try_cast(regexp_extract(_file, '[0-9]{8}-[0-9]{9}([0-9])', 1) as int), 0)"
    )


def _missing(is_sent: Mapping[str, str]) -> str:
    """SQL of the columns that a change does not carry; NULL when it carries all. A delete has a key alone."""
    unsent = [(name, f"not ({condition})") for name, condition in is_sent.items()]
    return f"case when _op <> 'd' then {names_of(unsent, 'null')} end"


def _changes(contract: Contract, kibibytes: int) -> str:
    """SQL of `_changes` that tells of texts which DMS may have cut off.

    In limited LOB mode DMS cuts off at `LobMaxSize` KiB and says so in its log alone. Up to three bytes go with a
    character that is cut through; bytes are written as hexadecimal digits, two each.
    """
    limit = kibibytes * 1024
    texts = [f"`_text_{column.name}`" for column in contract.columns if column.type == "string"]
    sizes = f"between {limit - 3} and {limit}"
    cut = " or ".join(
        f"octet_length({text}) {sizes} or octet_length({text}) = {2 * limit} or char_length({text}) = {limit}"
        for text in texts
    )
    return f"case when {cut or 'false'} then array_append(_changes, '{CUT}') else _changes end"


def _with_keys_left(typed: Pipe, contract: Contract) -> Pipe:
    """Rows with, for an update that changed its key, a delete of the old key: its row would else live for ever."""
    old = {column.name: from_text(column, f"_before.`{column.name}`") for column in _key(contract)}
    moved = " or ".join(f"{value} <> `{name}`" for name, value in old.items())
    left = f"_op = 'u' and _source_ts is not null and ({moved})"
    return typed.select(
        "*", f"explode(case when {left} then array(false, true) else array(false) end) as _is_left"
    ).select(
        "* except (_op, _is_left, " + ", ".join(f"`{name}`" for name in old) + ")",
        "case when _is_left then 'd' else _op end as _op",
        *[f"case when _is_left then coalesce({value}, `{name}`) else `{name}` end as `{name}`"
          for name, value in old.items()],
    )  # fmt: skip
