"""Debezium's events, whatever its settings: the same change gives the same row of bronze."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cdc_duck import Duck
from cdc_scenarios import ARRIVED, ORIGIN, STRATEGIES, states, versions
from jsonschema import Draft202012Validator

from python_ops.jobs.ingest.formats import values
from python_ops.jobs.ingest.formats.positions import AFTER_EVERY_ROW
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.projection import project
from python_ops.jobs.ingest.reading import read
from python_ops.lake.contracts import Column, Contract
from python_ops.lake.contracts.export import json_schema
from python_ops.lake.contracts.infer import draft

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

AT = datetime(2025, 3, 3, 6, 0, 0, 123000, tzinfo=UTC)
DAY = date(2025, 3, 3)
MICROSECONDS = int(AT.timestamp()) * 1_000_000 + 123_000
BYTES = b"\x00\xffab?>"
CHANGE = {"id": 7, "name": "é", "amount": Decimal("-123.45"), "at": AT, "day": DAY,
          "raw": base64.b64encode(BYTES).decode()}  # fmt: skip
TABLE = {"db": "shop", "schema": "public", "table": "things"}


def contract(**accepts: Sequence[str]) -> Contract:
    """Things, with what is accepted by column."""
    columns = [
        Column("id", "bigint", "Key.", required=True), Column("name", "string", "Name."),
        Column("amount", "decimal(12,2)", "Amount."), Column("at", "timestamp", "Time."),
        Column("day", "date", "Day."), Column("raw", "string", "Bytes."),
    ]  # fmt: skip
    return Contract(
        source="things", version="1.0.0", description="Things of the tests.", owner="tests", format="debezium_json",
        key=("id",), table="things",
        columns=tuple(replace(column, accepts=tuple(accepts.get(column.name, ()))) for column in columns),
    )  # fmt: skip


class Written(NamedTuple):
    """A value as a setting writes it, its semantic type, and what a contract accepts so that it is read."""

    value: Any
    schema: Mapping[str, Any]
    accepts: tuple[str, ...] = ()


def unscaled(number: Decimal, scale: int = 2) -> str:
    """As Kafka Connect's Decimal in JSON."""
    whole = int(number.scaleb(scale, Context(prec=80)))
    return base64.b64encode(whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)).decode()


_CONNECT = "org.apache.kafka.connect.data."
DECIMALS = {
    "precise": Written(
        unscaled(CHANGE["amount"]),  # type: ignore[arg-type]
        {"type": "bytes", "name": f"{_CONNECT}Decimal", "parameters": {"scale": "2"}},
        ("precise",),
    ),
    "string": Written("-123.45", {"type": "string"}),
    "double": Written(-123.45, {"type": "double"}),
}
TIMES = {
    "adaptive": Written(MICROSECONDS // 1000, {"type": "int64", "name": "io.debezium.time.Timestamp"}, ("epoch_ms",)),
    "microseconds": Written(MICROSECONDS, {"type": "int64", "name": "io.debezium.time.MicroTimestamp"}, ("epoch_us",)),
    "nanoseconds": Written(
        MICROSECONDS * 1000, {"type": "int64", "name": "io.debezium.time.NanoTimestamp"}, ("epoch_ns",)
    ),
    "connect": Written(MICROSECONDS // 1000, {"type": "int64", "name": f"{_CONNECT}Timestamp"}, ("epoch_ms",)),
    "isostring": Written("2025-03-03T06:00:00.123Z", {"type": "string", "name": "io.debezium.time.IsoTimestamp"}),
}
BINARIES = {
    "bytes": Written(base64.b64encode(BYTES).decode(), {"type": "bytes"}),
    "base64-url-safe": Written(base64.urlsafe_b64encode(BYTES).decode(), {"type": "string"}, ("base64_url",)),
    "hex": Written(BYTES.hex(), {"type": "string"}, ("hex",)),
}
CONNECTORS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "postgresql": ({"lsn": 1000, "txId": 9}, (1000, 0)),
    "mysql": ({"file": "mysql-bin.000003", "pos": 154, "row": 2, "gtid": None}, (3 * 2**40 + 154, 2)),
    "mariadb": ({"file": "mariadb-bin.000012", "pos": 4, "row": 0}, (12 * 2**40 + 4, 0)),
    "sqlserver": (
        {"change_lsn": "00000027:00000758:0003", "commit_lsn": "00000027:00000758:0005", "event_serial_no": 2},
        (0x27 * 2**32 + 0x758, 3 * 2**16 + 2),
    ),
    "oracle": (
        {"scn": "2122185", "commit_scn": "2122199", "rs_id": " 0x00035b.00034d8d.0010 ", "ssn": 1},
        (2122185, (0x34D8D * 2**16 + 0x10) * 2**14 + 1),
    ),
}  # fmt: skip


def source(connector: str, **more: Any) -> dict[str, Any]:
    """The block `source` of an event."""
    told = {"version": "3.0.0.Final", "connector": connector, "name": "srv", "snapshot": "false"}
    return {**told, **TABLE, "ts_ms": 1741000000000, "ts_us": 1741000000000001, **CONNECTORS[connector][0], **more}


def wrapped(value: Any, fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """With its schema, as JsonConverter does by default."""
    return {"schema": {"type": "struct", "fields": list(fields), "optional": False}, "payload": value}


def shaped(shape: str, row: Any, told: Mapping[str, Any], op: str = "u", schema: Sequence[Any] = ()) -> dict[str, Any]:
    """An event in one of the shapes."""
    state = {"before": row, "after": None} if op == "d" else {"before": None, "after": row}
    envelope: dict[str, Any] = {**state, "source": told, "op": op, "ts_ms": 1741000000100}
    in_envelope = [{"type": "struct", "field": "before", "fields": schema},
                   {"type": "struct", "field": "after", "fields": schema}]  # fmt: skip
    names = ("table", "lsn", "file", "pos", "row", "change_lsn", "event_serial_no", "scn", "rs_id", "ssn", "ts_us")
    flat = {**(row or {}), "__op": op, "__deleted": str(op == "d").lower()}
    flat |= {f"__source_{name}": told[name] for name in names if name in told}
    key = {"id": row["id"]} if row else None
    cloud = {
        "id": "1", "source": "/debezium/x/srv", "specversion": "1.0", "type": "io.debezium.x.DataChangeEvent",
        "datacontenttype": "application/json", "iodebeziumop": op,
        **{f"iodebezium{name.lower().replace('_', '')}": str(value) for name, value in told.items()
           if value is not None},
    }  # fmt: skip
    return {
        "pair": {"key": key, "value": envelope},
        "value": envelope,
        "flat": flat,
        "cloud": {**cloud, "data": state},
        "wrapped pair": {
            "key": wrapped(key, [{"field": "id", "type": "int64"}]), "value": wrapped(envelope, in_envelope),
        },
        "wrapped value": wrapped(envelope, in_envelope),
        "wrapped flat": wrapped(flat, schema),
        "wrapped cloud": {**cloud, "data": wrapped(state, in_envelope)},
    }[shape]  # fmt: skip


PLAIN = ("pair", "value", "flat", "cloud")
SHAPES = (*PLAIN, *(f"wrapped {shape}" for shape in PLAIN))
CONTRACTS_SAY = [
    ("precise", "adaptive", "bytes"), ("precise", "connect", "bytes"), ("string", "microseconds", "hex"),
    ("double", "microseconds", "hex"), ("precise", "nanoseconds", "base64-url-safe"), ("string", "isostring", "bytes"),
    ("double", "isostring", "bytes"),
]  # fmt: skip
SCHEMAS_SAY = [(amount, at, "bytes") for amount, at in itertools.product(DECIMALS, TIMES)]


def combinations() -> Iterator[tuple[tuple[str, ...], Contract, dict[str, Any]]]:
    """Every combination: its names, the contract that reads it, and the event."""
    said = [(SHAPES[:4], CONTRACTS_SAY, True), (SHAPES[4:], SCHEMAS_SAY, False)]
    for shapes, settings, is_by_contract in said:
        for shape, connector, (amount, at, raw) in itertools.product(shapes, CONNECTORS, settings):
            written = {"amount": DECIMALS[amount], "at": TIMES[at], "raw": BINARIES[raw]}
            day = Written("2025-03-03Z" if at == "isostring" else (DAY - date(1970, 1, 1)).days, {"type": "int32"})
            row = {"id": 7, "name": "é", "day": day.value} | {name: one.value for name, one in written.items()}
            accepts = {name: one.accepts for name, one in written.items()} if is_by_contract else {}
            fields = [{"field": name, **one.schema} for name, one in {**written, "day": day}.items()]
            yield (
                (shape, connector, amount, at, raw),
                contract(**accepts),
                shaped(shape, row, source(connector), schema=fields),
            )


def projected(spark: SparkSession, made: Contract, events: Sequence[Any], *select: str) -> list[Row]:
    """The rows of events, in their order."""
    lines = [(event if isinstance(event, str) else json.dumps(event), "f", n) for n, event in enumerate(events, 1)]
    frame = spark.createDataFrame(lines, "_raw string, _file string, _line bigint").coalesce(1)
    return sorted(project(frame, made).selectExpr(*select or "*").collect(), key=lambda row: row["_line"])


@pytest.mark.spark
def test_every_combination_of_settings_gives_the_same_row(spark: SparkSession) -> None:
    """Connector × shape × decimal × time × binary, as the contract says or the record's schema does."""
    groups: dict[str, list[tuple[tuple[str, ...], Contract, Any]]] = {}
    for names, made, event in combinations():
        groups.setdefault(str(made.columns), []).append((names, made, event))
    wrong: dict[tuple[str, ...], Any] = {}
    for members in groups.values():
        rows = projected(spark, members[0][1], [event for *_, event in members])
        for (names, *_), row in zip(members, rows, strict=True):
            lsn, position = CONNECTORS[names[1]][1]
            want = {
                **CHANGE, "at": AT.replace(tzinfo=None), "_op": "u", "_source_lsn": lsn, "_source_position": position,
                "_source_ts": datetime(2025, 3, 3, 11, 6, 40, 1), "_kind": "event", "_extra": None,
            }  # fmt: skip
            if found := {name: row[name] for name, value in want.items() if row[name] != value}:
                wrong[names] = found | {"reason": row["_reason"], "column": row["_column"]}
    assert wrong == {}
    assert sum(map(len, groups.values())) >= 400


@pytest.mark.spark
def test_what_deletes_truncates_and_other_messages_become(spark: SparkSession) -> None:
    """A delete keeps its key alone; what is no change of a row is ignored, and another table's event if it may be."""
    row = {"id": 7, "name": "", "amount": "0.00", "at": "1970-01-01T00:00:00Z", "day": 0, "raw": ""}
    told = source("postgresql")
    deletes = [shaped(shape, row, told, op="d") for shape in SHAPES]
    ignored = [
        {"key": {"id": 7}, "value": None}, {"key": wrapped({"id": 7}, []), "value": wrapped(None, [])},
        {"key": {"serverName": "srv"}, "value": {"ts_ms": 1}}, {"ts_ms": 1, "ts_us": 2, "ts_ns": 3},
        {"status": "BEGIN", "id": "571:1", "event_count": None, "data_collections": None},
        {"source": told, "databaseName": "shop", "ddl": "create table t (i int)", "tableChanges": []},
        {"op": "m", "source": told, "message": {"prefix": "p", "content": "eA=="}},
    ]  # fmt: skip
    others = [shaped(shape, row, told | {"table": "others"}) for shape in ("pair", "value", "wrapped value", "cloud")]
    truncate = shaped("value", None, told, op="t")
    flat = {"id": 7, "name": "x", "__op": "u", "__lsn": 5}
    rows = projected(spark, contract(), [*deletes, *ignored, *others, truncate, flat, {"id": 7, "name": "x"}])
    for shape, found in zip(SHAPES, rows, strict=False):
        kept = {name: found[name] for name in ("id", "name", "amount", "at", "day", "raw", "_op", "_kind", "_unsent")}
        assert kept == dict.fromkeys(kept) | {"id": 7, "_op": "d", "_kind": "event"}, shape
    told_kinds = [row["_kind"] for row in rows[len(SHAPES) :]]
    assert told_kinds == ["ignored"] * len(ignored) + ["rejected"] * len(others) + ["event", "rejected", "rejected"]
    assert {row["_reason"] for row in rows if row["_reason"]} == {
        "event of another table",
        "no commit time (source.ts_us, ts_ns or ts_ms), or out of range (for ExtractNewRecordState:"
        " add.fields=op,table,lsn,source.ts_us)",
        "unknown operation (for ExtractNewRecordState: add.fields=op,table,lsn,source.ts_us)",
    }
    assert rows[-3]["_op"] == "t"
    ignoring = projected(spark, replace(contract(), others="ignore", schema="public"), [*others, deletes[0], flat])
    assert [row["_kind"] for row in ignoring] == ["ignored"] * len(others) + ["event", "rejected"]


@pytest.mark.spark
def test_reads_of_incremental_snapshots_have_a_place_of_their_own(spark: SparkSession) -> None:
    """After the event whose position they carry, before every change where they carry none; older times too."""
    row = {"id": 7}
    events = [
        shaped("pair", row, source("postgresql")),
        shaped("pair", row, source("postgresql", snapshot="incremental"), op="r"),
        shaped("flat", row, source("mysql"), op="r") | {"__source_snapshot": "incremental"},
        shaped("value", row, source("postgresql", snapshot="incremental", lsn=None), op="r"),
        shaped("value", row, source("postgresql", ts_us=None)),
        shaped("value", row, source("postgresql", ts_us=None, ts_ms=None, ts_ns=1741000000000001999)),
        shaped("value", row, source("postgresql", ts_us=None, ts_ms=None)),
        shaped("value", row, source("postgresql", lsn=None)),
        shaped("value", row, source("sqlserver", change_lsn=None, event_serial_no=None), op="r"),
        shaped("value", row, source("postgresql", ts_us=None, ts_ms=2**62)),
        shaped("value", row, source("mysql", file=f"bin.{2**62}")),
        mongodb("value", "u", after=DOCUMENT | {"_id": 7, "at": {"$date": 2**62}}),
    ]
    rows = projected(spark, contract(), events)
    assert [(r["_source_lsn"], r["_source_position"]) for r in rows[:6]] == [
        (1000, 0), (1000, AFTER_EVERY_ROW), (3 * 2**40 + 154, AFTER_EVERY_ROW), (0, 1741000000000001), (1000, 0),
        (1000, 0),
    ]  # fmt: skip
    times = [r["_source_ts"] for r in rows[3:6]]
    assert times == [datetime(1970, 1, 1), datetime(2025, 3, 3, 11, 6, 40), datetime(2025, 3, 3, 11, 6, 40, 1)]
    assert [r["_kind"] for r in rows] == ["event"] * 6 + ["rejected"] * 2 + ["event"] + ["rejected"] * 3
    assert rows[9]["_reason"].startswith("no commit time") and rows[10]["_reason"].startswith("no log position")
    assert rows[6]["_reason"].startswith("no commit time") and rows[7]["_reason"].startswith("no log position")
    assert (rows[8]["_source_lsn"], rows[8]["_source_position"]) == (0x27 * 2**32 + 0x758, 5 * 2**16)


# Where the n-th change is, by connector: across a file, a digit more, a hexadecimal one, a second.
PLACES: dict[str, Callable[[int], dict[str, Any]]] = {
    "postgresql": lambda n: {"lsn": 998 + n},
    "mysql": lambda n: {"file": f"bin.{9 + n // 4:06}", "pos": 1000 - n // 4 * 500 + n, "row": 0},
    "sqlserver": lambda n: {"change_lsn": f"00000027:{0x758 + n // 4:08x}:{8 + n % 4:04x}", "event_serial_no": n},
    "oracle": lambda n: {"scn": str(98 + n // 2), "rs_id": f" 0x00035b.{0xFFFE + n:08x}.0010 ", "ssn": 0},
    "mongodb": lambda n: {"ts_ms": 1735689600000 + n // 3 * 1000, "ord": 9 + n % 3},
}
# Operation, key and value of each change, in the source's order.
HISTORY = [
    ("c", 1, "A"), ("r", 2, "X"), ("u", 1, "B"), ("u", 1, "C"), ("c", 3, "one"), ("d", 1, None), ("u", 3, "two"),
    ("u", 2, "Y"), ("c", 1, "D"), ("d", 3, None),
]  # fmt: skip
ORDERS = {"in order": [range(10)], "late, and again": [(0, 5, 3, 9), (8, 7, 2), (1, 4, 6, 5), range(10)]}


def change(connector: str, number: int) -> dict[str, Any]:
    """A change of HISTORY as a connector tells it, at the hour of its number; pairs and values alone take turns."""
    op, key, name = HISTORY[number]
    micros = int(ORIGIN.replace(tzinfo=UTC).timestamp() + number * 3600) * 1_000_000
    if connector == "mongodb":
        event = mongodb("pair", op, after=None if op == "d" else {"_id": key, "name": name}, ts_us=micros)
        event["value"]["source"] |= PLACES[connector](number)
        return {**event, "key": {"id": str(key)}}
    told = source(connector, ts_us=micros) | PLACES[connector](number)
    return shaped("pair", {"id": key, "name": name}, told, op=op)


@pytest.mark.spark
def test_every_connector_gives_the_same_history(spark: SparkSession) -> None:
    """The engine's own SQL, on DuckDB, over the rows that each connector's events become."""
    want = {
        1: [("A", 0, 2), ("B", 2, 3), ("C", 3, 5), ("D", 8, None)], 2: [("X", 1, 7), ("Y", 7, None)],
        3: [("one", 4, 6), ("two", 6, 9)],
    }  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, connector in enumerate(PLACES):
        made = things_of_mongodb() if connector == "mongodb" else contract()
        key = Column("id", "bigint", "Key.", required=True, source_name="_id" if connector == "mongodb" else None)
        made = replace(made, columns=(key, *made.columns[1:2]))
        found = projected(spark, made, [change(connector, place) for place in range(len(HISTORY))])
        assert {row["_kind"] for row in found} == {"event"}, (connector, found)
        rows[connector] = [{**row.asDict(), "id": row["id"] + 10 * number} for row in found]
    for order, batches in ORDERS.items():
        lab = silver([[found[place] for found in rows.values() for place in places] for places in batches])
        history, current = versions(lab, "history"), states(lab, "current")
        for number, connector in enumerate(PLACES):
            assert {key: history.pop(10 * number + key) for key in want} == want, (connector, order)
            assert [current.pop(10 * number + key) for key in (1, 2)] == [("D",), ("Y",)], (connector, order)
        assert (history, current) == ({}, {}), order


def silver(batches: Sequence[Sequence[Any]]) -> Duck:
    """A history and a state of bronze rows, built after each batch."""
    lab = Duck()
    lab.bronze("t", "k bigint, a string, within bigint")
    select = "k, a, within, _op, seq, ts, _arrived_at, _batch_id"
    for name, strategy in STRATEGIES.items():
        lab.model(name, "t", select, **{**strategy, "sequence_by": ["seq", "within"]})
    for number, batch in enumerate(batches, 1):
        lab.deliver("t", [
            (row["id"], row["name"], row["_source_position"], row["_op"], row["_source_lsn"], row["_source_ts"],
             row["_unsent"], None, ARRIVED, number)
            for row in batch
        ])  # fmt: skip
        lab.build()
    return lab


DOCUMENT = {
    "_id": {"$oid": "596e275826f08b2730779e1f"}, "name": "é", "amount": {"$numberDecimal": "-123.45"},
    "at": {"$date": MICROSECONDS // 1000}, "count": {"$numberLong": "9007199254740993"}, "small": 5,
    "raw": {"$binary": "AP8=", "$type": "00"}, "inside": {"a": {"$numberLong": "1"}},
}  # fmt: skip


def mongodb(shape: str, op: str, *, after: Any = DOCUMENT, **more: Any) -> dict[str, Any]:
    """An event of MongoDB in one of the shapes."""
    told = {"connector": "mongodb", "db": "shop", "rs": "rs0", "collection": "things", "ord": 31, "snapshot": "false",
            "ts_ms": 1741000000000, "ts_us": 1741000000000000, **more}  # fmt: skip
    text = None if after is None else json.dumps(after)
    envelope = {"before": None, "after": text, "updateDescription": None, "source": told, "op": op, "ts_ms": 1}
    key = {"id": json.dumps(DOCUMENT["_id"])}
    attributes = {f"iodebezium{name}".replace("_", ""): str(value) for name, value in told.items()}
    flat = {name: value for name, value in CHANGE.items() if name == "name"} | {"_id": "596e275826f08b2730779e1f"}
    flat |= {"__op": op, "__collection": "things", "__ord": 31, "__source_ts_ms": 1741000000000}
    return {
        "pair": {"key": key, "value": envelope},
        "value": envelope,
        "wrapped pair": {"key": wrapped(key, []), "value": wrapped(envelope, [])},
        "cloud": {**attributes, "iodebeziumop": op, "specversion": "1.0", "data": {"before": None, "after": text}},
        "flat": flat,
    }[shape]


def things_of_mongodb() -> Contract:
    columns = [
        Column("id", "string", "Key.", required=True, source_name="_id"), Column("name", "string", "Name."),
        Column("amount", "decimal(12,2)", "Amount."), Column("at", "timestamp", "Time."),
        Column("count", "bigint", "Count."), Column("small", "int", "Small."), Column("raw", "string", "Bytes."),
    ]  # fmt: skip
    return replace(contract(), columns=tuple(columns))


@pytest.mark.spark
def test_documents_of_mongodb(spark: SparkSession) -> None:
    """Extended JSON is unwrapped, deletes have their key, and an update without the whole document says so."""
    seconds = 1741000000
    events = [mongodb(shape, "u") for shape in ("pair", "value", "wrapped pair", "cloud", "flat")]
    events += [
        mongodb("pair", "d", after=None), mongodb("pair", "u", after=None), mongodb("pair", "c", ord=32),
        mongodb("pair", "u", ts_ms=1741000001000, ord=1), mongodb("pair", "u", collection="others"),
        mongodb("pair", "r", snapshot="incremental"), mongodb("pair", "u", ord=None),
        {**mongodb("value", "u"), "transaction": {"id": "1", "total_order": 2, "data_collection_order": 1}},
        mongodb("value", "c", after=DOCUMENT | {
            "at": {"$date": {"$numberLong": "1741000000123"}}, "raw": {"$binary": {"base64": "AP8=", "subType": "00"}},
            "small": {"$numberInt": "5"}, "name": None}),
        mongodb("value", "c", after=DOCUMENT | {"amount": {"$numberDouble": "NaN"}}),
        mongodb("value", "c", after=DOCUMENT | {"amount": {"$numberDecimal": "-Infinity"}}),
        mongodb("value", "c", after=DOCUMENT | {"amount": {"$numberDouble": "-123.45"}}),
    ]  # fmt: skip
    rows = projected(spark, things_of_mongodb(), events)
    assert [row["_kind"] for row in rows] == [
        *["event"] * 6, "rejected", "event", "event", "rejected", "event", "rejected", "event", "event",
        *["event"] * 3,
    ]  # fmt: skip
    assert [(row["amount"], values.NOT_A_NUMBER in row["_changes"]) for row in rows[14:]] == [
        (None, True), (None, True), (Decimal("-123.45"), False),
    ]  # fmt: skip
    whole = {
        "id": "596e275826f08b2730779e1f", "name": "é", "amount": Decimal("-123.45"), "at": AT.replace(tzinfo=None),
        "count": 9007199254740993, "small": 5, "raw": "AP8=", "_extra": '{"inside":{"a":{"$numberLong":"1"}}}',
    }  # fmt: skip
    for row in rows[:4]:
        assert {name: row[name] for name in whole} == whole
    assert {name: rows[13][name] for name in whole} == whole | {
        "at": datetime(2025, 3, 3, 11, 6, 40, 123000), "name": None,
    }  # fmt: skip
    assert (rows[4]["id"], rows[4]["_extra"], rows[5]["id"], rows[5]["name"]) == (whole["id"], None, whole["id"], None)
    reasons = [row["_reason"] for row in rows if row["_kind"] == "rejected"]
    assert reasons[0].startswith("an update without the whole document (for MongoDB: capture.mode=")
    assert reasons[1] == "event of another table" and reasons[2].startswith("no log position")
    places = [(row["_source_lsn"], row["_source_position"]) for row in rows]
    first = (seconds * 2**31 + 31, 0)
    assert places[:6] == [first] * 6 and first < places[7] < places[8], "the ordinal, then the next second"
    assert places[10] == (first[0], AFTER_EVERY_ROW) and places[12] == (first[0], 2)
    assert {row["_origin"] for row in rows[:4]} == {"shop"}


def test_a_draft_is_made_of_documents_of_mongodb(tmp_path: Path) -> None:
    records = [mongodb("pair", "c"), mongodb("pair", "d", after=None)]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, records)))
    made = draft(tmp_path / "s.jsonl", "things").data
    assert (made["format"], made["table"], made["key"]) == ("debezium_json", "things", ["id"])
    drafted = {column["name"]: column["type"] for column in made["columns"]}
    assert drafted == {
        "id": "string", "name": "string", "amount": "decimal(12,2)", "at": "timestamp", "count": "bigint",
        "small": "bigint", "raw": "string",
    }  # fmt: skip


NUMBERS = ["0.00", "0.01", "-0.01", "1.27", "1.28", "-1.28", "-1.29", "9999999999.99", "-9999999999.99", "42949672.96"]
WIDE = ["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "0", "-1",
        "79228162514264337593543950336", "281474976710656", "-281474976710657"]  # fmt: skip


@pytest.mark.spark
def test_precise_decimals_of_every_size(spark: SparkSession) -> None:
    """Also `{scale, value}` of a NUMERIC without a scale. Digits that look like base64 are never a number by chance.

    What the contract accepts of texts says nothing of their point.
    """
    made = contract(amount=["precise", "decimal_comma"])
    wide_column = Column("wide", "decimal(38,0)", "Any number.", accepts=("decimal_comma", "thousands"))
    made = replace(made, columns=(*made.columns, wide_column))
    narrow = [unscaled(Decimal(number)) for number in NUMBERS]
    events = [shaped("value", {"id": 7, "amount": text}, source("postgresql")) for text in [*narrow, "0123", "9999"]]
    wide = [{"scale": 0, "value": unscaled(Decimal(number), 0)} for number in WIDE]
    wide += [{"scale": 3, "value": unscaled(Decimal("7.000"), 3)}, {"scale": -2, "value": unscaled(Decimal(5), 0)}]
    events += [shaped("value", {"id": 7, "wide": value}, source("postgresql")) for value in wide]
    not_fitting = ["", "A", "////////////////////////", unscaled(Decimal("99999999999.99")), "1.5"]
    events += [shaped("value", {"id": 7, "amount": text}, source("postgresql")) for text in not_fitting]
    rows = projected(spark, made, events)
    amounts = [row["amount"] for row in rows[: len(narrow) + 2]]
    assert amounts == [Decimal(number) for number in NUMBERS] + [Decimal("-29251.29"), Decimal("-5326.11")]
    found = [row["wide"] for row in rows[len(narrow) + 2 : -len(not_fitting)]]
    assert found == [Decimal(number) for number in [*WIDE, "7", "500"]]
    last = rows[-len(not_fitting) :]
    assert [(row["_kind"], row["_reason"]) for row in last] == [("rejected", "not a decimal(12,2)")] * len(not_fitting)


@pytest.mark.spark
def test_infinite_times_are_what_the_contract_says(spark: SparkSession) -> None:
    """PostgreSQL's infinity as a number of microseconds, as days and as text."""
    moments = [(9223372036825200000, 2147483647), (-9223372036832400000, -2147483648), ("infinity", None),
               ("-infinity", None), (MICROSECONDS, 20150)]  # fmt: skip
    events = [shaped("value", {"id": 7, "at": at, "day": day}, source("postgresql")) for at, day in moments]
    refused = projected(spark, contract(at=["epoch_us"]), events)
    assert [row["_kind"] for row in refused] == ["rejected"] * 4 + ["event"]
    as_null = projected(spark, contract(at=["epoch_us", "infinity_as_null"], day=["infinity_as_null"]), events)
    assert [row["at"] for row in as_null] == [None] * 4 + [AT.replace(tzinfo=None)]
    assert [row["_kind"] for row in as_null] == ["event"] * 5
    assert [values.INFINITE in row["_changes"] for row in as_null] == [True] * 4 + [False]
    far = contract(at=["epoch_us", "infinity_as_9999"], day=["infinity_as_9999"])
    rows = projected(spark, far, events, "cast(at as string) as at", "cast(day as string) as day", "_line")
    first, last = "0001-01-01", "9999-12-31"
    assert [row["at"].split()[0] for row in rows[:4]] == [last, first, last, first]
    assert [row["day"] for row in rows[:2]] == [last, first]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_draft_is_made_of_each_shape(shape: str, tmp_path: Path) -> None:
    """A schema in the record says what JSON alone does not; heartbeats and tombstones are no sample."""
    row = {"id": 7, "name": "é", "amount": DECIMALS["precise"].value, "at": MICROSECONDS, "day": 20150, "raw": "AA=="}
    fields = [
        {"field": "id", "type": "int64"}, {"field": "name", "type": "string"}, {"field": "raw", "type": "bytes"},
        {"field": "amount", **DECIMALS["precise"].schema}, {"field": "at", **TIMES["microseconds"].schema},
        {"field": "day", "type": "int32", "name": "io.debezium.time.Date"},
    ]  # fmt: skip
    told = source("postgresql")
    records = [shaped(shape, row, told, schema=fields), {"ts_ms": 1}, {"key": {"id": 7}, "value": None}]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, records)))
    made = draft(tmp_path / "s.jsonl", "things").data
    assert (made["format"], made["key"]) == ("debezium_json", ["id"])
    assert made["table"] == "things"
    drafted = {column["name"]: (column["type"], tuple(column.get("accepts", ()))) for column in made["columns"]}
    if shape.startswith("wrapped"):
        assert drafted == {
            "id": ("bigint", ()), "name": ("string", ()), "amount": ("decimal(18,2)", ("precise",)),
            "at": ("timestamp", ("epoch_us",)), "day": ("date", ()), "raw": ("string", ()),
        }  # fmt: skip
    else:
        assert drafted.keys() == row.keys() and drafted["at"] == ("bigint", ())


def test_the_exported_schema_takes_base64_where_the_contract_does() -> None:
    made = contract(amount=["precise"], at=["epoch_us"], raw=["hex"])
    row = {"id": 7, "name": "é", "amount": DECIMALS["precise"].value, "at": MICROSECONDS, "day": 20150, "raw": "00ff"}
    validator = Draft202012Validator(json_schema(made))
    assert validator.is_valid(shaped("pair", row, source("postgresql")))
    assert not validator.is_valid(shaped("pair", row | {"amount": "-123.45"}, source("postgresql")))


def test_the_exported_schema_takes_events_of_every_connector() -> None:
    validator = Draft202012Validator(json_schema(contract(at=["epoch_us"])))
    row = {"id": 7, "at": MICROSECONDS}
    for connector in CONNECTORS:
        event = shaped("pair", row, source(connector))
        assert validator.is_valid(event), connector
        told = event["value"]["source"]
        for names in (("table",), ("ts_us", "ts_ns", "ts_ms"), ("lsn", "pos", "change_lsn", "commit_lsn", "scn")):
            less = {name: value for name, value in told.items() if name not in names}
            assert not validator.is_valid({**event, "value": {**event["value"], "source": less}}), (connector, names)
    of_documents = Draft202012Validator(json_schema(things_of_mongodb()))
    for event in (mongodb("pair", "c"), mongodb("pair", "d", after=None), {"key": {"id": '"x"'}, "value": None}):
        assert of_documents.is_valid(event)
    for wrong in (
        mongodb("pair", "c", after=None),
        mongodb("pair", "u", collection="others"),
        {"key": {}, "value": None},
    ):
        assert not of_documents.is_valid(wrong)


@pytest.mark.spark
def test_a_json_number_has_its_point_whatever_a_text_has(spark: SparkSession) -> None:
    """`1234.5` is no number with groups: nothing was normalised, and nothing is told."""
    accepts = ["decimal_comma", "thousands"]
    given = [1234.5, "1.234,50", 1234]
    wanted = [(Decimal("1234.50"), False), (Decimal("1234.50"), True), (Decimal(1234), False)]
    lines = [{"id": n, "amount": amount} for n, amount in enumerate(given)]
    for made, events in (
        (replace(contract(amount=accepts), format="jsonl"), lines),
        (contract(amount=accepts), [shaped("pair", line, source("postgresql")) for line in lines]),
    ):
        rows = projected(spark, made, events)
        assert [(row["amount"], values.THOUSANDS in (row["_changes"] or ())) for row in rows] == wanted


def test_a_file_whose_records_carry_their_schema_is_told_by_its_head(tmp_path: Path) -> None:
    for name, shape in (("a.jsonl", "pair"), ("b.jsonl", "wrapped flat"), ("c.jsonl", "cloud")):
        (tmp_path / name).write_text(json.dumps(shaped(shape, {"id": 1}, source("postgresql"))) + "\n")
    assert [inspect(tmp_path, name, contract()).schema for name in ("a.jsonl", "b.jsonl", "c.jsonl")] == [
        "", "wrapped", "wrapped",
    ]  # fmt: skip


@pytest.mark.spark
def test_a_wrapped_record_in_a_file_of_others_is_rejected_by_name(spark: SparkSession, tmp_path: Path) -> None:
    plain, other = (shaped(shape, {"id": 1}, source("postgresql")) for shape in ("value", "wrapped value"))
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(plain)] * 400 + [json.dumps(other)]))
    (records,) = read(spark, tmp_path, [inspect(tmp_path, "a.jsonl", contract())], generation=1)
    rows = project(records.lines, contract(), is_wrapped=records.is_wrapped).collect()
    assert [row["_reason"] for row in rows if row["_kind"] == "rejected"] == [
        "wrapped with its schema, unlike the first records of its file"
    ]
    assert sum(row["_kind"] == "event" for row in rows) == 400
