"""Debezium's events, in each shape that its settings give them, to typed rows with a verdict.

| shape | made by | told by |
|---|---|---|
| `{"key": …, "value": …}` | a sink that keeps both, this project's streams | `value`, and no `op` beside it |
| the value alone | Debezium Server, most sinks to files | `op` |
| flattened | the transform ExtractNewRecordState, with `add.fields` | `__op` or `__deleted` |
| `{"schema": …, "payload": …}` around any of these | JsonConverter's default | `schema` and `payload` |
| CloudEvents | CloudEventsConverter | `specversion` |

events.py takes them apart. Source: Debezium's pages of the connectors, "Data change events", and of the two transforms.
"""

from __future__ import annotations

from python_ops.jobs.ingest.formats.encodings import Encoding
from python_ops.jobs.ingest.formats.events import events
from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.jobs.ingest.formats.rows import (
    NUL_IN_JSON,
    changes,
    check_record,
    column_checks,
    finish,
    names_of,
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

_BASE64 = "^[A-Za-z0-9+/]*[A-Z+/][A-Za-z0-9+/]*={0,2}$"
_WHOLE = "for MongoDB: capture.mode=change_streams_update_full"
_ADD = "for ExtractNewRecordState: add.fields=op,table,lsn,source.ts_us"
SIGNS_OF_WRAPPING = (b'"payload"', b'"specversion"')
"""What the head of a file with wrapped events has in it: only then is each of its records looked at for that."""


def debezium(lines: Pipe, contract: Contract, is_wrapped: bool) -> Pipe:
    """Parses and checks Debezium events, as python_ops.jobs.ingest.projection.project says.

    Args:
        lines: The records.
        contract: The source's contract.
        is_wrapped: Records may be wrapped with their schema, or as CloudEvents.
    """
    rows = events(lines, contract, is_wrapped)
    # Not the variants themselves: each would be copied with every row of every later step.
    carried = [
        "_raw", "_file", "_line", "_is_object", "_is_notice", "_is_flat", "_is_wrapped", "_is_partial", "_no_value",
        "_unknown_version", "_no_row", "_op", "_table", "_schema", "_source_lsn", "_source_position", "_source_us",
        "_source_at", "_source_tx",
    ]  # fmt: skip
    encoding = Encoding(has_schemas=is_wrapped)
    typed = (
        value_columns(
            rows,
            contract,
            [*carried, *(["_types"] if is_wrapped else [])],
            encoding=encoding,
            hidden="(_is_flat and startswith(name, '__'))",
        )
        .select(
            "*",
            changes(contract, NUL_IN_JSON, {FLOATING: _is_floating(contract)}),
            *[_is_unsent(c) for c in contract.columns],
        )
        .select(*_without_values_of_deletes(contract))
    )
    checks = [c for column in contract.columns for c in _column_checks(contract, column, encoding)]
    unsent = [(column.name, f"`_unsent_{column.name}`") for column in contract.columns]
    return finish(
        typed, contract, [*_record_checks(contract), *checks],
        ignored="trim(_raw) = '' or _is_notice" + _ignored_tables(contract),
        op="_op",
        lsn="_source_lsn",
        position="_source_position",
        at="_source_at",
        transaction="_source_tx",
        unsent=names_of(unsent, "null"),
        extra="case when _op <> 'd' then _extra end",
        origin="_schema",
    )  # fmt: skip


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
        Check("_source_lsn is null", Kind.EVENT, f"no log position (source.lsn; {_ADD})"),
        Check(
            f"_source_us is null or _source_us not between {FIRST_MICROSECOND} and {LAST_MICROSECOND}",
            Kind.EVENT,
            f"no commit time (source.ts_us, ts_ns or ts_ms), or out of range ({_ADD})",
        ),
        Check("_is_partial", Kind.EVENT, f"an update without the whole document ({_WHOLE})"),
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


def _without_values_of_deletes(contract: Contract) -> list[str]:
    """The columns, with NULL for what a delete says beside the key: the connector invents it (replica identity)."""
    invented = [f"`{column.name}`" for column in contract.columns if column.name not in contract.key]
    others = f"* except ({', '.join(invented)})" if invented else "*"
    return [others, *[f"case when _op <> 'd' then {name} end as {name}" for name in invented]]


def _column_checks(contract: Contract, column: Column, encoding: Encoding) -> list[Check]:
    is_key = column.name in contract.key
    applies = "_op <> 't'" if is_key else "_op in ('c', 'u', 'r')"
    is_sent = f"{applies} and not `_unsent_{column.name}`"
    sent = [*_decimal_checks(column, is_sent, encoding), *column_checks(contract, column, is_sent)]
    if not is_key:
        return sent
    return [Check(f"{applies} and `_unsent_{column.name}`", Kind.MISSING, "the key was not sent", column.name), *sent]


def _is_floating(contract: Contract) -> str:
    """SQL of whether a decimal is a JSON number."""
    kinds = [f"`_kind_{column.name}`" for column in contract.columns if column.precision_and_scale]
    return " or ".join(f"{kind} = 'DOUBLE' or {kind} like 'DECIMAL%'" for kind in kinds) or "false"


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
