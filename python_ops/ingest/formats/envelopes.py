"""Debezium: one JSON envelope with key and value per line, to typed rows with a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.contracts import Column, Contract
from python_ops.ingest.formats.rows import (
    check_record,
    column_checks,
    finish,
    integer_at,
    parse_json,
    unknown_version,
    value_columns,
)
from python_ops.ingest.formats.values import (
    FIRST_MICROSECOND,
    LAST_MICROSECOND,
    UNAVAILABLE,
    Check,
    quoted,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def debezium(lines: DataFrame, contract: Contract) -> DataFrame:
    """Parses and checks Debezium events, as python_ops.ingest.projection.project says."""
    envelopes = parse_json(lines).selectExpr(
        "*",
        "try_variant_get(event, '$.value', 'variant') as value",
        "try_variant_get(event, '$.key', 'variant') as key",
        "try_variant_get(event, '$.value.op', 'string') as _op",
        "try_variant_get(event, '$.value.source.table', 'string') as source_table",
        integer_at("$.value.source.lsn", "_source_lsn"),
        integer_at("$.value.source.ts_us", "source_us"),
        integer_at("$.value.source.txId", "_source_tx"),
        unknown_version(contract),
    )
    events = envelopes.selectExpr(
        "*",
        "value is null as no_value",
        "is_object and value is not null and is_variant_null(value) and key is not null and not is_variant_null(key)"
        " as is_tombstone",
        "case when _op = 'd' then key when _op in ('c', 'u', 'r') then try_variant_get(value, '$.after', 'variant') end"
        " as row",
    )
    rows = events.selectExpr("*", "row is null or is_variant_null(row) as no_row")
    # Not the variants themselves: each would be copied with every row of every later step.
    carried = (
        "raw", "_file", "_line", "is_object", "is_tombstone", "unknown_version", "no_value", "no_row", "_op",
        "source_table", "_source_lsn", "source_us", "_source_tx",
    )  # fmt: skip
    typed = value_columns(rows, contract, carried, numeric_dates=True).selectExpr(
        "*",
        *[_is_unsent(c) for c in contract.columns],
    )
    checks: list[Check] = [
        *check_record(),
        ("no_value", "no value in the event", None),
        ("_op is null or _op not in ('c', 'u', 'd', 'r', 't')", "unknown operation", None),
        (f"not source_table <=> '{quoted(contract.table or '')}'", "event of another table", None),
        ("_source_lsn is null", "no log position (source.lsn)", None),
        (
            f"source_us is null or source_us not between {FIRST_MICROSECOND} and {LAST_MICROSECOND}",
            "no commit time (source.ts_us), or out of range",
            None,
        ),
        ("_op <> 't' and no_row", "no row in the event", None),
    ]
    for column in contract.columns:
        checks += _column_checks(contract, column)
    unsent = ", ".join(f"case when `unsent_{c.name}` then '{c.name}' end" for c in contract.columns)
    return finish(
        typed, contract, checks,
        ignored="trim(raw) = '' or is_tombstone",
        op="_op",
        lsn="_source_lsn",
        position="cast(0 as bigint)",
        at="timestamp_micros(source_us)",
        transaction="_source_tx",
        unsent=f"nullif(array_compact(array({unsent})), cast(array() as array<string>))",
        extra="case when _op <> 'd' then _extra end",
    )  # fmt: skip


def _column_checks(contract: Contract, column: Column) -> list[Check]:
    is_key = column.name in contract.key
    applies = "_op <> 't'" if is_key else "_op in ('c', 'u', 'r')"
    sent = column_checks(contract, column, f"{applies} and not `unsent_{column.name}`")
    if not is_key:
        return sent
    return [(f"{applies} and `unsent_{column.name}`", "the key was not sent", column.name), *sent]


def _is_unsent(column: Column) -> str:
    name = column.name
    placeholder = f"`kind_{name}` = 'STRING' and `text_{name}` = '{UNAVAILABLE}'"
    return f"coalesce(_op <> 'd' and {placeholder}, false) as `unsent_{name}`"
