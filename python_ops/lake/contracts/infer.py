"""A draft of a contract from a sample file. Types are read off the values, so the draft is as good as the sample.

What a sample cannot say (owner, descriptions) is left empty, which `lakeops contracts check` refuses: a person fills it
in.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
import re
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import combinations, count, islice
from pathlib import Path
from typing import Any

from python_ops.lake.contracts import MAX_PRECISION, Column, dms
from python_ops.lake.contracts.events import events_of, types_of
from python_ops.lake.errors import ConfigError, first_line, missing_extra

MOST_RECORDS = 100_000
"""How many records of a sample are read."""

_PERSONAL = re.compile(r"(^|_)(e?mail|phone|first_name|last_name|full_name|birth\w*|address|street|iban|ssn|ip)(_|$)")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-][0-9]{2}:?[0-9]{2})"
)
_LARGEST = 2**63 - 1
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)([.][0-9]+)?")
_FOURS = re.compile(r"([0-9]{4})+")
_NAME = re.compile(r"[a-z][a-z0-9_]*")

# What a contract accepts of a parquet column, by DuckDB's name of its type.
_NANOSECONDS = {"TIMESTAMP_NS": ("epoch_ns", "no_zone"), "TIMESTAMPTZ_NS": ("epoch_ns",)}


class _Number(Decimal):
    """A JSON number that knows whether it was written with an exponent."""

    has_exponent: bool

    def __new__(cls, text: str) -> _Number:
        made = super().__new__(cls, text)
        made.has_exponent = "e" in text.lower()
        return made


@dataclass(frozen=True)
class Draft:
    """A contract to be finished: as data, and as the YAML of a contract file."""

    data: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Sample:
    """Records of a file, flat.

    Attributes:
        types: Spark types, where the file itself declares them.
        key: Key columns, where the file names them.
        table: Table, where the file names it.
        schema: Its schema, where the file names it.
        accepts: Ways of writing values, where the records say them.
        source_names: What the source calls a column, where the contract cannot.
        dms: Fields of the contract that AWS DMS alone has.
    """

    format: str
    names: list[str]
    records: list[dict[str, Any]]
    types: dict[str, str | None]
    key: list[str]
    table: str | None = None
    schema: str | None = None
    accepts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source_names: Mapping[str, str] = field(default_factory=dict)
    dms: dict[str, str] = field(default_factory=dict)

    @property
    def nested(self) -> list[str]:
        """Columns that hold objects or lists, which no column of a contract does: ingestion keeps them in `_extra`."""
        return [
            name for name in self.names if any(isinstance(record.get(name), dict | list) for record in self.records)
        ]


def draft(path: Path, source: str) -> Draft:
    """Drafts a contract from a sample.

    Args:
        path: A jsonl, csv, parquet, Avro or Debezium JSON file, or one of AWS DMS by its name; gzip is unpacked.
        source: Name of the source.

    Raises:
        ConfigError: the name cannot be one, or the file cannot be read or holds no record.
    """
    if not _NAME.fullmatch(source):
        raise ConfigError(f"{source!r} is not a name of a source: lower case letters, digits and underscores.")
    try:
        sample = _read(path)
        if dms.FULL_LOAD.match(path.name) or dms.CHANGES.match(path.name):
            sample = _of_dms(sample)
    except (OSError, ValueError, EOFError) as exc:
        raise ConfigError(
            f"{path} cannot be read as a sample ({exc}). It must be jsonl, csv, parquet or Avro."
        ) from exc
    if not sample.records:
        raise ConfigError(f"{path} holds no record to read types from.")
    sample = _named(sample)
    nested = sample.nested
    drafted = {name: _column(sample, name) for name in sample.names if name not in nested}
    columns = [column for column in drafted.values() if column]
    left_out = [name for name in sample.names if not drafted.get(name)]
    if not columns:
        raise ConfigError(f"{path} holds nothing but objects and lists; a contract's columns are plain values.")
    key = sample.key or _key(sample, columns)
    data: dict[str, Any] = {
        "source": source,
        "version": "1.0.0",
        "description": "",
        "owner": "",
        "format": sample.format,
    }
    data |= {name: told for name, told in (("table", sample.table), ("schema", sample.schema)) if told}
    data |= {**sample.dms, "key": key, "columns": columns}
    for column in columns:
        if column["name"] in key:
            column["required"] = True
    return Draft(data, _text(data, path.name, len(sample.records), left_out))


def _named(sample: Sample) -> Sample:
    """The sample with names as a contract has them: in lower case, or made from what cannot be one."""
    lower = [name.lower() for name in sample.names]
    if len(set(lower)) < len(lower):
        raise ConfigError("Two columns of the sample differ by their case alone. Rename one where the file is made.")
    made: dict[str, str] = {}
    for name in sample.names:
        wanted = name.lower() if _NAME.fullmatch(name.lower()) else _made_name(name)
        others = {*made.values(), *lower}
        free = (f"{wanted}_{number}" for number in count(2))
        made[name] = (
            wanted if wanted == name.lower() or wanted not in others else next(n for n in free if n not in others)
        )
    return replace(
        sample,
        names=list(made.values()),
        records=[{made[name]: value for name, value in record.items()} for record in sample.records],
        types={made[name]: kind for name, kind in sample.types.items() if name in made},
        accepts={made[name]: how for name, how in sample.accepts.items() if name in made},
        source_names={mine: name for name, mine in made.items() if mine != name.lower()},
        key=[made.get(name, name.lower()) for name in sample.key],
    )


def _made_name(name: str) -> str:
    """A name of the contract for one that cannot be one: `Order ID` is order_id."""
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    found = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return found if _NAME.fullmatch(found) else f"column_{found}".rstrip("_")


def _read(path: Path) -> Sample:
    raw = path.read_bytes()
    if raw[:4] == b"PAR1":
        return _parquet(path)
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    elif raw[:4] == b"\x28\xb5\x2f\xfd":
        raise ValueError("it is compressed with zstd; unpack it with `zstd -d`")
    if raw[:4] == b"Obj\x01":
        return _avro(raw)
    text = raw.decode("utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    if text.lstrip()[:1] == "[":
        raise ValueError("it is a JSON array; ingestion reads one object a line")
    return _json(text) if text.lstrip()[:1] == "{" else _csv(text)


def _json(text: str) -> Sample:
    lines = [line for line in text.split("\n") if line.strip()][:MOST_RECORDS]
    events = [json.loads(line, parse_float=_Number) for line in lines]
    if not all(isinstance(event, dict) for event in events):
        raise ValueError("a line is not a JSON object")
    changes = events_of(events)
    if not changes:
        return Sample("jsonl", _names(events), events, {}, [])
    rows = [change.row for change in changes if change.row]
    tables = sorted({change.table or "" for change in changes})
    schemas = sorted({change.schema or "" for change in changes})
    if len(tables) > 1 or len(schemas) > 1:
        raise ValueError(f"it holds events of several tables or schemas: {', '.join((*schemas, *tables))}")
    keys = next((list(change.key) for change in changes if change.key), [])
    said = types_of(field for change in changes for field in change.fields)
    types: dict[str, str | None] = {name: kind for name, (kind, _) in said.items()}
    rows = [{name: str(value) if name in types and value else value for name, value in row.items()} for row in rows]
    accepts = {name: how for name, (_, how) in said.items()}
    return Sample("debezium_json", _names(rows), rows, types, keys, tables[0], schemas[0] or None, accepts)


def _csv(text: str) -> Sample:
    if "\n" in text and "\r" in text.split("\n", 1)[0].rstrip("\r"):
        raise ValueError("it has line ends of two kinds, CR alone and LF; write LF or CRLF")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    names = list(reader.fieldnames or [])
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=other)
        names = list(reader.fieldnames or [])
    if padded := [name.strip() for name in names if name != name.strip()]:
        raise ValueError(f"its header has blanks around {', '.join(padded)}; write names and values without")
    records: list[dict[str, Any]] = []
    try:
        for row in reader:
            if len(records) == MOST_RECORDS:
                break
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has another number of fields than the header")
            records.append({name: value or None for name, value in row.items()})
    except csv.Error as exc:
        raise ValueError(f"line {reader.line_num}: {exc}") from exc
    return Sample("csv", names, records, {}, [])


def _parquet(path: Path) -> Sample:
    import duckdb

    with duckdb.connect() as lake:
        lake.execute("set timezone = 'UTC'")
        try:
            found = lake.execute("select * from read_parquet(?) limit ?", [str(path), MOST_RECORDS])
        except duckdb.Error as exc:
            raise ValueError(first_line(exc)) from exc
        for column in found.description or ():
            if re.fullmatch(r"TIME|TIME WITH TIME ZONE", str(column[1])):
                raise ValueError(f"{column[0]} is {column[1]}; write times as texts")
        names = [str(column[0]) for column in found.description or ()]
        types = {str(column[0]): _parquet_type(str(column[1])) for column in found.description or ()}
        accepts = {
            str(column[0]): _NANOSECONDS[str(column[1])]
            for column in found.description or ()
            if str(column[1]) in _NANOSECONDS
        }
        records: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return Sample("parquet", names, records, types, [], accepts=accepts)


def _parquet_type(name: str) -> str | None:
    """The type of a column as the file declares it; None where its values say it."""
    if name in ("DOUBLE", "FLOAT"):
        return None
    if name.startswith("DECIMAL"):
        return name.lower()
    if name.startswith("TIMESTAMP"):
        return "timestamp"
    known = dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT"), "int")
    known |= {
        "BIGINT": "bigint",
        "UINTEGER": "bigint",
        "BOOLEAN": "boolean",
        "DATE": "date",
        "UBIGINT": "decimal(20,0)",
    }
    return known.get(name, "string")


def _avro(raw: bytes) -> Sample:
    try:
        import fastavro
    except ImportError as exc:
        raise missing_extra("fastavro", "avro") from exc
    reader = fastavro.reader(io.BytesIO(raw))
    records: list[Any] = list(islice(reader, MOST_RECORDS))
    schema: Any = reader.writer_schema
    return Sample("avro", [field["name"] for field in schema["fields"]], records, {}, [])


def _of_dms(sample: Sample) -> Sample:
    names, rows, added = dms.table_of(sample.names, sample.records, has_types=bool(sample.types))
    types = {name: kind for name, kind in sample.types.items() if name in names}
    return Sample("dms", names, rows, types, [], dms=added)


def _names(records: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _column(sample: Sample, name: str) -> dict[str, Any] | None:
    """A column of the contract; None where no type takes all values of the sample."""
    values = [value for record in sample.records if (value := record.get(name)) is not None]
    values = [value for value in values if not isinstance(value, float) or math.isfinite(value)]
    kind = sample.types.get(name) or _type(values, sample.format)
    if name in sample.types and not values:
        kind = sample.types[name] or "decimal(38,10)"
    if kind is None:
        return None
    column: dict[str, Any] = {"name": name, "type": kind}
    if name in sample.source_names:
        column["source_name"] = sample.source_names[name]
    if accepts := list(sample.accepts.get(name, ())) or _accepts(column, values, sample.format):
        column["accepts"] = accepts
    if len(values) == len(sample.records):
        column["required"] = True
    if _PERSONAL.search(name):
        column |= {"pii": True, "lf_tags": {"sensitivity": "personal"}}
    return {**column, "description": ""}


def _accepts(column: dict[str, Any], values: Sequence[Any], format_: str) -> list[str]:
    """Other ways of writing values that the sample has."""
    read = Column(column["name"], column["type"], "")
    if format_ == "debezium_json" and read.needs_point and any(_FOURS.fullmatch(str(value)) for value in values):
        return ["no_point"]
    # Doubles are read as Java writes them, which is with an exponent below 0.001 and from ten millions.
    if read.precision_and_scale and any(isinstance(v, float) or getattr(v, "has_exponent", False) for v in values):
        return ["exponent"]
    if (
        format_ != "dms"
        and column["type"] == "timestamp"
        and any(isinstance(v, datetime) and v.tzinfo is None for v in values)
    ):
        return ["no_zone"]
    return []


def _type(values: Sequence[Any], format_: str) -> str | None:
    """The narrowest type that holds all values, None where none does; integers are bigint, for a sample does not show
    the largest."""
    if not values:
        return "string"
    if format_ == "debezium_json":
        values = [value for value in values if value != "__debezium_unavailable_value"]
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if all(isinstance(value, int) and -_LARGEST <= value <= _LARGEST for value in values):
        return "bigint" if not any(isinstance(value, bool) for value in values) else None
    for kind, name in (("datetime", "timestamp"), ("date", "date")):
        if all(type(value).__name__ == kind for value in values):
            return name
    if all(isinstance(value, int | Decimal | float) and not isinstance(value, bool) for value in values):
        # Debezium writes decimals as texts; ingestion takes no double of its for one.
        narrowest = None if format_ == "debezium_json" else _decimal(str(value) for value in values)
        # A sample's doubles do not show the digits of others.
        roomy = all(isinstance(value, float) and value == round(value, 10) and abs(value) < 1e15 for value in values)
        return "decimal(38,10)" if narrowest and roomy else narrowest
    if all(isinstance(value, bytes | uuid.UUID) for value in values):
        return "string"
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        return None
    if format_ in ("csv", "dms") and all(text.lower() in ("true", "false") for text in texts):
        return "boolean"
    if all(_MOMENT.fullmatch(text) and _exists(text) for text in texts):
        return "timestamp"
    if format_ != "debezium_json" and all(_DATE.fullmatch(text) and _exists(text) for text in texts):
        return "date"
    if format_ in ("csv", "dms") and all(_INTEGER.fullmatch(text) for text in texts):
        return "bigint"
    if all(_NUMBER.fullmatch(text) for text in texts) and any("." in text for text in texts):
        return _decimal(texts) or "string"
    return "string"


def _exists(text: str) -> bool:
    """Whether the calendar has the day, and the day the time."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _decimal(texts: Iterable[str]) -> str | None:
    """Room for the digits after the point that were seen, and for ten before it where there is; None for too many."""
    parts = [format(Decimal(text), "f").lstrip("-").partition(".") for text in texts]
    scale = max(len(fraction) for _, _, fraction in parts)
    whole = max(len(number) for number, _, _ in parts)
    if whole + scale > MAX_PRECISION:
        return None
    return f"decimal({min(MAX_PRECISION, max(10, whole) + scale)},{scale})"


def _key(sample: Sample, columns: Sequence[dict[str, Any]]) -> list[str]:
    """The first column, or pair, that is always there and never twice; else the first that is always there."""
    required = [column["name"] for column in columns if column.get("required")]
    for size in (1, 2):
        for names in combinations(required, size):
            if len({tuple(str(record[name]) for name in names) for record in sample.records}) == len(sample.records):
                return list(names)
    return required[:1] or [columns[0]["name"]]


def _text(data: dict[str, Any], file: str, records: int, left_out: Sequence[str]) -> str:
    return "".join(_lines(data, file, records, left_out))


def _lines(data: dict[str, Any], file: str, records: int, left_out: Sequence[str]) -> Iterator[str]:
    yield f"# Drafted from {records} records of {file}. Check key, types and what is required; fill what is empty.\n"
    if left_out:
        yield "# Left out, because they hold objects, lists, or values that no one type holds, "
        yield f"which ingestion keeps in _extra: {', '.join(left_out)}.\n"
    top = ("source", "version", "description", "owner", "format", "table", "schema")
    for name in (*top, "timestamp_column", "before_image_prefix"):
        if name in data:
            yield f"{name}: {data[name] or json.dumps(data[name])}\n"
    yield f"key: [{', '.join(data['key'])}]\ncolumns:\n"
    for column in data["columns"]:
        yield f"  - name: {column['name']}\n"
        yield f"    source_name: {json.dumps(column['source_name'])}\n" if "source_name" in column else ""
        yield f"    type: {column['type']}\n"
        yield "    required: true\n" if column.get("required") else ""
        if column.get("accepts"):
            yield f"    accepts: [{', '.join(column['accepts'])}]\n"
        if column.get("pii"):
            yield "    pii: true\n    lf_tags: {sensitivity: personal}\n"
        yield '    description: ""\n'
