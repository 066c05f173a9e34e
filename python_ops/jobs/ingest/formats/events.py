"""What a Debezium event says, taken out of its shape: the row, the operation, its table, its place in the order."""

from __future__ import annotations

from python_ops.jobs.ingest.formats.documents import document
from python_ops.jobs.ingest.formats.encodings import TYPES, types
from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.jobs.ingest.formats.positions import AFTER_EVERY_ROW, FIELDS, positions
from python_ops.jobs.ingest.formats.rows import parse_json, unknown_version
from python_ops.lake.contracts import Contract

_CLOUD = "iodebezium"
_HEARTBEAT = "^OBJECT<ts_(ms|us|ns): BIGINT(, ts_(ms|us|ns): BIGINT)*>$"


def events(lines: Pipe, contract: Contract, is_wrapped: bool) -> Pipe:
    """Events of records: `_row`, `_op`, `_table`, `_schema`, `_source_…`; what they lack: `_no_value`, `_no_row`,
    `_is_partial`; whether one is no change of a row, `_is_notice`; with `is_wrapped` `_types` too.
    """
    return _placed(_with_row(_with_source(_values(parse_json(lines), is_wrapped)), contract, is_wrapped))


def _values(events: Pipe, is_wrapped: bool) -> Pipe:
    """Adds `_given`, the record's value as it was given, `_value`, the same unwrapped, `_key`, and `_types`."""
    bare = " and ".join(f"try_variant_get(_event, '$.{name}', 'variant') is null" for name in ("__op", "__deleted"))
    given = events.select(
        "*",
        "try_variant_get(_event, '$.value', 'variant') as _in_pair",
        f"_in_pair is not null and {bare} as _is_pair",
        "case when _is_pair then _in_pair else _event end as _given",
        "case when _is_pair then try_variant_get(_event, '$.key', 'variant') end as _given_key",
    )
    if not is_wrapped:
        return given.select("*", "false as _is_cloud", "_given as _value", "_given_key as _key")
    wrapped = "try_variant_get(_given, '$.payload', 'variant') is not null and " + " and ".join(
        f"try_variant_get(_given, '$.{name}', 'variant') is null" for name in ("op", "__op")
    )
    cloud = "try_variant_get(_given, '$.specversion', 'string') is not null"
    return (
        given.select("*", f"{wrapped} as _has_payload", f"{cloud} as _is_cloud")
        .select(
            "* except (_has_payload)",
            "case when _is_cloud then coalesce(try_variant_get(_given, '$.data.payload', 'variant'),"
            " try_variant_get(_given, '$.data', 'variant'))"
            " when _has_payload then try_variant_get(_given, '$.payload', 'variant') else _given end as _value",
            "coalesce(case when try_variant_get(_given_key, '$.schema', 'variant') is not null"
            " then try_variant_get(_given_key, '$.payload', 'variant') end, _given_key) as _key",
            f"coalesce(try_variant_get(_given, '$.schema.fields', '{TYPES}'),"
            f" try_variant_get(_given, '$.data.schema.fields', '{TYPES}')) as _fields",
        )
        .select("* except (_fields)", f"{types('_fields')} as _types")
    )


def _with_source(values: Pipe) -> Pipe:
    """Adds `_is_flat`, `_op`, and `_told`: the fields of the event's source, in its envelope, a flattened row's `__…`,
    or a CloudEvent's attributes. They are taken out at once, because each way through a variant costs; an envelope's
    as a map, because it has few of those that are looked for.
    """
    flat_op, deleted = (f"try_variant_get(_value, '$.{name}', 'string')" for name in ("__op", "__deleted"))
    of_cloud = "try_variant_get(_given, '$.iodebeziumop', 'string')"
    return values.select("*", "try_variant_get(_value, '$.op', 'string') as _envelope_op").select(
        "*",
        f"coalesce(not _is_cloud and _envelope_op is null and coalesce({flat_op}, {deleted}) is not null, false)"
        " as _is_flat",
    ).select(
        "*",
        f"case when _is_flat then case when {deleted} = 'true' then 'd' else coalesce({flat_op}, 'u') end"
        f" else coalesce(_envelope_op, case when _is_cloud then {of_cloud} end) end as _op",
        "case when not _is_flat and not _is_cloud"
        " then try_variant_get(_value, '$.source', 'map<string, variant>') end as _of_envelope",
        f"case when _is_flat then try_variant_get(_value, '$', '{_struct('__source_', '__')}') end as _of_flat",
        f"case when _is_cloud then try_variant_get(_given, '$', '{_struct(_CLOUD)}') end as _of_cloud",
    ).select("* except (_of_envelope, _of_flat, _of_cloud)", f"{_told()} as _told")  # fmt: skip


def _with_row(told: Pipe, contract: Contract, is_wrapped: bool) -> Pipe:
    """Adds `_row`, the object with the columns, and what else is said of the event."""
    in_document = f"{_field('collection')} is not null and not _is_flat"
    return told.select(
        "*",
        "_value is null or (_is_cloud and is_variant_null(_value))"
        " or (not _is_pair and _op is null and try_variant_get(_event, '$.key', 'variant') is not null) as _no_value",
        "false as _is_wrapped"
        if is_wrapped
        else "_op is null and try_variant_get(_value, '$.payload', 'variant') is not null as _is_wrapped",
        f"coalesce({_text('table')}, {_text('collection')}) as _table",
        f"coalesce({_text('schema')}, {_text('db')}) as _schema",
        f"{_number('lsn')} as _lsn",
        f"coalesce({_number('ts_us')}, {_microseconds('ts_ns')}, try_multiply({_number('ts_ms')}, 1000)) as _source_us",
        f"{_number('txId')} as _source_tx",
        f"coalesce(_op = 'r' and {_text('snapshot')} = 'incremental', false) as _is_incremental",
        f"coalesce({_is_notice()}, false) as _is_notice",
        f"case when _is_flat then _value when {in_document} then {document('_value', '_key')}"
        " when _op = 'd' then case when _key is null or is_variant_null(_key)"
        " then try_variant_get(_value, '$.before', 'variant') else _key end"
        " when _op in ('c', 'u', 'r') then try_variant_get(_value, '$.after', 'variant') end as _row",
        f"{in_document} as _in_document",
        unknown_version(contract),
    )  # fmt: skip


def _placed(rows: Pipe) -> Pipe:
    """Adds the place of each event in the order of its key's."""
    lsn, position = positions(_number, _text, "try_variant_get(_value, '$.transaction.total_order', 'bigint')")
    return rows.select(
        "* except (_event)",
        f"coalesce(_lsn, {lsn}) as _given_lsn",
        f"case when _lsn is not null then 0 else {position} end as _given_position",
    ).select(
        "*",
        "coalesce(_given_lsn, case when _is_incremental then 0 end) as _source_lsn",
        "case when not _is_incremental then _given_position"
        f" when _given_lsn is null then _source_us else {AFTER_EVERY_ROW} end as _source_position",
        "timestamp_micros(case when _is_incremental and _given_lsn is null then 0 else _source_us end) as _source_at",
        "_row is null or is_variant_null(_row) as _no_row",
    ).select("*", "_in_document and _op = 'u' and _no_row as _is_partial")  # fmt: skip


def _is_notice() -> str:
    """SQL of whether a record tells of no row: a tombstone, a heartbeat, a transaction, a schema, a message."""
    tombstone = "_is_object and is_variant_null(_value) and _key is not null and not is_variant_null(_key)"
    return (
        f"({tombstone}) or _op = 'm' or (_op is null and (try_variant_get(_value, '$.ddl', 'variant') is not null"
        " or try_variant_get(_value, '$.status', 'string') in ('BEGIN', 'END')"
        f" or schema_of_variant(_value) rlike '{_HEARTBEAT}'))"
    )


def _struct(*prefixes: str) -> str:
    """The type of the fields of an event's source that are read, as they are called where they have a prefix."""
    return "struct<" + ", ".join(f"{_called(name, prefix)}: variant" for prefix in prefixes for name in FIELDS) + ">"


def _called(name: str, prefix: str) -> str:
    return prefix + (name.lower().replace("_", "") if prefix == _CLOUD else name)


def _told() -> str:
    """SQL of the fields under their own names, whatever the shape of the event."""
    fields = []
    for name in FIELDS:
        longer, short = f"_of_flat.__source_{name}", f"_of_flat.__{name}"
        flat = f"case when {longer} is null or is_variant_null({longer}) then {short} else {longer} end"
        fields.append(f"'{name}', coalesce(_of_cloud.{_called(name, _CLOUD)}, {flat})")
    return f"case when _of_envelope is not null then _of_envelope else map({', '.join(fields)}) end"


def _field(name: str) -> str:
    return f"try_element_at(_told, '{name}')"


def _text(name: str) -> str:
    return f"try_variant_get({_field(name)}, '$', 'string')"


def _number(name: str) -> str:
    """A number that is written as one: another text is no position. (Of a CloudEvent every value is a text.)"""
    field = _field(name)
    return (
        f"case when schema_of_variant({field}) = 'BIGINT' then try_variant_get({field}, '$', 'bigint')"
        f" when _is_cloud then try_cast({_text(name)} as bigint) end"
    )


def _microseconds(name: str) -> str:
    return f"({_number(name)} - pmod({_number(name)}, 1000)) div 1000"
