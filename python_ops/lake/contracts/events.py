"""Debezium's events of a sample, whatever their shape, as a draft of a contract needs them.

`python_ops/jobs/ingest/formats/envelopes.py` has the shapes; ingestion reads them in SQL, a record at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

TIME_UNITS = {
    "io.debezium.time.Timestamp": "epoch_ms", "org.apache.kafka.connect.data.Timestamp": "epoch_ms",
    "io.debezium.time.MicroTimestamp": "epoch_us", "io.debezium.time.NanoTimestamp": "epoch_ns",
}  # fmt: skip
"""Semantic types of times that are numbers, and their unit as a contract's `accepts` names it."""

DECIMAL = "org.apache.kafka.connect.data.Decimal"
"""Semantic type of a decimal in base64."""

_TIMES = ("io.debezium.time.ZonedTimestamp", "io.debezium.time.IsoTimestamp")
_DATES = ("io.debezium.time.Date", "org.apache.kafka.connect.data.Date", "io.debezium.time.IsoDate")
_ANY_DECIMAL = "io.debezium.data.VariableScaleDecimal"


@dataclass(frozen=True)
class Event:
    """One change.

    Attributes:
        row: The columns after it; empty for a delete.
        key: Names of the key's columns; empty where the event does not say.
        table: Its table, where the event says so.
        schema: Its schema or database, where the event says so.
        fields: The schema of the row's columns, where the record carries one.
    """

    row: dict[str, Any]
    key: Sequence[str]
    table: str | None
    schema: str | None
    fields: Sequence[Mapping[str, Any]]


def events_of(records: Iterable[Mapping[str, Any]]) -> list[Event] | None:
    """The changes in a sample; None where a record is neither a change nor another message of Debezium."""
    found = []
    for record in records:
        if _is_no_change(record):
            continue
        if (event := _event(record)) is None:
            return None
        found.append(event)
    return found


def types_of(fields: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and `accepts` of columns, as far as the semantic types of a schema say them."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for field in fields:
        name, parameters = field.get("name"), field.get("parameters") or {}
        scale = int(parameters.get("scale", 0))
        if name == DECIMAL:
            precision = int(parameters.get("connect.decimal.precision", max(scale + 10, 18)))
            found[field["field"]] = f"decimal({min(38, precision)},{scale})", ("precise",)
        elif name == _ANY_DECIMAL:
            found[field["field"]] = "decimal(38,10)", ()
        elif name in TIME_UNITS:
            found[field["field"]] = "timestamp", (TIME_UNITS[name],)
        elif name in _TIMES:
            found[field["field"]] = "timestamp", ()
        elif name in _DATES:
            found[field["field"]] = "date", ()
    return found


def _event(record: Mapping[str, Any]) -> Event | None:
    given, key = record, None
    if "value" in record and not {"op", "__op", "__deleted"} & record.keys():
        given, key = record["value"], record.get("key")
    if not isinstance(given, dict):
        return None
    attributes = {name: value for name, value in given.items() if name.startswith("iodebezium")}
    value, fields = _unwrapped(given["data"] if attributes and "data" in given else given)
    key, _ = _unwrapped(key)
    names = list(key) if isinstance(key, dict) else []
    if not isinstance(value, dict):
        return None
    if attributes:
        table, schema = attributes.get("iodebeziumtable"), attributes.get("iodebeziumschema")
        return Event(value.get("after") or {}, names, table, schema, _in_after(fields))
    if "op" in value and isinstance(value.get("source"), dict):
        source = value["source"]
        if source.get("collection"):
            return Event(_document(value.get("after")), ["_id"], source["collection"], source.get("db"), [])
        schema = source.get("schema") or source.get("db")
        return Event(value.get("after") or {}, names, source.get("table"), schema, _in_after(fields))
    if {"__op", "__deleted"} & value.keys():
        row = {name: item for name, item in value.items() if not name.startswith("__")}
        table, schema = (value.get(f"__source_{name}", value.get(f"__{name}")) for name in ("table", "schema"))
        plain = [field for field in fields if not str(field.get("field", "")).startswith("__")]
        return Event(row if value.get("__deleted") != "true" else {}, names, table, schema, plain)
    return None


def _document(text: Any) -> dict[str, Any]:
    """A document of MongoDB from its text of extended JSON; python_ops/jobs/ingest/formats/documents.py reads it so."""
    found: dict[str, Any] = json.loads(text) if text else {}
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, dict) or not (wrapping := next((name for name in value if name.startswith("$")), None)):
        return value
    inside = value[wrapping]
    if wrapping in ("$numberLong", "$numberInt"):
        return int(inside)
    if wrapping == "$date" and not isinstance(inside, str):
        since = int(inside["$numberLong"] if isinstance(inside, dict) else inside)
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since)).isoformat(timespec="milliseconds")
    return inside.get("base64", value) if isinstance(inside, dict) else inside


def _is_no_change(record: Mapping[str, Any]) -> bool:
    """Tombstones, heartbeats, marks of transactions, changes of schema."""
    value = record.get("value", record) if not {"op", "__op", "__deleted"} & record.keys() else record
    value, _ = _unwrapped(value)
    if value is None:
        return True
    names = value.keys() if isinstance(value, dict) else set()
    return "op" not in names and ("ddl" in names or {"status", "id"} <= names or (bool(names) and names <= {
        "ts_ms", "ts_us", "ts_ns"}))  # fmt: skip


def _unwrapped(given: Any) -> tuple[Any, Sequence[Mapping[str, Any]]]:
    """What is wrapped with its schema, and the schema's fields."""
    if isinstance(given, dict) and {"schema", "payload"} <= given.keys() and "op" not in given:
        return given["payload"], (given["schema"] or {}).get("fields") or []
    return given, []


def _in_after(fields: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return next((field.get("fields") or [] for field in fields if field.get("field") == "after"), [])
