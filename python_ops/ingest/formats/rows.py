"""What all formats share: JSON lines as variants, their columns typed, the verdict, and the row's last shape.

JSON is read as `variant`: it keeps integers and decimals exact, refuses duplicated keys, and tells a string from a
number, so that a changed type is seen. Column names come from the contract, whose schema admits `[a-z][a-z0-9_]*` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from python_ops.contracts import Column, Contract
from python_ops.ingest.formats.values import (
    MAX_EXTRA_COLUMNS,
    MAX_RECORD_BYTES,
    NUL,
    Check,
    first_of,
    from_variant,
    normalised,
    not_a_number,
    range_checks,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def parse_json(lines: DataFrame) -> DataFrame:
    """Adds `event`, the one JSON value of the line, and `is_object`."""
    # In brackets, because the parser stops at the end of the first value: a second one on the line would be lost.
    # A byte order mark at the start of the file is not data. No regular expression and no schema of the whole event
    # here: each costs as much as parsing.
    marked = "startswith(raw, '\\uFEFF')"
    text = f"case when {marked} then substr(raw, 2) else raw end"
    whole = f"octet_length(raw) <= {MAX_RECORD_BYTES} and is_valid_utf8(raw)"
    return lines.selectExpr("*", f"case when {whole} then {text} end as text").selectExpr(
        "*", "try_parse_json(concat('[', text, ']')) as parsed"
    ).selectExpr(
        "*",
        "case when try_variant_get(parsed, '$[1]', 'variant') is null"
        " then try_variant_get(parsed, '$[0]', 'variant') end as event",
    ).selectExpr(
        "*", "event is not null and startswith(trim(leading ' \\t\\r\\n' from text), '{') as is_object"
    )  # fmt: skip


def check_record() -> list[Check]:
    """What every JSON line must be."""
    return [
        (f"octet_length(raw) > {MAX_RECORD_BYTES}", f"longer than {MAX_RECORD_BYTES} bytes", None),
        ("not is_valid_utf8(raw)", "not valid UTF-8", None),
        ("not coalesce(is_object, false)", "not one JSON object, or a key is there twice", None),
        (f"size(extra) > {MAX_EXTRA_COLUMNS}", f"more than {MAX_EXTRA_COLUMNS} columns that the contract lacks", None),
    ]


def column_checks(contract: Contract, column: Column, applies: str) -> list[Check]:
    """What a column's value must be, in the rows that meet a condition: `kind_…` and `text_…` are what was given."""
    name = column.name
    checks: list[Check] = []
    if column.required:
        checks.append((f"{applies} and `kind_{name}` is null", "a required column is missing", name))
        checks.append((f"{applies} and `kind_{name}` = 'VOID'", "a required value is null", name))
    if name in contract.key and column.type == "string":
        checks.append((f"{applies} and trim(`{name}`) = ''", "the key is blank", name))
    wrong = f"{applies} and `kind_{name}` <> 'VOID' and `{name}` is null"
    checks.append((f"{wrong} and not {not_a_number(column, f'`text_{name}`')}", f"not a {column.type}", name))
    return [*checks, *range_checks(column, applies)]


def value_columns(
    rows: DataFrame, contract: Contract, carried: Sequence[str], numeric_dates: bool, known: Sequence[str] = ()
) -> DataFrame:
    """From `row`, a JSON object: `kind_…` and `text_…` of each column, its typed value, `extra`, `_extra`, `changes`.

    Args:
        rows: Has `row` and what is carried.
        contract: The source's contract.
        carried: Columns that go on.
        numeric_dates: Dates are numbers, as in Debezium.
        known: Columns of the row that are not the contract's and not extra: the source's own metadata.
    """
    names = ", ".join(f"'{name}'" for name in (*(column.name for column in contract.columns), *known))
    values = rows.selectExpr(
        *carried,
        *[f"try_variant_get(row, '$.{c.name}', 'variant') as `value_{c.name}`" for c in contract.columns],
        "map_filter(try_cast(row as map<string, variant>),"
        f" (name, _) -> not array_contains(array({names}), name)) as extra",
    )
    kinds = values.selectExpr(
        *carried, "extra", "case when size(extra) > 0 then to_json(extra) end as _extra",
        *[f"`value_{c.name}`" for c in contract.columns],
        *[f"schema_of_variant(`value_{c.name}`) as `kind_{c.name}`" for c in contract.columns],
        *[f"try_variant_get(`value_{c.name}`, '$', 'string') as `text_{c.name}`" for c in contract.columns],
    )  # fmt: skip
    typed = kinds.selectExpr(
        "*",
        *[
            f"{from_variant(c, f'`value_{c.name}`', f'`kind_{c.name}`', numeric_dates)} as `{c.name}`"
            for c in contract.columns
        ],
    )
    return typed.selectExpr("*", changes(contract, "contains(raw, '\\\\u0000')"))


def changes(contract: Contract, has_nul: str) -> str:
    """SQL of `changes`: the names of what was changed to take the row."""
    found = [f"case when {has_nul} then '{NUL}' end"]
    for column in contract.columns:
        found += normalised(column, f"`text_{column.name}`", f"`{column.name}`")
    return f"array_compact(array({', '.join(found)})) as changes"


def integer_at(path: str, name: str) -> str:
    """SQL of a whole number at a path of the event."""
    found = f"try_variant_get(event, '{path}', 'variant')"
    return (
        f"case when schema_of_variant({found}) = 'BIGINT' then try_variant_get(event, '{path}', 'bigint') end as {name}"
    )


def unknown_version(contract: Contract) -> str:
    """SQL of the record's layout version where the contract does not know it, NULL where it does."""
    if contract.schema_version is None:
        return "cast(null as string) as unknown_version"
    found = f"try_variant_get(event, '$.{contract.schema_version.field}', 'string')"
    known = ", ".join(f"'{version}'" for version in contract.schema_version.known)
    return f"case when {found} not in ({known}) then {found} end as unknown_version"


def finish(
    typed: DataFrame, contract: Contract, checks: list[Check], *, ignored: str, op: str, lsn: str = "null",
    position: str = "null", at: str = "null", transaction: str = "null", unsent: str = "null", extra: str = "_extra",
) -> DataFrame:  # fmt: skip
    """The verdict, and the columns in their order. The arguments are the SQL of METADATA's columns.

    Args:
        typed: Has `raw`, `_file`, `_line`, `changes`, `unknown_version` and the contract's columns.
        contract: The source's contract.
        checks: What rejects a row, in the order in which it is told.
        ignored: Condition of lines that are no record: blank ones, headers, tombstones.
    """
    verdict = f"case when {ignored} or unknown_version is not null then null else {first_of(checks)} end"
    return typed.selectExpr("*", f"{verdict} as verdict").selectExpr(
        f"case when {ignored} then 'ignored' when unknown_version is not null then 'unknown' when verdict is null"
        " then 'event' else 'rejected' end as _kind",
        "coalesce(verdict.reason, unknown_version) as _reason",
        "verdict.column as _column",
        "case when verdict is null then changes end as _changes",
        "raw",
        *[f"`{column.name}`" for column in contract.columns],
        f"{op} as _op",
        "1 as _source_generation",
        f"cast({lsn} as bigint) as _source_lsn",
        f"cast({position} as bigint) as _source_position",
        f"cast({at} as timestamp) as _source_ts",
        f"cast({transaction} as bigint) as _source_tx",
        f"cast({unsent} as array<string>) as _unsent",
        f"{extra} as _extra",
        "_file",
        "_line",
    )
