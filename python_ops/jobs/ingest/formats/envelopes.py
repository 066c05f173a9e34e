"""Debezium: one JSON envelope with key and value per line, to typed rows with a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.jobs.ingest.formats.rows import (
    check_record,
    column_checks,
    finish,
    integer_at,
    parse_json,
    unknown_version,
    value_columns,
)
from python_ops.jobs.ingest.formats.values import (
    FIRST_MICROSECOND,
    LAST_MICROSECOND,
    Check,
    is_unavailable,
    not_a_number,
)
from python_ops.lake.contracts import ANY_SCHEMA, Column, Contract
from python_ops.lake.rejections import Kind
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_BASE64 = "^[A-Za-z0-9+/]*[A-Z+/][A-Za-z0-9+/]*={0,2}$"


def debezium(lines: DataFrame, contract: Contract) -> DataFrame:
    """Parses and checks Debezium events, as python_ops.jobs.ingest.projection.project says."""
    envelopes = parse_json(lines).selectExpr(
        "*",
        "try_variant_get(_event, '$.value', 'variant') as _value",
        "try_variant_get(_event, '$.key', 'variant') as _key",
        "try_variant_get(_event, '$.value.op', 'string') as _op",
        "try_variant_get(_event, '$.value.source.table', 'string') as _table",
        "coalesce(try_variant_get(_event, '$.value.source.schema', 'string'),"
        " try_variant_get(_event, '$.value.source.db', 'string')) as _schema",
        integer_at("$.value.source.lsn", "_source_lsn"),
        integer_at("$.value.source.ts_us", "_source_us"),
        integer_at("$.value.source.txId", "_source_tx"),
        unknown_version(contract),
    )
    events = envelopes.selectExpr(
        "*",
        "_value is null as _no_value",
        "_is_object and _value is not null and is_variant_null(_value) and _key is not null"
        " and not is_variant_null(_key) as _is_tombstone",
        "case when _op = 'd' then _key"
        " when _op in ('c', 'u', 'r') then try_variant_get(_value, '$.after', 'variant') end as _row",
    )
    rows = events.selectExpr("*", "_row is null or is_variant_null(_row) as _no_row")
    # Not the variants themselves: each would be copied with every row of every later step.
    carried = (
        "_raw", "_file", "_line", "_is_object", "_is_tombstone", "_unknown_version", "_no_value", "_no_row", "_op",
        "_table", "_schema", "_source_lsn", "_source_us", "_source_tx",
    )  # fmt: skip
    typed = value_columns(rows, contract, carried, is_debezium=True).selectExpr(
        "*",
        *[_is_unsent(c) for c in contract.columns],
    )
    another = f"not _table <=> '{escaped(contract.table or '')}'"
    if contract.schema is not None and contract.schema != ANY_SCHEMA:
        another += f" or not _schema <=> '{escaped(contract.schema)}'"
    checks: list[Check] = [
        *check_record(),
        Check("_no_value", Kind.EVENT, "no value in the event"),
        Check("_op is null or _op not in ('c', 'u', 'd', 'r', 't')", Kind.EVENT, "unknown operation"),
        Check(another, Kind.EVENT, "event of another table"),
        Check("_source_lsn is null", Kind.EVENT, "no log position (source.lsn)"),
        Check(
            f"_source_us is null or _source_us not between {FIRST_MICROSECOND} and {LAST_MICROSECOND}",
            Kind.EVENT,
            "no commit time (source.ts_us), or out of range",
        ),
        Check("_op <> 't' and _no_row", Kind.EVENT, "no row in the event"),
    ]
    for column in contract.columns:
        checks += _column_checks(contract, column)
    unsent = ", ".join(f"case when `_unsent_{c.name}` then '{c.name}' end" for c in contract.columns)
    return finish(
        typed, contract, checks,
        ignored="trim(_raw) = '' or _is_tombstone",
        op="_op",
        lsn="_source_lsn",
        position="cast(0 as bigint)",
        at="timestamp_micros(_source_us)",
        transaction="_source_tx",
        unsent=f"nullif(array_compact(array({unsent})), cast(array() as array<string>))",
        extra="case when _op <> 'd' then _extra end",
        origin="_schema",
    )  # fmt: skip


def _column_checks(contract: Contract, column: Column) -> list[Check]:
    is_key = column.name in contract.key
    applies = "_op <> 't'" if is_key else "_op in ('c', 'u', 'r')"
    is_sent = f"{applies} and not `_unsent_{column.name}`"
    sent = [*_decimal_checks(column, is_sent), *column_checks(contract, column, is_sent)]
    if not is_key:
        return sent
    return [Check(f"{applies} and `_unsent_{column.name}`", Kind.MISSING, "the key was not sent", column.name), *sent]


def _is_unsent(column: Column) -> str:
    name = column.name
    return f"coalesce(_op <> 'd' and {is_unavailable(f'`_text_{name}`')}, false) as `_unsent_{name}`"


def _decimal_checks(column: Column, applies: str) -> list[Check]:
    """Debezium's default writes a decimal as base64 of its digits, which may itself look like digits: it is told by
    name, and never taken for a number. Nothing but base64 has digits alone that begin with 0.
    """
    if column.precision_and_scale is None:
        return []
    text = f"`_text_{column.name}`"
    setting = "base64 (decimal.handling.mode=precise): set that to string"
    is_text = f"{applies} and `_kind_{column.name}` = 'STRING'"
    in_fours = f"length({text}) % 4 = 0 and {text}"
    no_number = f"`{column.name}` is null and not {not_a_number(column, text)}"
    looks = f"not a {column.type}; it looks like {setting}"
    checks: list[Check] = [
        Check(f"{is_text} and {no_number} and {in_fours} rlike '{_BASE64}'", Kind.BASE64, looks, column.name),
        Check(f"{is_text} and {in_fours} rlike '^0[0-9]+$'", Kind.BASE64, looks, column.name),
    ]
    if column.needs_point:
        doubt = f"not a {column.type} without doubt; digits alone may be {setting}, or accept no_point"
        checks.append(Check(f"{is_text} and {in_fours} rlike '^[0-9]+$'", Kind.BASE64, doubt, column.name))
    return checks
