"""Bad input at the bronze boundary: one row per case with its place, all formats in a few ingest runs on real Delta.

Places: A accepted · N normalised and counted · Q the record is quarantined · I ignored · F the file is quarantined
(most of those are in test_ingest_files.py, without Spark) · H the table is halted.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from python_ops.jobs.ingest import IngestResult, dead_letters, discard, generations, ingest
from python_ops.jobs.ingest.batch import BatchWriter
from python_ops.jobs.ingest.formats import values
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.projection import project
from python_ops.jobs.ingest.reading import read
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Column, Contract, Contracts, SchemaVersion, Thresholds
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import BatchState, Ledger

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

pytestmark = pytest.mark.spark

THING = Contract(
    source="things", version="1.0.0", description="Things of the tests.", owner="tests", format="jsonl",
    key=("thing_id",),
    columns=(
        Column("thing_id", "bigint", "Key.", required=True),
        Column("name", "string", "Name."),
        Column("amount", "decimal(12,2)", "Amount."),
        Column("loose", "decimal(12,2)", "Amount in any writing.", accepts=("thousands", "exponent")),
        Column("is_active", "boolean", "Flag."),
        Column("day", "date", "Day.", earliest="1900-01-01", latest="2100-12-31"),
        Column("at", "timestamp", "Time with its zone, of any year."),
        Column("loose_at", "timestamp", "Time without a zone, or milliseconds.", accepts=("no_zone", "epoch_ms")),
    ),
)  # fmt: skip
TWO_KEYS = replace(
    THING, key=("thing_id", "part"), columns=(*THING.columns, Column("part", "string", "Part.", required=True))
)


def envelope(
    thing: Any = 1, op: str = "u", lsn: Any = 1000, table: str = "things", key: Any = None, **after: Any
) -> dict[str, Any]:
    """A Debezium event."""
    source = {"schema": "public", "table": table, "lsn": lsn, "ts_us": 1741000000000001, "txId": 7}
    row = None if op in "dt" else {"thing_id": thing, "part": "a", **after}
    told = {"thing_id": thing, "part": "a"} if key is None else key
    return {"key": told, "value": {"before": None, "after": row, "source": source, "op": op}}


class Case(NamedTuple):
    """A record, where it belongs, and what to look at: a reason and a column (Q), values of bronze (A, N)."""

    name: str
    place: str
    record: Any
    told: Any = None


def of_schema(schema: str, event: dict[str, Any]) -> dict[str, Any]:
    event["value"]["source"]["schema"] = schema
    return event


# As Debezium has it for text, bytea (base64, hex), hstore as JSON and as a map, and arrays.
PLACEHOLDERS: list[Any] = [
    "__debezium_unavailable_value",
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565",
    '{"__debezium_unavailable_value":"__debezium_unavailable_value"}',
    {"__debezium_unavailable_value": "__debezium_unavailable_value"},
    ["__debezium_unavailable_value"],
    [*b"__debezium_unavailable_value"],
]

# Names that the projection once had for itself.
OWN_NAMES = (
    "raw", "extra", "changes", "verdict", "is_object", "unknown_version", "event", "row", "value", "key", "text",
    "parsed", "amount", "text_amount", "kind_amount", "value_amount", "unsent_amount", "given_op", "op", "at",
    "fields", "reason", "record", "line", "file", "column", "no_row", "source_us",
)  # fmt: skip


OWN_ROW = {name: f"of {name}" for name in OWN_NAMES}
OWN_LINE = ",".join(OWN_ROW.values()).encode()


def own_names(format_: str) -> Contract:
    columns = tuple(Column(name, "string", "Its own.", required=name in ("op", "at")) for name in OWN_NAMES)
    return replace(
        THING, format=format_, table="things", key=("op", "at"), columns=columns, complete=format_ in ("csv", "dms"),
        timestamp_column="dms_at" if format_ == "dms" else None,
    )  # fmt: skip


DEBEZIUM = [
    Case("unknown op", "Q", envelope(op="x"), ("unknown operation", None)),
    Case("missing op", "Q", {"key": {}, "value": {"after": {}, "source": {}}}, ("unknown operation", None)),
    Case("before and after both null", "Q", {**envelope(), "value": {**envelope()["value"], "after": None}},
         ("no row in the event", None)),
    Case("tombstone", "I", {"key": {"thing_id": 1, "part": "a"}, "value": None}),
    Case("delete of an unknown key", "A", envelope(77, "d", 1001), {"_op": "d", "thing_id": 77}),
    Case("insert of an existing key", "A", envelope(1, "c", 1002), {"_op": "c"}),
    Case("update without insert", "A", envelope(78, "u", 1003), {"_op": "u"}),
    Case("snapshot event among changes", "A", envelope(1, "r", 1004), {"_op": "r"}),
    Case("an event", "A", envelope(2, "u", 1005, name="x"), {"name": "x"}),
    Case("exact duplicate", "A", envelope(2, "u", 1005, name="x"), {"name": "x"}),
    Case("same position, other payload", "A", envelope(2, "u", 1005, name="y"), {"name": "y"}),
    Case("key change: delete", "A", envelope(3, "d", 1006), {"_op": "d"}),
    Case("key change: tombstone", "I", {"key": {"thing_id": 3, "part": "a"}, "value": None}),
    Case("key change: create", "A", envelope(4, "c", 1006), {"_op": "c", "thing_id": 4}),
    Case("null key", "Q", envelope(None), ("a required value is null", "thing_id")),
    Case("blank key", "Q", envelope(5, part=" "), ("the key is blank", "part")),
    Case("partly null key", "Q", envelope(5, part=None), ("a required value is null", "part")),
    Case("placeholder", "A", envelope(6, name=values.UNAVAILABLE), {"name": None, "_unsent": ["name"]}),
    Case("event of another table", "Q", envelope(table="others"), ("event of another table", None)),
    Case("event of another schema", "Q", of_schema("archive", envelope()), ("event of another table", None)),
    Case("event of the schema", "A", of_schema("public", envelope(9, lsn=1007)), {"thing_id": 9}),
    *(
        Case(f"placeholder {number}", "A", envelope(60 + number, name=text, lsn=1100 + number),
             {"name": None, "_unsent": ["name"]})
        for number, text in enumerate(PLACEHOLDERS)
    ),
    Case("base64 of a decimal", "Q", envelope(amount="MDk="), ("not a decimal(12,2); it looks like base64", "amount")),
    Case("base64 that begins with 0", "Q", envelope(amount="0123"), ("not a decimal(12,2)", "amount")),
    Case("base64 of digits", "Q", envelope(amount="9999"), ("not a decimal(12,2) without doubt", "amount")),
    Case("digits that base64 has not", "A", envelope(10, lsn=1008, amount="99999"), {"amount": Decimal(99999)}),
    Case("a decimal with its point", "A", envelope(10, lsn=1009, amount="123.45"), {"amount": Decimal("123.45")}),
    Case("digits, agreed", "A", envelope(10, lsn=1010, loose="9999"), {"loose": Decimal(9999)}),
    Case("upper case", "A", envelope(11, lsn=1011, NAME="x", Colour=1), {"name": "x", "_extra": '{"Colour":1}'}),
    Case("key in upper case", "A", envelope(12, "d", 1012, key={"THING_ID": 12, "Part": "a"}), {"thing_id": 12}),
]  # fmt: skip

JSONL = [
    Case("byte order mark", "A", b'\xef\xbb\xbf{"thing_id": 1}', {"thing_id": 1}),
    Case("not JSON", "Q", b"thing", ("not one JSON object", None)),
    Case("array", "Q", b"[1, 2]", ("not one JSON object", None)),
    Case("two objects", "Q", b'{"thing_id": 1}{"thing_id": 2}', ("not one JSON object", None)),
    Case("last of an array", "Q", b'{"thing_id": 1}]', ("not one JSON object", None)),
    Case("one of an array", "Q", b'{"thing_id": 1},', ("not one JSON object", None)),
    Case("two arrays", "Q", b'{"thing_id": 7}] [{"thing_id": 8}', ("not one JSON object", None)),
    Case("names in upper case", "A", b'{"THING_ID": 1, "Name": "a", "Colour": 1}',
         {"thing_id": 1, "name": "a", "_extra": '{"Colour":1}'}),
    Case("its own name goes first", "A", b'{"THING_ID": 1, "thing_id": 2}',
         {"thing_id": 2, "_extra": '{"THING_ID":1}'}),
    Case("a name in two cases", "Q", b'{"thing_id": 1, "NAME": "a", "Name": "b"}', ("a column is there twice", None)),
    Case("duplicated keys", "Q", b'{"thing_id": 1, "thing_id": 2}', ("not one JSON object, or a key", None)),
    Case("invalid UTF-8", "Q", b'{"thing_id": 1, "name": "\xff\xfe"}', ("not valid UTF-8", None)),
    Case("NUL", "N", {"thing_id": 1, "name": "a\0b"}, {"name": "ab", "change": values.NUL}),
    Case("control character", "A", {"thing_id": 1, "name": "a\x07\x1bb"}, {"name": "a\x07\x1bb"}),
    Case("missing required", "Q", {"name": "a"}, ("a required column is missing", "thing_id")),
    Case("null required", "Q", {"thing_id": None}, ("a required value is null", "thing_id")),
    Case("missing optional", "A", {"thing_id": 1}, {"name": None}),
    Case("integer overflow", "Q", b'{"thing_id": 9223372036854775808}', ("not a bigint", "thing_id")),
    Case("decimal overflow", "Q", {"thing_id": 1, "amount": "99999999999.00"}, ("not a decimal(12,2)", "amount")),
    Case("scale loss", "Q", b'{"thing_id": 1, "amount": 1.005}', ("not a decimal(12,2)", "amount")),
    Case("exact number", "A", b'{"thing_id": 1, "amount": 1.50}', {"amount": Decimal("1.50")}),
    Case("NaN", "N", {"thing_id": 1, "amount": "NaN"}, {"amount": None, "change": values.NOT_A_NUMBER}),
    Case("Infinity", "N", {"thing_id": 1, "amount": "-Infinity"}, {"amount": None, "change": values.NOT_A_NUMBER}),
    Case("thousands, not agreed", "Q", {"thing_id": 1, "amount": "1,234.50"}, ("not a decimal", "amount")),
    Case("thousands, agreed", "N", {"thing_id": 1, "loose": "1,234.50"},
         {"loose": Decimal("1234.50"), "change": values.THOUSANDS}),
    Case("exponent, not agreed", "Q", {"thing_id": 1, "amount": "1e3"}, ("not a decimal", "amount")),
    Case("exponent, agreed", "N", {"thing_id": 1, "loose": "1e3"},
         {"loose": Decimal("1000"), "change": values.EXPONENT}),
    Case("exponent that loses digits", "Q", {"thing_id": 1, "loose": "1e-3"}, ("not a decimal", "loose")),
    Case("exponent as a number", "N", b'{"thing_id": 1, "loose": 1.5e8}',
         {"loose": Decimal("150000000"), "change": values.EXPONENT}),
    Case("exponent as a number that needs none", "A", b'{"thing_id": 1, "loose": 1.5e3}', {"loose": Decimal("1500")}),
    Case("exponent of more digits than a double has", "Q", b'{"thing_id": 1, "loose": 1.00000000000000001e2}',
         ("not a decimal", "loose")),
    Case("many digits elsewhere", "N", b'{"thing_id": 12345678901234567, "loose": 2.5e8, "name": "1234567890123456e0"}',
         {"loose": Decimal("250000000"), "change": values.EXPONENT}),
    Case("more digits than a decimal has", "Q", b'{"thing_id": 1, "loose": 1.0000000000000000000000000000000000000001}',
         ("not a decimal", "loose")),
    Case("listed boolean", "N", {"thing_id": 1, "is_active": "Yes"},
         {"is_active": True, "change": values.LISTED_BOOLEAN}),
    Case("boolean", "A", {"thing_id": 1, "is_active": False}, {"is_active": False}),
    Case("other boolean", "Q", {"thing_id": 1, "is_active": "perhaps"}, ("not a boolean", "is_active")),
    Case("epoch", "A", {"thing_id": 1, "loose_at": 1741000000000}, {"loose_at": datetime(2025, 3, 3, 11, 6, 40)}),
    Case("epoch out of range", "Q", {"thing_id": 1, "loose_at": 9 * 10**17}, ("not a timestamp", "loose_at")),
    Case("epoch, not agreed", "Q", {"thing_id": 1, "at": 1741000000}, ("not a timestamp", "at")),
    Case("year 1", "A", {"thing_id": 1, "at": "0001-01-01T00:00:00Z"}, {"at": "0001-01-01 00:00:00"}),
    Case("year 9999", "A", {"thing_id": 1, "at": "9999-12-31T23:59:59Z"}, {"at": "9999-12-31 23:59:59"}),
    Case("too early for the contract", "Q", {"thing_id": 1, "day": "0001-01-01"}, ("before 1900-01-01", "day")),
    Case("too late for the contract", "Q", {"thing_id": 1, "day": "9999-12-31"}, ("after 2100-12-31", "day")),
    Case("a day", "A", {"thing_id": 1, "day": "2025-03-03"}, {"day": date(2025, 3, 3)}),
    Case("no zone, not agreed", "Q", {"thing_id": 1, "at": "2025-03-03T06:00:00"}, ("not a timestamp", "at")),
    Case("no zone, agreed", "N", {"thing_id": 1, "loose_at": "2025-03-03T06:00:00"},
         {"loose_at": datetime(2025, 3, 3, 6), "change": values.NO_ZONE}),
    Case("extra column", "A", {"thing_id": 1, "colour": "red"}, {"_extra": '{"colour":"red"}'}),
    Case("nested field added", "A", {"thing_id": 1, "more": {"a": [1]}}, {"_extra": '{"more":{"a":[1]}}'}),
    Case("type changed", "Q", {"thing_id": "1"}, ("not a bigint", "thing_id")),
    Case("array where a scalar was", "Q", {"thing_id": 1, "name": ["a"]}, ("not a string", "name")),
    Case("scalar where a row was", "Q", b"17", ("not one JSON object", None)),
    Case("row of 16 MB", "Q", {"thing_id": 1, "name": "x" * (16 << 20)}, ("longer than 16777216 bytes", None)),
    Case("10 000 columns", "Q", {"thing_id": 1, **{f"c{n}": n for n in range(10_000)}}, ("more than 1000", None)),
    Case("nesting bomb", "Q", b'{"thing_id": 1, "name": ' + b"[" * 2000 + b"]" * 2000 + b"}",
         ("not one JSON object", None)),
    Case("hostile text", "A", {"thing_id": 1, "name": "{{ x }} =cmd <!channel> ../ ${env:HOME} ' \\ \n"},
         {"name": "{{ x }} =cmd <!channel> ../ ${env:HOME} ' \\ \n"}),
    Case("blank line", "I", b""),
    Case("partial last line", "Q", b'{"thing_id": 1, "na', ("not one JSON object", None)),
]  # fmt: skip
CSV_HEADER = b"name,thing_id,colour,amount,at"
CSV = [
    Case("header", "I", CSV_HEADER),
    Case("plain", "A", b"a,1,,1.50,", {"name": "a", "amount": Decimal("1.50"), "at": None}),
    Case("quoted newline", "A", b'"a\nb ""q""",2,red,,', {"name": 'a\nb "q"', "_extra": '{"colour":"red"}'}),
    Case("empty text", "A", b'"",3,,,', {"name": ""}),
    Case("too few fields", "Q", b"a,4", ("wrong number of fields", None)),
    Case("too many fields", "Q", b"a,4,,1,,9", ("wrong number of fields", None)),
    Case("100 000 fields", "Q", b"a,4,,1," + b"," * 100_000, ("wrong number of fields", None)),
    Case("100 000 commas in quotes", "A", b'"' + b"a," * 100_000 + b'",12,,1.00,', {"thing_id": 12}),
    Case("null key", "Q", b"a,,,,", ("a required value is null", "thing_id")),
    Case("NaN", "N", b"a,5,,nan,", {"amount": None, "change": values.NOT_A_NUMBER}),
    Case("NUL", "N", b"a\0b,6,,,", {"name": "ab", "change": values.NUL}),
    Case("thousands", "Q", b'a,7,,"1,234.50",', ("not a decimal", "amount")),
    Case("carriage return", "A", b"a,8,,2.00,\r", {"amount": Decimal("2.00"), "at": None}),
    Case("unbalanced quote", "Q", b'"a,9,,,', ("wrong number of fields, or an unbalanced quote", None)),
    Case("after the unbalanced quote", "A", b"b,10,,,", {"thing_id": 10}),
    Case("multi-line after it", "Q", b'"c,11,,,', ("wrong number of fields, or an unbalanced quote", None)),
]
TABLES = {"debezium": DEBEZIUM, "jsonl": JSONL, "csv": CSV}
EVERY_CASE = [(source, case) for source, cases in TABLES.items() for case in cases]


class Yard:
    """Sources of the tests: contracts by name, one landing folder and schema for all."""

    def __init__(self, spark: SparkSession, lake: Lake) -> None:
        self.spark, self.lake = spark, lake
        jsonl = THING
        snapshot = replace(THING, format="csv", complete=True)
        guarded = Thresholds(max_delete_share=0.3, position_backwards="halt")
        self.contracts = {
            name: replace(contract, source=name)
            for name, contract in {
                "debezium": replace(
                    TWO_KEYS,
                    format="debezium_json",
                    table="things",
                    schema="public",
                    columns=tuple(
                        replace(c, accepts=(*c.accepts, "no_point")) if c.name == "loose" else c
                        for c in TWO_KEYS.columns
                    ),
                ),
                "own_csv": own_names("csv"),
                "jsonl": jsonl,
                "csv": replace(THING, format="csv"),
                "written": replace(THING, format="csv", null_text="\\N"),
                "utf_16": jsonl,
                "commas": replace(
                    THING,
                    format="csv",
                    columns=(
                        THING.columns[0],
                        replace(THING.columns[2], accepts=("decimal_comma", "thousands", "exponent")),
                    ),
                ),
                "nanoseconds": replace(
                    THING,
                    format="parquet",
                    columns=(THING.columns[0], Column("at", "timestamp", "Time.", accepts=("epoch_ns",))),
                ),
                "parquet": replace(THING, format="parquet"),
                "avro": replace(THING, format="avro"),
                "dms": replace(THING, format="dms", timestamp_column="dms_at"),
                "guarded": replace(TWO_KEYS, format="debezium_json", table="things", thresholds=guarded),
                "extract": snapshot,
                "parts": replace(THING, format="csv"),
                "versions": replace(THING, schema_version=SchemaVersion("v", ("1",))),
                "all_bad": jsonl,
                "share": replace(THING, thresholds=Thresholds(max_rejected_share=0.2)),
            }.items()
        }
        self.rounds: list[dict[str, IngestResult]] = []

    def write(self, source: str, name: str, *lines: Any) -> Path:
        texts = [line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=True).encode() for line in lines]
        content = b"\n".join(texts) + b"\n"
        folder = self.lake.landing / source
        folder.mkdir(parents=True, exist_ok=True)
        if name.endswith(".gz"):
            content = gzip.compress(content)
        if name.endswith(".zst"):
            import pyarrow

            content = pyarrow.compress(content, "zstd", asbytes=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return folder / name

    def ingest(self, *sources: str, approve: int | None = None) -> dict[str, IngestResult]:
        found = ingest(self.lake, sources or list(self.contracts), approve=approve)
        return {result.source: result for result in found}

    def rows(self, layer: str, source: str, *columns: str) -> list[Row]:
        table = f"{self.lake.schema_name(layer)}.{source}"
        return list(self.spark.table(table).selectExpr(*(columns or ("*",))).collect())

    def ledger(self, source: str) -> Ledger:
        return self.lake.ledger(source)


@pytest.fixture(scope="module")
def yard(spark: SparkSession, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The first run: every case of every format, and what later runs build on."""
    folder = tmp_path_factory.mktemp("yard")
    changed = settings.model_copy(update={"schema_prefix": "badinput"})
    opened = Lake(changed, landing=folder / "landing", state=folder / "state", start=lambda: spark)
    found = Yard(spark, opened)
    opened.contracts = Contracts(found.contracts)
    for source, cases in TABLES.items():
        found.write(source, "a." + ("csv" if source == "csv" else "jsonl"), *[case.record for case in cases])
    found.write("jsonl", "b.jsonl.gz", {"thing_id": 100})
    found.write("jsonl", "c.jsonl.zst", {"thing_id": 101}, b"garbage")
    found.write("jsonl", "c[1] {é}*?%20\\.jsonl", {"thing_id": 102})
    (opened.landing / "jsonl" / "d.jsonl").write_bytes(b"")
    (opened.landing / "jsonl" / "e.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 9999)[:-9])
    _binary_files(found)
    _dms_files(found)
    _written_files(found)
    found.write("own_csv", "a.csv", ",".join(OWN_NAMES).encode(), OWN_LINE)
    keys = range(1, 11)
    found.write("guarded", "a.jsonl", *[envelope(key, "r", 100) for key in keys])
    found.write("extract", "a.csv", b"thing_id,name", *[f"{key},x".encode() for key in keys])
    found.write("parts", "a.csv", b"thing_id,name", *[f"{key},x".encode() for key in keys])
    found.write("versions", "a.jsonl", {"thing_id": 1, "v": "1"}, {"thing_id": 2, "v": "2"})
    found.write("all_bad", "a.jsonl", *[{"name": "x"}] * 6)
    found.write("share", "a.jsonl", {"thing_id": 1}, {"thing_id": 2}, {"thing_id": 3}, b"bad")
    found.rounds.append(found.ingest())
    yield found
    for layer in ("bronze", "dlq"):
        spark.sql(f"drop schema if exists {opened.schema_name(layer)} cascade")


def _binary_files(yard: Yard) -> None:
    import fastavro
    import pyarrow as pa
    from pyarrow import parquet

    folder = yard.lake.landing / "parquet"
    folder.mkdir(parents=True)
    at = datetime(2025, 3, 3, 6, 0, 0, 1, UTC)
    good = pa.table({
        "thing_id": pa.array([1, 2, None], pa.int64()),
        "amount": pa.array([Decimal("1.50"), None, None], pa.decimal128(12, 2)),
        "at": pa.array([at, None, None], pa.timestamp("us", "UTC")),
        "day": pa.array([date(2025, 3, 3), None, None]),
        "more": pa.array([{"a": 1}, None, None]),
    })  # fmt: skip
    parquet.write_table(good, folder / "a.parquet")
    other = pa.table({"thing_id": pa.array(["3", "4"]), "amount": pa.array([1.5, 2.5])})
    parquet.write_table(other, folder / "b.parquet", compression="zstd")
    floats = pa.table({"thing_id": pa.array([5, 6, 7], pa.int64()), "amount": pa.array([1.5, float("nan"), 0.1 + 0.2])})
    parquet.write_table(floats, folder / "c.parquet", compression="gzip")
    (folder / "d.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20])
    upper = pa.table({"THING_ID": pa.array([8], pa.int64()), "At": pa.array([at], pa.timestamp("ns", "UTC"))})
    parquet.write_table(upper, folder / "e.parquet", use_deprecated_int96_timestamps=True)
    garbled = bytearray((folder / "c.parquet").read_bytes())
    garbled[4:40] = bytes(36)
    (folder / "f.parquet").write_bytes(garbled)
    parquet.write_table(pa.table({"thing_id": pa.array([9], pa.int64()), "_metadata": [1]}), folder / "g.parquet")
    folder = yard.lake.landing / "avro"
    folder.mkdir(parents=True)
    schema = {
        "type": "record", "name": "thing",
        "fields": [
            {"name": "thing_id", "type": ["null", "long"]},
            {"name": "name", "type": ["null", "string"]},
            {"name": "amount",
             "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}]},
            {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
            {"name": "more", "type": ["null", {"type": "map", "values": "long"}]},
        ],
    }  # fmt: skip
    full = {"thing_id": 1, "name": "a", "amount": Decimal("1.50"), "at": at, "more": {"a": 1}}
    empty = dict.fromkeys(full)
    with (folder / "a.avro").open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(schema), [full, empty, {**empty, "thing_id": 2}], codec="deflate")
    (folder / "b.avro").write_bytes((folder / "a.avro").read_bytes()[:-5])
    recursive = {
        "type": "record", "name": "thing",
        "fields": [{"name": "thing_id", "type": "long"}, {"name": "parent", "type": ["null", "thing"]}],
    }  # fmt: skip
    with (folder / "c.avro").open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(recursive), [{"thing_id": 3, "parent": None}])


# A csv file by what it is named for: how it is written.
WRITTEN = {
    "semicolons": ("thing_id;name;amount\n1;a, b;1.50\n2;;\\N\n3;x\n4;y;1,234.5\n", "utf-8"),
    "tabs": ('thing_id\tname\tamount\r\n1\t"a\tb"\t1.50\r\n2\t\t\\N\r\n3\tx\r\n4\ty\t1,234.5\r\n', "utf-8-sig"),
    "pipes": ('thing_id|name|amount\n1|"a\nb"|1.50\n2||\\N\n3|x\n4|y|1,234.5\n', "utf-8"),
    "le": ('thing_id,name,amount\n1,é€😀,1.50\n2,,\\N\n3,x\n4,y,"1,234.5"\n', "utf-16"),
    "be": ('thing_id;name;amount\r\n1;"é\nb";1.50\r\n2;;\\N\r\n3;x\r\n4;y;1,234.5\r\n', "utf-16-be"),
    "blanks": ('thing_id, name , amount\n1, "a,\n b" ,  1.50 \n2, , \\N\n3, x\n4, y, "1,234.5"\n', "utf-8"),
    "cr": ('thing_id,name,amount\r1,a,1.50\r2,,\\N\r3,x\r4,y,"1,234.5"\r', "utf-8"),
    "quoted_cr": ('thing_id;name;amount\r1;"a;\rb";1.50\r2;;\\N\r3;x\r4;y;1,234.5\r', "utf-16"),
}


def _written_files(yard: Yard) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for name, (text, encoding) in WRITTEN.items():
        yard.write("written", f"{name}.csv").write_bytes(text.encode(encoding))
    halves = [
        gzip.compress(half) for half in (b"thing_id,name,amount\n1,mem", b'bers,1.50\n2,,\\N\n3,x\n4,y,"1,234.5"\n')
    ]
    yard.write("written", "members.csv.gz").write_bytes(b"".join(halves))
    yard.write("utf_16", "a.jsonl").write_bytes('{"thing_id": 1, "name": "é"}\n{"thing_id": 2}\n'.encode("utf-16"))
    folder = yard.lake.landing / "nanoseconds"
    folder.mkdir(parents=True)
    at = pa.array([1_741_000_000_123_456_789, -1, None], pa.timestamp("ns", "UTC"))
    parquet.write_table(pa.table({"thing_id": [1, 2, 3], "at": at, "more_at": at}), folder / "a.parquet")
    more = {"opens": pa.array([1], pa.time64("us")), "more_at": at[:1], "small": pa.array([200], pa.uint8())}
    parquet.write_table(pa.table({"thing_id": [4], "at": at[1:2], **more}), folder / "b.parquet")
    far = {"thing_id": [5, 6], "at": pa.array([datetime(1800, 1, 1), datetime(2262, 1, 1)], pa.timestamp("ns"))}
    table = pa.table(far | {"wide": pa.array([1, 2], pa.decimal256(50, 0))})
    parquet.write_table(table, folder / "c.parquet", use_deprecated_int96_timestamps=True)
    lines = [b"thing_id;amount", b"1;1.234,5", b"2;-1234,50", b"3;1234.5", b"4;1.23", b"5;7", b"6;1,2,3", b"7;1,5e2"]
    yard.write("commas", "a.csv", *lines)


def _dms_files(yard: Yard) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    tail = b",NULL,NULL,NULL,NULL,NULL"
    yard.write("dms", "LOAD00000001.csv", b'1,"a, b",1.50' + tail, b"2,NULL,NULL" + tail)
    at = b"2025-03-03 06:00:00.000001"
    yard.write(
        "dms", "20250303-060000123.csv.gz",
        b"U," + at + b",1,c,1.50" + tail, b"D," + at + b",2,x,NULL" + tail, b"X," + at + b",3,x,NULL" + tail,
        b"I,,4,x,NULL" + tail,
    )  # fmt: skip
    parquet.write_table(
        pa.table({"Op": ["I"], "dms_at": [at.decode()], "thing_id": [5], "loose_at": [datetime(2025, 3, 3)]}),
        yard.lake.landing / "dms" / "20250303-060000124.parquet",
    )
    yard.write("dms", "2025/03/04/20250304-060000123.csv", b"I," + at + b",6,x,NULL" + tail)


@pytest.mark.parametrize(("source", "case"), EVERY_CASE, ids=[f"{source}: {case.name}" for source, case in EVERY_CASE])
def test_every_record_goes_to_its_place(yard: Yard, source: str, case: Case) -> None:
    cases = TABLES[source]
    name = "a.csv" if source == "csv" else "a.jsonl"
    raws = [c.record if isinstance(c.record, bytes) else json.dumps(c.record).encode() for c in cases]
    line = 1 + sum(1 + raw.count(b"\n") for raw in raws[: cases.index(case)])
    if not hasattr(yard, f"found_{source}"):
        columns = ("* except (at)", "cast(at as string) as at")  # Python cannot take the year 1
        accepted = {(row["_file"], row["_line"]): row for row in yard.rows("bronze", source, *columns)}
        dead = {
            (row["file"], row["line"]): row
            for row in yard.rows("dlq", source, "file", "line", "reason", "column", "cast(raw as binary) as raw")
        }
        setattr(yard, f"found_{source}", (accepted, dead))
    accepted, dead = getattr(yard, f"found_{source}")
    at = (name, line)
    if case.place == "I":
        assert at not in accepted and at not in dead
    elif case.place == "Q":
        reason, column = case.told
        assert at not in accepted and dead[at]["reason"].startswith(reason) and dead[at]["column"] == column
        assert bytes(dead[at]["raw"]) == raws[cases.index(case)], "the record is kept as it was received"
    else:
        expected = dict(case.told)
        change = expected.pop("change", None)
        assert at in accepted, dead.get(at)
        assert {name: accepted[at][name] for name in expected} == expected
        assert change is None or yard.rounds[0][source].changes[change] >= 1


@pytest.mark.parametrize("source", ["debezium", "jsonl", "csv", "parquet", "avro", "dms"])
def test_counts_reconcile(yard: Yard, source: str) -> None:
    result = yard.rounds[0][source]
    assert result.error is None
    assert result.read == result.accepted + result.quarantined + result.ignored
    assert len(yard.rows("bronze", source, "1")) == result.accepted
    assert len(yard.rows("dlq", source, "1")) == result.quarantined + len(result.rejected_files)
    if source in TABLES:
        cases = TABLES[source]
        extra = {"jsonl": (3, 1)}.get(source, (0, 0))
        assert result.accepted == sum(case.place in "AN" for case in cases) + extra[0]
        assert result.quarantined == sum(case.place == "Q" for case in cases) + extra[1]
        for change, count in result.changes.items():
            named = [case for case in cases if case.place == "N" and case.told["change"] == change]
            assert count == len(named), change


def test_a_contract_may_have_names_that_the_projection_had(yard: Yard) -> None:
    assert yard.rounds[0]["own_csv"].error is None
    found = {"csv": yard.rows("bronze", "own_csv")}
    event = {
        "key": OWN_ROW,
        "value": {"op": "c", "source": {"table": "things", "lsn": 1, "ts_us": 1}, "after": OWN_ROW},
    }
    for format_, name, line in (
        ("jsonl", "a.jsonl", OWN_ROW),
        ("debezium_json", "a.jsonl", event),
        ("dms", "LOAD00000001.csv", b"2025-03-03 06:00:00," + OWN_LINE),
    ):
        contract, folder = own_names(format_), yard.write(f"own_{format_}", name, line).parent
        (records,) = read(yard.spark, folder, [inspect(folder, name, contract)], generation=1)
        rows = project(records.lines, contract, records.layout).collect()
        found[format_] = [row for row in rows if row["_kind"] == "event"]
    for format_, rows in found.items():
        assert [{name: row[name] for name in OWN_NAMES} for row in rows] == [OWN_ROW], format_


def test_a_name_with_the_characters_of_a_pattern_is_one_file(yard: Yard) -> None:
    (row,) = [row for row in yard.rows("bronze", "jsonl", "thing_id", "_file") if row["thing_id"] == 102]
    assert row["_file"] == "c[1] {é}*?%20\\.jsonl"


def test_binary_files_are_checked_like_lines(yard: Yard) -> None:
    """Types, NULL keys, other schemas in one batch, extra columns, and a file that is cut off."""
    results = yard.rounds[0]
    rows = {(r["_file"], r["_line"]): r for r in yard.rows("bronze", "parquet")}
    assert set(rows) == {("a.parquet", 1), ("a.parquet", 2), ("c.parquet", 1), ("c.parquet", 2), ("e.parquet", 1)}
    assert (rows["e.parquet", 1]["thing_id"], rows["e.parquet", 1]["at"]) == (8, datetime(2025, 3, 3, 6, 0, 0, 1))
    first = rows["a.parquet", 1]
    assert (first["thing_id"], first["amount"], first["at"], first["day"]) == (
        1, Decimal("1.50"), datetime(2025, 3, 3, 6, 0, 0, 1), date(2025, 3, 3),
    )  # fmt: skip
    assert json.loads(first["_extra"]) == {"more": {"a": 1}}
    assert rows["c.parquet", 2]["amount"] is None and results["parquet"].changes == {values.NOT_A_NUMBER: 1}
    dead = {(r["file"], r["line"]): (r["reason"], r["column"], r["raw"]) for r in yard.rows("dlq", "parquet")}
    assert dead["b.parquet", 1][:2] == ("not a bigint", "thing_id")
    assert dead["c.parquet", 3][:2] == ("not a decimal(12,2)", "amount")
    assert json.loads(dead["a.parquet", 3][2])["thing_id"] is None
    rejected = results["parquet"].rejected_files
    assert rejected.keys() == {"d.parquet", "f.parquet", "g.parquet"}, "what Spark alone finds rejects its file too"
    for name in ("f.parquet", "g.parquet"):
        assert rejected[name].startswith("cannot be read (") and not re.search(
            "Exception|SQLSTATE|[A-Z]_", rejected[name]
        )
    assert any("another type" in warning for warning in results["parquet"].warnings)
    avro = {r["_line"]: r for r in yard.rows("bronze", "avro")}
    assert set(avro) == {1, 3}
    assert (avro[1]["amount"], avro[1]["at"]) == (Decimal("1.50"), datetime(2025, 3, 3, 6, 0, 0, 1))
    assert json.loads(avro[1]["_extra"]) == {"more": {"a": 1}}
    assert results["avro"].rejected_files.keys() == {"b.avro", "c.avro"}
    assert results["avro"].rejected_files["b.avro"] == "truncated avro"
    assert results["avro"].rejected_files["c.avro"].startswith("the type thing holds itself")


def test_csv_files_are_read_as_they_are_written(yard: Yard) -> None:
    """Delimiters, line ends, encodings and texts for NULL. Given a contract that now admits thousands, Then a replay
    splits the rejected records as their files were.
    """
    result, contract = yard.rounds[0]["written"], yard.contracts["written"]
    assert result.error is None and not result.rejected_files
    rows = {(r["_file"], r["thing_id"]): (r["name"], r["amount"]) for r in yard.rows("bronze", "written")}
    names = {
        "semicolons.csv": "a, b", "tabs.csv": "a\tb", "pipes.csv": "a\nb", "le.csv": "é€😀", "be.csv": "é\nb",
        "cr.csv": "a", "blanks.csv": "a,\n b", "quoted_cr.csv": "a;\rb", "members.csv.gz": "members",
    }  # fmt: skip
    expected = {(file, 1): (name, Decimal("1.50")) for file, name in names.items()}
    assert rows == {**expected, **{(file, 2): (None, None) for file in names}}
    dead = {(r["file"], r["raw"][0]): (r["reason"], r["raw"].rstrip("\r")) for r in yard.rows("dlq", "written")}
    assert len(dead) == result.quarantined == 2 * len(names)
    assert {dead[file, "3"][1] for file in names} == {"3;x", "3\tx", "3|x", "3,x", "3, x"}
    assert all(dead[file, "3"][0].startswith("wrong number of fields") for file in names)
    assert {dead[file, "4"][0] for file in names} == {"not a decimal(12,2)"}

    columns = tuple(replace(c, accepts=("thousands",)) if c.name == "amount" else c for c in contract.columns)
    yard.contracts["written"] = replace(contract, version="1.1.0", columns=columns)
    assert dead_letters.replay(yard.lake, "written").accepted == len(names)
    again = {(r["_file"], r["name"], r["amount"]) for r in yard.rows("bronze", "written") if r["thing_id"] == 4}
    assert again == {(file, "y", Decimal("1234.50")) for file in names}
    assert [(r["thing_id"], r["name"]) for r in yard.rows("bronze", "utf_16")] == [(1, "é"), (2, None)]


def test_nanoseconds_are_cut_where_the_contract_says_so(yard: Yard) -> None:
    rows = {r["thing_id"]: (r["at"], r["_extra"]) for r in yard.rows("bronze", "nanoseconds")}
    assert rows[1] == (datetime(2025, 3, 3, 11, 6, 40, 123456), '{"more_at":1741000000123456789}')
    assert rows[2][0] == datetime(1969, 12, 31, 23, 59, 59, 999999) and rows[3][0] is None
    assert yard.rounds[0]["nanoseconds"].changes == {values.NANOSECONDS: 3}


def test_a_column_that_cannot_be_read_is_left_out_where_the_contract_lacks_it(yard: Yard) -> None:
    """TIME in b.parquet, 50 digits in c.parquet, whose INT96 times are before 1900 too."""
    rows = {r["thing_id"]: (r["at"], r["_extra"]) for r in yard.rows("bronze", "nanoseconds")}
    assert rows[4] == (datetime(1969, 12, 31, 23, 59, 59, 999999), '{"more_at":1741000000123456789,"small":200}')
    assert rows[5] == (datetime(1800, 1, 1), None) and rows[6] == (datetime(2262, 1, 1), None)
    result = yard.rounds[0]["nanoseconds"]
    assert result.rejected_files == {} and result.quarantined == 0
    told = [text for text in result.warnings if "not read" in text]
    assert len(told) == 2 and "b.parquet has the column opens" in told[0] and "c.parquet has the column wide" in told[1]


def test_a_decimal_comma_is_read_where_the_contract_says_so(yard: Yard) -> None:
    """A point is then none: 1234.5 is no number, and neither is 1.23."""
    rows = {r["thing_id"]: r["amount"] for r in yard.rows("bronze", "commas")}
    assert rows == {1: Decimal("1234.5"), 2: Decimal("-1234.5"), 5: Decimal(7), 7: Decimal(150)}
    assert sorted(r["raw"] for r in yard.rows("dlq", "commas")) == ["3;1234.5", "4;1.23", "6;1,2,3"]
    changes = yard.rounds[0]["commas"].changes
    assert changes == {values.COMMA: 3, values.THOUSANDS: 1, values.EXPONENT: 1}


def test_dms_files_give_operations_and_an_order(yard: Yard) -> None:
    rows = {r["thing_id"]: r for r in yard.rows("bronze", "dms") if r["_file"].startswith("LOAD")}
    assert {(r["_op"], r["_source_lsn"], r["_source_position"]) for r in rows.values()} == {("r", 0, 1), ("r", 0, 2)}
    assert rows[1]["name"] == "a, b" and rows[2]["name"] is None
    changes = {r["thing_id"]: r for r in yard.rows("bronze", "dms") if not r["_file"].startswith("LOAD")}
    assert {key: r["_op"] for key, r in changes.items()} == {1: "u", 2: "d", 5: "c", 6: "c"}
    assert changes[6]["_file"] == "2025/03/04/20250304-060000123.csv", "DatePartitionEnabled"
    assert changes[1]["_source_lsn"] == 1740981600000001 and changes[2]["name"] is None
    positions = [changes[key]["_source_position"] for key in (1, 2, 5, 6)]
    assert positions == sorted(positions) and len(set(positions)) == 4
    assert [(r["line"], r["reason"]) for r in sorted(yard.rows("dlq", "dms"), key=lambda r: r["line"])] == [
        (3, "unknown operation"), (4, "no commit time"),
    ]  # fmt: skip


def test_a_batch_over_a_threshold_halts_before_anything_is_visible(yard: Yard) -> None:
    """100 % bad, above the contract's share, an unknown layout: H; the other sources proceeded (tests above)."""
    for source, told in (
        ("all_bad", "6 of 6 records would be rejected (all): 6 × a required column is missing (thing_id)"),
        ("share", "1 of 4 records would be rejected (the contract allows 20.00%)"),
        ("versions", "layout version 2, which the contract 1.0.0 does not know"),
    ):
        result = yard.rounds[0][source]
        assert result.halted == 1 and told in str(result.error) and f"{source} --approve 1" in str(result.error)
        assert yard.rows("bronze", source) == [] and yard.rows("dlq", source) == []
        assert yard.ledger(source).halted is not None


def test_halted_batches_and_dead_letters_are_decided_on(yard: Yard) -> None:
    """The second and third run: resets, deletes, approval, a newer contract, replay; many sources in few runs."""
    keys = range(1, 11)
    yard.write("debezium", "b.jsonl", envelope(1, "r", 3))  # far below: a restored database
    tail = b",again,NULL,NULL,NULL,NULL,NULL,NULL"
    yard.write("dms", "LOAD00000002.csv", b"1" + tail, b"6" + tail)
    (yard.lake.landing / "dms" / "LOAD00000002.csv.snapshot").write_text("")
    yard.write("guarded", "b.jsonl", *[envelope(key, "d", 101) for key in range(1, 6)])
    yard.write("extract", "b.csv", b"thing_id,name", *[f"{key},y".encode() for key in keys if key != 4])
    yard.write("extract", "c.csv", b"thing_id,name", b"1,z")
    yard.write("parts", "b1.csv", b"thing_id,name", *[f"{key},y".encode() for key in range(1, 8)])
    yard.write("parts", "b2.csv.gz", b"thing_id,name", b"8,y", b"9,y", b"10,y")
    broken = yard.lake.landing / "parts" / "b2.csv.gz"
    broken.write_bytes(broken.read_bytes()[:-4])
    (yard.lake.landing / "parts" / "b1.csv.snapshot").write_text('{"files": ["b2.csv.gz"]}')
    versions = yard.contracts["versions"]
    yard.contracts["versions"] = replace(versions, version="1.1.0", schema_version=SchemaVersion("v", ("1", "2")))

    asked = ("debezium", "dms", "guarded", "extract", "parts", "versions")
    second = yard.ingest(*asked)
    assert "far below" in str(second["debezium"].error)
    assert "ingest generation debezium --new --execute" in str(second["debezium"].error)
    assert "A reload is a new generation" in str(second["dms"].error)
    assert "deletes 5 of 10 keys" in str(second["guarded"].error) and second["guarded"].halted == 2
    assert "deletes 8 of 9 keys" in str(second["extract"].error), "b.csv was taken, c.csv is halted"
    deleted = [r for r in yard.rows("bronze", "extract") if r["_op"] == "d"]
    assert [(r["thing_id"], r["_file"], r["name"]) for r in deleted] == [(4, "b.csv", None)]
    assert "a part of the complete snapshot is rejected" in str(second["parts"].error)
    assert "b2.csv.gz (truncated gzip)" in str(second["parts"].error) and second["parts"].halted == 2
    assert (second["versions"].accepted, second["versions"].error) == (2, None)
    again = yard.ingest("guarded")["guarded"]
    assert again.halted == 2 and yard.ledger("guarded").last_number == 2, "decided without Spark, nothing is done twice"

    for source in ("debezium", "dms"):
        assert generations.declare(yard.lake, yard.ledger(source)).number == 2
    discard(yard.lake, ["extract"], 3)
    third = yard.ingest("debezium", "dms", "extract")
    assert [third[s].error for s in third] == [None] * 3 and third["extract"].batch_id is None
    new = [r for r in yard.rows("bronze", "debezium") if r["_source_generation"] == 2]
    assert [(r["_source_lsn"], r["_op"]) for r in new] == [(3, "r")]
    reload = {r["thing_id"]: r["_op"] for r in yard.rows("bronze", "dms") if r["_source_generation"] == 2}
    assert reload == {1: "r", 6: "r", 5: "d"}, "key 5 is not in the full load"
    delivered = (yard.lake.landing / "guarded" / "b.jsonl").read_bytes()
    yard.write("guarded", "b.jsonl", envelope(1, "d", 101))
    refused = yard.ingest("guarded", approve=2)["guarded"]
    assert "has changed since batch 2" in str(refused.error) and yard.ledger("guarded").halted is not None
    (yard.lake.landing / "guarded" / "b.jsonl").write_bytes(delivered)
    approved = yard.ingest("guarded", approve=2)["guarded"]
    assert (approved.batch_id, approved.accepted, approved.error) == (3, 5, None)
    assert [m.state for m in yard.ledger("guarded").manifests][1:] == [BatchState.RELEASED, BatchState.COMMITTED]


def test_a_replay_takes_what_todays_contract_admits_once(yard: Yard) -> None:
    """Given a contract that now admits exponents, Then a replay puts those records into bronze and closes them, under
    one number although it died before its manifest was closed.
    """
    contract = yard.contracts["jsonl"]
    columns = tuple(replace(c, accepts=("exponent",)) if c.name == "amount" else c for c in contract.columns)
    before = {(r["file"], r["line"]) for r in yard.rows("dlq", "jsonl")}
    assert dead_letters.replay(yard.lake, "jsonl").batch_id is None, "nothing passes the old contract"
    assert dead_letters.replay(yard.lake, "avro").batch_id is None, "a recursive schema is not read yet"
    yard.contracts["jsonl"] = replace(contract, version="1.1.0", columns=columns)

    def die(batch: BatchWriter) -> None:
        raise OSError("killed")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(BatchWriter, "close", die)
        dead_letters.replay(yard.lake, "jsonl")
    done = dead_letters.replay(yard.lake, "jsonl")
    again = dead_letters.replay(yard.lake, "jsonl")

    assert (done.batch_id, done.accepted, done.quarantined) == (2, 1, 0) and again.batch_id is None
    assert done.read == done.accepted + done.quarantined + done.ignored
    taken = [r for r in yard.rows("bronze", "jsonl", "* except (at)") if r["_batch_id"] == 2]
    assert [(r["amount"], r["_contract_version"], r["_file"]) for r in taken] == [(Decimal(1000), "1.1.0", "a.jsonl")]
    assert {(r["file"], r["line"]) for r in yard.rows("dlq", "jsonl")} == before, "nothing is lost from the queue"
    (closed,) = [r for r in yard.rows("dlq", "jsonl") if r["replayed_batch"] is not None]
    assert (closed["replayed_batch"], closed["line"]) == (2, taken[0]["_line"])
    listed = dead_letters.groups(yard.lake, ["jsonl"])
    assert sum(group.records for group in listed) == len(before)
    assert sum(group.open for group in listed) == len(before) - 1
    shown = dead_letters.letters(yard.lake, "jsonl", raw=True, limit=1000)
    assert all(letter.raw is None or letter.raw.isprintable() for letter in shown)
    assert r"\xff\xfe" in next(str(letter.raw) for letter in shown if letter.reason == "not valid UTF-8")
    planned = dead_letters.purge(yard.lake, "jsonl", 0)
    assert (planned.closed, planned.open, planned.executed) == (1, 0, False) and len(yard.rows("dlq", "jsonl")) == len(
        before
    )
    dead_letters.purge(yard.lake, "jsonl", 0, execute=True)
    assert {(r["file"], r["line"]) for r in yard.rows("dlq", "jsonl")} == before - {(closed["file"], closed["line"])}
