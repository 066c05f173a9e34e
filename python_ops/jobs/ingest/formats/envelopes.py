"""Debezium's events, in each shape that its settings give them, to typed rows with a verdict.

| shape | made by | told by |
|---|---|---|
| `{"key": …, "value": …}` | a sink that keeps both, this project's streams | `value`, and no `op` beside it |
| the value alone | Debezium Server, most sinks to files | `op` |
| flattened | the transform ExtractNewRecordState, with `add.fields` | `__op` or `__deleted` |
| `{"schema": …, "payload": …}` around any of these | JsonConverter's default | `schema` and `payload` |
| CloudEvents | CloudEventsConverter | `specversion` |

Source: Debezium's pages of the connectors, "Data change events", and of the two transforms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.jobs.ingest.formats.encodings import TYPES, Encoding, types
from python_ops.jobs.ingest.formats.positions import AFTER_EVERY_ROW, positions
from python_ops.jobs.ingest.formats.rows import (
    check_record,
    column_checks,
    finish,
    parse_json,
    unknown_version,
    value_columns,
)
from python_ops.jobs.ingest.formats.values import (
    FIRST_MICROSECOND,
    FLOATING,
    LAST_MICROSECOND,
    Check,
    is_unavailable,
    taken_as_null,
)
from python_ops.lake.contracts import ANY_SCHEMA, Column, Contract
from python_ops.lake.rejections import Kind
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_BASE64 = "^[A-Za-z0-9+/]*[A-Z+/][A-Za-z0-9+/]*={0,2}$"
_HEARTBEAT = "^OBJECT<ts_(ms|us|ns): BIGINT(, ts_(ms|us|ns): BIGINT)*>$"
_ADD = "for ExtractNewRecordState: add.fields=op,table,lsn,source.ts_us"
SIGNS_OF_WRAPPING = (b'"payload"', b'"specversion"')
"""What the head of a file with wrapped events has in it: only then is each of its records looked at for that."""


def debezium(lines: DataFrame, contract: Contract, is_wrapped: bool) -> DataFrame:
    """Parses and checks Debezium events, as python_ops.jobs.ingest.projection.project says.

    Args:
        lines: The records.
        contract: The source's contract.
        is_wrapped: Records may be wrapped with their schema, or as CloudEvents.
    """
    rows = _rows(
        _values(parse_json(lines), is_wrapped).selectExpr("*", *_metadata(is_wrapped), unknown_version(contract))
    )
    # Not the variants themselves: each would be copied with every row of every later step.
    carried = [
        "_raw", "_file", "_line", "_is_object", "_is_notice", "_is_flat", "_is_wrapped", "_is_mongodb", "_no_value",
        "_unknown_version", "_no_row", "_op", "_table", "_schema", "_source_lsn", "_source_position", "_source_us",
        "_source_at", "_source_tx",
    ]  # fmt: skip
    encoding = Encoding(has_schemas=is_wrapped)
    columns = value_columns(
        rows,
        contract,
        [*carried, *(["_types"] if is_wrapped else [])],
        encoding=encoding,
        hidden="(_is_flat and startswith(name, '__'))",
    ).selectExpr(
        "* except (_changes)", f"{_floating(contract)} as _changes", *[_is_unsent(c) for c in contract.columns]
    )
    typed = columns.selectExpr(*_without_values_of_deletes(columns.columns, contract))
    checks = [c for column in contract.columns for c in _column_checks(contract, column, encoding)]
    unsent = ", ".join(f"case when `_unsent_{c.name}` then '{c.name}' end" for c in contract.columns)
    return finish(
        typed, contract, [*_record_checks(contract), *checks],
        ignored="trim(_raw) = '' or _is_notice" + _ignored_tables(contract),
        op="_op",
        lsn="_source_lsn",
        position="_source_position",
        at="_source_at",
        transaction="_source_tx",
        unsent=f"nullif(array_compact(array({unsent})), cast(array() as array<string>))",
        extra="case when _op <> 'd' then _extra end",
        origin="_schema",
    )  # fmt: skip


def _values(events: DataFrame, is_wrapped: bool) -> DataFrame:
    """Adds `_given`, the record's value as it was given, `_value`, the same unwrapped, `_key`, and `_types`."""
    bare = " and ".join(f"try_variant_get(_event, '$.{name}', 'variant') is null" for name in ("__op", "__deleted"))
    given = events.selectExpr(
        "*",
        "try_variant_get(_event, '$.value', 'variant') as _in_pair",
        f"_in_pair is not null and {bare} as _is_pair",
        "case when _is_pair then _in_pair else _event end as _given",
        "case when _is_pair then try_variant_get(_event, '$.key', 'variant') end as _given_key",
    )
    if not is_wrapped:
        return given.selectExpr("*", "false as _is_cloud", "_given as _value", "_given_key as _key")
    wrapped = "try_variant_get(_given, '$.payload', 'variant') is not null and " + " and ".join(
        f"try_variant_get(_given, '$.{name}', 'variant') is null" for name in ("op", "__op")
    )
    cloud = "try_variant_get(_given, '$.specversion', 'string') is not null"
    return (
        given.selectExpr("*", f"{wrapped} as _has_payload", f"{cloud} as _is_cloud")
        .selectExpr(
            "* except (_has_payload)",
            "case when _is_cloud then coalesce(try_variant_get(_given, '$.data.payload', 'variant'),"
            " try_variant_get(_given, '$.data', 'variant'))"
            " when _has_payload then try_variant_get(_given, '$.payload', 'variant') else _given end as _value",
            "coalesce(case when try_variant_get(_given_key, '$.schema', 'variant') is not null"
            " then try_variant_get(_given_key, '$.payload', 'variant') end, _given_key) as _key",
            f"coalesce(try_variant_get(_given, '$.schema.fields', '{TYPES}'),"
            f" try_variant_get(_given, '$.data.schema.fields', '{TYPES}')) as _fields",
        )
        .selectExpr("* except (_fields)", f"{types('_fields')} as _types")
    )


def _metadata(is_wrapped: bool) -> list[str]:
    """SQL of what an event says of itself: in its envelope, a flattened row's `__…`, or a CloudEvent's attributes.

    Each is computed once, and what only some events have when the others lack what is usual.
    """
    flat_op, deleted = (f"try_variant_get(_value, '$.{name}', 'string')" for name in ("__op", "__deleted"))
    lsn, position = positions(_number, _text)
    return [
        "try_variant_get(_value, '$.op', 'string') as _envelope_op",
        f"coalesce(not _is_cloud and _envelope_op is null and coalesce({flat_op}, {deleted}) is not null, false)"
        " as _is_flat",
        f"case when _is_flat then case when {deleted} = 'true' then 'd' else coalesce({flat_op}, 'u') end"
        f" else coalesce(_envelope_op, {_attribute('op')}) end as _op",
        "_value is null or (_is_cloud and is_variant_null(_value))"
        " or (not _is_pair and _op is null and try_variant_get(_event, '$.key', 'variant') is not null) as _no_value",
        "false as _is_wrapped"
        if is_wrapped
        else "_op is null and try_variant_get(_value, '$.payload', 'variant') is not null as _is_wrapped",
        f"{_text('table')} as _table",
        f"coalesce({_text('schema')}, {_text('db')}) as _schema",
        f"{_number('lsn')} as _lsn",
        f"coalesce(_lsn, {lsn}) as _given_lsn",
        f"case when _lsn is not null then 0 else {position} end as _given_position",
        f"coalesce({_time('ts_us', 1)}, {_time('ts_ns', 0)}, {_time('ts_ms', 1000)}) as _source_us",
        f"{_number('txId')} as _source_tx",
        f"coalesce(_op = 'r' and {_text('snapshot')} = 'incremental', false) as _is_incremental",
        f"_given_lsn is null and coalesce({_text('connector')} = 'mongodb', false) as _is_mongodb",
    ]


def _rows(events: DataFrame) -> DataFrame:
    """Adds `_row`, the object with the columns, the place of each event, and whether it is no change of a row."""
    notice = (
        "_op = 'm' or (_op is null and (try_variant_get(_value, '$.ddl', 'variant') is not null"
        " or try_variant_get(_value, '$.status', 'string') in ('BEGIN', 'END')"
        f" or schema_of_variant(_value) rlike '{_HEARTBEAT}'))"
    )
    tombstone = "_is_object and is_variant_null(_value) and _key is not null and not is_variant_null(_key)"
    return events.selectExpr(
        "*",
        f"coalesce({tombstone}, false) or coalesce({notice}, false) as _is_notice",
        "case when _is_flat then _value"
        " when _op = 'd' then case when _key is null or is_variant_null(_key)"
        " then try_variant_get(_value, '$.before', 'variant') else _key end"
        " when _op in ('c', 'u', 'r') then try_variant_get(_value, '$.after', 'variant') end as _row",
        "coalesce(_given_lsn, case when _is_incremental then 0 end) as _source_lsn",
        "case when not _is_incremental then _given_position"
        f" when _given_lsn is null then _source_us else {AFTER_EVERY_ROW} end as _source_position",
        "timestamp_micros(case when _is_incremental and _given_lsn is null then 0 else _source_us end) as _source_at",
    ).selectExpr("*", "_row is null or is_variant_null(_row) as _no_row")


def _field(name: str, kind: str) -> str:
    """SQL of a field of the event's source, of an envelope or a flattened row."""
    of_envelope, longer, short = (
        f"try_variant_get(_value, '$.{path}', '{kind}')" for path in (f"source.{name}", f"__source_{name}", f"__{name}")
    )
    return f"coalesce({of_envelope}, case when _is_flat then coalesce({longer}, {short}) end)"


def _attribute(name: str) -> str:
    """SQL of the same as an attribute of a CloudEvent, where every value is a text."""
    return (
        f"case when _is_cloud then try_variant_get(_given, '$.iodebezium{name.lower().replace('_', '')}', 'string') end"
    )


def _text(name: str) -> str:
    return f"coalesce({_field(name, 'string')}, {_attribute(name)})"


def _number(name: str) -> str:
    """A number that is written as one: another text is no position."""
    found = _field(name, "variant")
    number = f"case when schema_of_variant({found}) = 'BIGINT' then {_field(name, 'bigint')} end"
    return f"coalesce({number}, try_cast({_attribute(name)} as bigint))"


def _time(name: str, factor: int) -> str:
    """Microseconds of a commit time; with the factor 0 from nanoseconds."""
    return f"{_number(name)} * {factor}" if factor else f"({_number(name)} - pmod({_number(name)}, 1000)) div 1000"


def _record_checks(contract: Contract) -> list[Check]:
    another = f"not (_table <=> '{escaped(contract.table or '')}' or _is_flat and _table is null)"
    if contract.schema is not None and contract.schema != ANY_SCHEMA:
        another += f" or not (_schema <=> '{escaped(contract.schema)}' or _is_flat and _schema is null)"
    return [
        *check_record(),
        Check("_no_value", Kind.EVENT, "no value in the event"),
        Check("_is_wrapped", Kind.EVENT, "wrapped with its schema, unlike the first records of its file"),
        Check("_op is null or _op not in ('c', 'u', 'd', 'r', 't')", Kind.EVENT, f"unknown operation ({_ADD})"),
        Check(another, Kind.EVENT, "event of another table"),
        Check("_is_mongodb", Kind.EVENT, "event of MongoDB, which is not read"),
        Check("_source_lsn is null", Kind.EVENT, f"no log position (source.lsn; {_ADD})"),
        Check(
            f"_source_us is null or _source_us not between {FIRST_MICROSECOND} and {LAST_MICROSECOND}",
            Kind.EVENT,
            f"no commit time (source.ts_us, ts_ns or ts_ms), or out of range ({_ADD})",
        ),
        Check("_op <> 't' and _no_row", Kind.EVENT, "no row in the event"),
    ]


def _ignored_tables(contract: Contract) -> str:
    """What is added to the condition of what is ignored: other tables' events, where the contract says so."""
    if contract.others != "ignore":
        return ""
    others = f" or (_op in ('c', 'u', 'd', 'r', 't') and (_table <> '{escaped(contract.table or '')}'"
    if contract.schema is not None and contract.schema != ANY_SCHEMA:
        others += f" or _schema <> '{escaped(contract.schema)}'"
    return others + "))"


def _without_values_of_deletes(columns: list[str], contract: Contract) -> list[str]:
    """The columns, with NULL for what a delete says beside the key: the connector invents it (replica identity)."""
    invented = {column.name for column in contract.columns} - set(contract.key)
    return [
        f"case when _op <> 'd' then `{name}` end as `{name}`" if name in invented else f"`{name}`" for name in columns
    ]


def _column_checks(contract: Contract, column: Column, encoding: Encoding) -> list[Check]:
    is_key = column.name in contract.key
    applies = "_op <> 't'" if is_key else "_op in ('c', 'u', 'r')"
    is_sent = f"{applies} and not `_unsent_{column.name}`"
    sent = [*_decimal_checks(column, is_sent, encoding), *column_checks(contract, column, is_sent)]
    if not is_key:
        return sent
    return [Check(f"{applies} and `_unsent_{column.name}`", Kind.MISSING, "the key was not sent", column.name), *sent]


def _floating(contract: Contract) -> str:
    """SQL of `_changes`, with decimals that are JSON numbers."""
    kinds = [f"`_kind_{column.name}`" for column in contract.columns if column.precision_and_scale]
    is_one = " or ".join(f"{kind} = 'DOUBLE' or {kind} like 'DECIMAL%'" for kind in kinds) or "false"
    return f"array_compact(array_append(_changes, case when {is_one} then '{FLOATING}' end))"


def _is_unsent(column: Column) -> str:
    name = column.name
    return f"coalesce(_op <> 'd' and {is_unavailable(f'`_text_{name}`')}, false) as `_unsent_{name}`"


def _decimal_checks(column: Column, applies: str, encoding: Encoding) -> list[Check]:
    """Debezium's default writes a decimal as base64 of its digits, which may itself look like digits: it is told by
    name, and never taken for a number, unless the contract or the record's schema says that it is base64. Nothing but
    base64 has digits alone that begin with 0.
    """
    if column.precision_and_scale is None or "precise" in column.accepts:
        return []
    text = f"`_text_{column.name}`"
    setting = "base64 (decimal.handling.mode=precise): set that to string, or accept precise"
    is_text = f"{applies} and `_kind_{column.name}` = 'STRING'"
    if is_base64 := encoding.is_base64(column):
        is_text += f" and not {is_base64}"
    in_fours = f"length({text}) % 4 = 0 and {text}"
    no_number = f"`{column.name}` is null and not {taken_as_null(column, text)}"
    looks = f"not a {column.type}; it looks like {setting}"
    checks: list[Check] = [
        Check(f"{is_text} and {no_number} and {in_fours} rlike '{_BASE64}'", Kind.BASE64, looks, column.name),
        Check(f"{is_text} and {in_fours} rlike '^0[0-9]+$'", Kind.BASE64, looks, column.name),
    ]
    if column.needs_point:
        doubt = f"not a {column.type} without doubt; digits alone may be {setting}, or accept no_point"
        checks.append(Check(f"{is_text} and {in_fours} rlike '^[0-9]+$'", Kind.BASE64, doubt, column.name))
    return checks
