"""A contract in the formats of other tools: JSON Schema, Avro, and the sources of dbt.

The JSON Schema describes a record as the source delivers it; the Avro schema its typed row, as bronze has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.contracts import ANY_SCHEMA, Column, Contract, load, sources
from python_ops.lake.contracts.metadata import METADATA

SOURCES_FILE = PROJECT_ROOT / "dbt_project" / "models" / "_sources" / "_bronze__sources.yml"
NAMESPACE = "lakehouse.bronze"
UNAVAILABLE = "__debezium_unavailable_value"

_INTEGERS = {"int": (-(2**31), 2**31 - 1), "bigint": (-(2**63), 2**63 - 1)}
# Days from 1970-01-01, and microseconds, to the ends of the years 1 and 9999.
_DAYS, _MICROSECONDS = (-719162, 2932896), (-719162 * 86_400_000_000, 2932897 * 86_400_000_000 - 1)
_DATE = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_MOMENT = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-][0-9]{2}:?[0-9]{2})$"

# What an event's source must say, in one of the ways of Debezium's connectors: its table, its time, its place.
_SAID: tuple[tuple[list[str], ...], ...] = (
    (["table"], ["collection"]),
    (["ts_us"], ["ts_ns"], ["ts_ms"]),
    (["lsn"], ["file", "pos"], ["change_lsn"], ["commit_lsn"], ["scn"], ["ts_ms", "ord"]),
)

COMMAND = "lakeops contracts export --dbt"

Json = dict[str, Any]


def json_schema(contract: Contract) -> Json:
    """JSON Schema (2020-12) of one delivered record.

    A line of `debezium_json` or `jsonl`; a line of `csv` as an object of texts by header, as `csv.DictReader` gives it;
    for other formats the row as JSON, decimals as texts and moments as ISO 8601.
    """
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:lakehouse:contract:{contract.source}:{contract.version}",
        "title": f"{contract.source} {contract.version}",
        "description": contract.description,
    }
    if contract.format == "debezium_json":
        return {**head, **_envelope(contract)}
    of_value = _of_text if contract.format == "csv" else _of_json
    return {**head, **_object(contract.columns, of_value, blank_is_null=contract.format == "csv")}


def avro_schema(contract: Contract) -> Json:
    """Avro schema of one row, with logical types; an optional column is a union with null, which is its default."""
    return {
        "type": "record",
        "name": contract.source,
        "namespace": NAMESPACE,
        "doc": f"{contract.description} Contract {contract.version}.",
        "fields": [_avro_field(column) for column in contract.columns],
    }


def dbt_sources() -> str:
    """The text of SOURCES_FILE: every source of the registry, with the columns that ingestion adds to each."""
    return dbt_sources_of([load(source) for source in sources()], METADATA)


def dbt_sources_of(contracts: Iterable[Contract], metadata: Iterable[Column]) -> str:
    """The YAML text of dbt's sources.

    Args:
        contracts: Sources, in the order that they are listed in.
        metadata: Columns that every table has besides.
    """
    lines = [
        "# Made by `lakeops contracts export --dbt` from python_ops/lake/contracts; change it there.",
        "version: 2",
        "",
        "anchors:",
    ]
    added = list(metadata)
    for column in added:
        lines += [f"  - &{_anchor(column)}", *(f"    {line}" for line in _dbt_column(column))]
    lines += [
        "",
        "sources:",
        "  - name: bronze",
        "    description: Typed, append-only changes as delivered; ingestion owns these tables.",
        "    schema: \"{{ env_var('LAKEHOUSE_SCHEMA_PREFIX', '') ~ '_bronze' "
        "if env_var('LAKEHOUSE_SCHEMA_PREFIX', '') else 'bronze' }}\"",
        "    tables:",
    ]
    for contract in contracts:
        lines += [f"      - name: {contract.source}", f"        description: {_scalar(contract.description)}"]
        lines += [f"        config: {{meta: {_flow(_table_meta(contract))}}}", "        columns:"]
        for column in contract.columns:
            first, *rest = _dbt_column(column)
            lines += [f"          - {first}", *(f"            {line}" for line in rest)]
        lines += [f"          - *{_anchor(column)}" for column in added]
    return "\n".join(lines) + "\n"


def is_current() -> bool:
    """Whether SOURCES_FILE says what the contracts say."""
    return SOURCES_FILE.is_file() and SOURCES_FILE.read_text(encoding="utf-8") == dbt_sources()


def write(contract: Contract, folder: Path) -> list[Path]:
    """Writes `<source>.schema.json` and `<source>.avsc`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {f"{contract.source}.schema.json": json_schema(contract), f"{contract.source}.avsc": avro_schema(contract)}
    for name, schema in found.items():
        (folder / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [folder / name for name in found]


def _envelope(contract: Contract) -> Json:
    keys = [column for column in contract.columns if column.name in contract.key]
    moved = {"properties": {"op": {"enum": ["c", "u", "r"]}}, "required": ["op"]}
    deleted = {"properties": {"value": {"type": "object", "properties": {"op": {"const": "d"}}}}}
    row: Json = {"$ref": "#/$defs/row"}
    key = _object(keys, _of_key)
    if [column.given_name for column in keys] == ["_id"]:  # of MongoDB: a document is a text, and so is its key
        row = {"anyOf": [row, {"type": "string", "contentMediaType": "application/json"}]}
        key = {"anyOf": [key, {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}]}
    event = {
        "type": "object",
        "required": ["op", "source"],
        "properties": {
            "op": {"enum": ["c", "u", "d", "r", "t"]},
            "source": {
                "type": "object",
                "properties": {
                    **{name: {"const": contract.table} for name in ("table", "collection")},
                    **({"schema": {"const": contract.schema}} if contract.schema not in (None, ANY_SCHEMA) else {}),
                    "lsn": _integer(*_INTEGERS["bigint"]),
                    "ts_us": _integer(*_MICROSECONDS),
                },
                "allOf": [{"anyOf": [{"required": names} for names in ways]} for ways in _SAID],
            },
        },
        "if": moved,
        "then": {"required": ["after"], "properties": {"after": row}},
    }
    return {
        "type": "object",
        "required": ["value"],
        "properties": {
            "key": {"type": ["object", "null"]},
            "value": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/event"}]},
        },
        "if": {"anyOf": [{"properties": {"value": {"type": "null"}}}, deleted]},
        "then": {"required": ["key"], "properties": {"key": {"$ref": "#/$defs/key"}}},
        "$defs": {
            "event": event,
            "key": key,
            "row": _object(contract.columns, lambda column: (_of_key if column in keys else _of_sent_or_not)(column)),
        },
    }


def _object(columns: Sequence[Column], of_value: Callable[[Column], Json], blank_is_null: bool = False) -> Json:
    properties = {}
    for column in columns:
        value = of_value(column)
        if not column.required:
            blank = [{"const": ""}] if blank_is_null and column.type != "string" else []
            value = {"anyOf": [value, {"type": "null"}, *blank]}
        properties[column.given_name] = {"description": column.description, **value}
    return {
        "type": "object",
        "required": [column.given_name for column in columns if column.required],
        "properties": properties,
    }


def _of_key(column: Column) -> Json:
    """A key is always sent, and a text in it is not blank."""
    value = _of_debezium(column)
    return {**value, "pattern": "[^ ]", "not": {"const": UNAVAILABLE}} if column.type == "string" else value


def _of_sent_or_not(column: Column) -> Json:
    """An unchanged large value may not be sent; its placeholder is a text."""
    value = _of_debezium(column)
    return value if column.type == "string" else {"anyOf": [value, {"const": UNAVAILABLE}]}


def _of_debezium(column: Column) -> Json:
    """Integers are numbers, dates are days, everything else that is not boolean is a text."""
    if column.type == "date":
        return _integer(*_DAYS)
    if "precise" in column.accepts:
        return {"type": "string", "pattern": "^[A-Za-z0-9+/]+={0,2}$"}
    return _of_json(column) | ({"not": {"pattern": "^([0-9]{4})+$"}} if column.needs_point else {})


def _of_json(column: Column) -> Json:
    if column.type in _INTEGERS:
        return _integer(*_INTEGERS[column.type])
    if column.type == "boolean":
        return {"type": "boolean"}
    if any(way.startswith("epoch") for way in column.accepts):
        return {"anyOf": [_of_text(column), {"type": "integer"}]}
    return _of_text(column)


def _of_text(column: Column) -> Json:
    if column.accepts:
        return {"type": "string"}  # which ways of writing are read beyond the plain one is for ingestion to say
    if column.precision_and_scale:
        precision, scale = column.precision_and_scale
        return {"type": "string", "pattern": f"^-?0*[0-9]{{1,{max(precision - scale, 1)}}}([.][0-9]{{0,{scale}}}0*)?$"}
    if column.type in _INTEGERS:
        return {"type": "string", "pattern": "^-?[0-9]+$"}
    if column.type == "boolean":
        return {"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"}
    if column.type == "string":
        return {"type": "string"}
    return {"type": "string", "pattern": _DATE if column.type == "date" else _MOMENT}


def _integer(least: int, most: int) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


def _avro_field(column: Column) -> Json:
    kind = _avro_type(column)
    field: Json = {"name": column.name, "doc": column.description}
    return {**field, "type": kind} if column.required else {**field, "type": ["null", kind], "default": None}


def _avro_type(column: Column) -> str | Json:
    if column.precision_and_scale:
        precision, scale = column.precision_and_scale
        return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    if column.type == "timestamp":
        return {"type": "long", "logicalType": "timestamp-micros"}
    if column.type == "date":
        return {"type": "int", "logicalType": "date"}
    return {"bigint": "long"}.get(column.type, column.type)


def _dbt_column(column: Column) -> list[str]:
    lines = [f"name: {column.name}", f"data_type: {_scalar(column.type)}"]
    lines += [f"description: {_scalar(column.description)}"]
    meta: Json = {"required": True} if column.required else {}
    if column.pii:
        meta["pii"] = True
    if column.subject:
        meta["subject"] = column.subject
    if column.lf_tags:
        meta["lf_tags"] = column.lf_tags
    return [*lines, f"config: {{meta: {_flow(meta)}}}"] if meta else lines


def _table_meta(contract: Contract) -> Json:
    meta: Json = {"owner": contract.owner, "contract_version": contract.version, "key": list(contract.key)}
    if contract.lf_tags:
        meta["lf_tags"] = contract.lf_tags
    return {**meta, **contract.meta}


def _flow(value: Any) -> str:
    """A value as one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if "," in value else _scalar(value)
    return json.dumps(value)


def _scalar(text: str) -> str:
    """A text as YAML, quoted where it would be read as something else."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_ .,();/'+-]*", text) and not text.endswith(" ")
    reserved = text.lower() in ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    return text if plain and not reserved else json.dumps(text, ensure_ascii=False)


def _anchor(column: Column) -> str:
    return f"column{column.name}"
