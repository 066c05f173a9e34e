"""Streams from a real Kafka broker into real Delta: exactly once, whatever ends them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from kafka import TopicPartition
from kafka_broker import KafkaServer

from python_ops.jobs.ingest import IngestResult, discard, ingest
from python_ops.jobs.ingest.streaming import Applied, Options, StreamResult, lag, stream
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.lake.artifacts import Model
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Contracts, Thresholds, load
from python_ops.lake.contracts.export import avro_schema
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Ledger
from python_ops.run import stream as behind

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

pytestmark = pytest.mark.spark

SOURCE = "crm_accounts"


def event(lsn: int, account_id: str = "A1", **after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Key and value of a Debezium record of crm_accounts."""
    row = {"account_id": account_id, "name": "Acme", "updated_at": "2025-03-03T06:00:00.000001Z"} | after
    source = {"table": "accounts", "lsn": lsn, "ts_us": 1741000000000001, "txId": 7}
    return {"account_id": account_id}, {"before": None, "after": row, "source": source, "op": "c"}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker for the module."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


class Desk:
    """One source, its topic, and its tables in schemas of their own."""

    def __init__(self, spark: SparkSession, lake: Lake, kafka: KafkaServer, source: str = SOURCE) -> None:
        self.spark, self.lake, self.kafka, self.source = spark, lake, kafka, source
        self.topic = lake.settings.kafka_topics[source]
        kafka.create(self.topic)

    def send(self, *records: tuple[Any, Any], partition: int | None = 0) -> None:
        self.kafka.send(self.topic, records, partition)

    def run(self, seen: list[Any] | None = None, **options: Any) -> StreamResult:
        given = Options(once=True, **options)
        (result,), _ = stream(
            self.lake, [self.source], given, (seen if seen is not None else []).append, threading.Event()
        )
        return result

    def rows(self) -> list[Row]:
        table = f"{self.lake.schema_name('bronze')}.{self.source}"
        return list(self.spark.table(table).orderBy("_file", "_line").collect())

    def offsets(self) -> list[tuple[str, int]]:
        return [(row["_file"].rsplit("/", 1)[1], row["_line"]) for row in self.rows()]

    def dlq(self) -> list[Row]:
        return list(self.spark.table(f"{self.lake.schema_name('dlq')}.{self.source}").orderBy("line").collect())

    def ledger(self) -> Ledger:
        return self.lake.ledger(self.source)

    def numbers(self) -> list[int]:
        return sorted({row["_batch_id"] for row in self.rows()})


def with_topic(lake: Lake, source: str) -> Lake:
    """The same place, with a topic for this source alone."""
    return lake.with_settings(kafka_topics={source: f"{lake.settings.schema_prefix}.{source}"})


@pytest.fixture
def desk(
    spark: SparkSession, settings: Settings, kafka: KafkaServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Desk]:
    """A desk; landing and state lie in a folder of the test, tables in the shared warehouse."""
    prefix = "k" + str(abs(hash(request.node.name)) % 10**8)
    changed = {"schema_prefix": prefix, "kafka_servers": kafka.servers, "kafka_topics": {SOURCE: prefix}}
    own = settings.model_copy(update=changed)
    opened = Lake(own, landing=tmp_path / "landing", state=tmp_path / "state", start=lambda: spark)
    yield Desk(spark, opened, kafka)
    for layer in ("bronze", "dlq", "silver"):
        spark.sql(f"drop schema if exists {opened.schema_name(layer)} cascade")


def test_records_become_batches_of_their_source_and_poison_goes_to_the_dead_letter_queue(desk: Desk) -> None:
    """Given good records among poison, Then each is in its place once, under numbers shared with landing files."""
    poison = [
        (b"not json", b"{"),
        ({"account_id": "A1"}, b"\xff\xfe"),
        (None, b'{}},{"key":null,"value":{}'),
        ({"account_id": "A1"}, b'{"op":"x"}'),
        (b"", json.dumps(event(1)[1]).encode()),
    ]
    desk.send(event(10), *poison, ({"account_id": "A1"}, None), event(11, name="Zoë\u2028 'x' ${env:HOME}"))
    desk.send(event(12, "A2"), partition=1)
    seen: list[Any] = []
    result = desk.run(seen)
    assert result.error is None
    assert (result.read, result.accepted, result.quarantined, result.ignored) == (9, 3, 5, 1)
    assert result.offsets == {0: 8, 1: 1}
    assert desk.offsets() == [("0", 0), ("0", 7), ("1", 0)]
    assert [row["name"] for row in desk.rows()] == ["Acme", "Zoë\u2028 'x' ${env:HOME}", "Acme"]
    assert {row["_source_lsn"] for row in desk.rows()} == {10, 11, 12}
    assert [row["line"] for row in desk.dlq()] == [1, 2, 3, 4, 5]
    assert desk.dlq()[0]["raw"] == '{"key":not json,"value":{}'
    assert all(row["file"] == f"kafka://{desk.topic}/0" for row in desk.dlq())
    assert isinstance(seen[0], IngestResult) and seen[0].batch_id == 1

    # An idle topic: no batch, no commit.
    bronze = AppendOnlyTable(desk.lake, "bronze", load(SOURCE))
    before = bronze.row_count(), len(desk.ledger().manifests)
    assert desk.run().batches == 0
    assert (bronze.row_count(), len(desk.ledger().manifests)) == before

    # Landing files and the topic take turns in one count of batches.
    folder = desk.lake.landing / SOURCE
    folder.mkdir(parents=True)
    key, value = event(20, "A3")
    (folder / "a.jsonl").write_text(json.dumps({"key": key, "value": value}) + "\n")
    assert ingest(desk.lake, [SOURCE])[0].batch_id == 2
    desk.send(*[event(30 + n, f"B{n}") for n in range(6)], partition=1)
    limited = desk.run(max_records=2)
    assert (limited.batches, limited.accepted, limited.offsets) == (3, 6, {0: 8, 1: 7})
    assert desk.numbers() == [1, 2, 3, 4, 5]
    assert [(row.partition, row.taken, row.waiting) for row in lag(desk.lake, [SOURCE])] == [(0, 8, 0), (1, 7, 0)]


def test_a_batch_that_was_cut_off_is_finished_with_the_same_records(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an end in the middle of a batch and more records since, Then the next run finishes that batch as it was
    frozen, and the new records make the next.
    """
    append, set_state = AppendOnlyTable.append, Ledger.set_state

    def cut_append(where: str) -> Any:
        def appending(self: AppendOnlyTable, *given: Any) -> None:
            if where == "before anything is written" or self.schema.endswith("bronze"):
                raise OSError("cut off")
            append(self, *given)

        return appending

    def cut_set_state(self: Ledger, *arguments: Any, **changes: Any) -> Any:
        raise OSError("cut off")

    points = ("before anything is written", "after the dead letters", "before the ledger")
    for done, where in enumerate(points):
        desk.send(event(1), (None, b"poison"), event(2))
        with monkeypatch.context() as patch:
            if where == "before the ledger":
                patch.setattr(Ledger, "set_state", cut_set_state)
            else:
                patch.setattr(AppendOnlyTable, "append", cut_append(where))
            assert "cut off" in (desk.run().error or ""), where
        assert Ledger.set_state is set_state and desk.ledger().open_batch is not None
        desk.send(event(3), event(4))
        told = ingest(desk.lake, [SOURCE])[0].error
        assert "lakeops stream run crm_accounts --once" in str(told)
        assert desk.run().error is None, where
        assert desk.offsets() == [("0", 5 * number + n) for number in range(done + 1) for n in (0, 2, 3, 4)], where
        assert len(desk.dlq()) == done + 1
        read = [(m.batch_id, m.counts["read"]) for m in desk.ledger().manifests]
        assert read[2 * done :] == [(2 * done + 1, 3), (2 * done + 2, 2)], where


def test_a_lost_ledger_and_a_restored_table_lose_nothing_and_double_nothing(desk: Desk) -> None:
    """Given the ledger deleted, Then it is rebuilt from the rows; Given bronze restored, Then what it lost is read
    again from the topic, under new numbers.
    """
    tombstone = ({"account_id": "A1"}, None)
    desk.send(*[record for first in (0, 4, 8) for record in (*[event(first + n) for n in range(3)], tombstone)])
    assert desk.run(max_records=4).batches == 3
    for path in desk.ledger().folder.glob("*.json"):
        path.unlink()
    assert desk.run().accepted == 0
    assert len(desk.rows()) == 9
    table = f"{desk.lake.schema_name('bronze')}.{SOURCE}"
    desk.spark.sql(f"restore table {table} to version as of 1")
    assert len(desk.rows()) == 3
    desk.send(event(20))
    result = desk.run()
    assert result.error is None
    assert any("no longer holds batch 2, 3" in warning for warning in result.warnings)
    assert desk.offsets() == [("0", n) for n in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12)]
    assert min(set(desk.numbers()) - {1}) > 3

    # Only a batch in the middle is gone: exactly its offsets are read again.
    middle = desk.numbers()[1]
    held = [row["_line"] for row in desk.rows() if row["_batch_id"] == middle]
    desk.spark.sql(f"delete from {table} where _batch_id = {middle}")
    again = desk.run()
    assert again.error is None and again.accepted == len(held)
    assert desk.offsets() == [("0", n) for n in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12)]


@pytest.mark.campaign
def test_a_partition_that_is_added_while_it_runs_is_read_from_its_start(desk: Desk) -> None:
    """Given a running stream, When a partition is added and the consumers rebalance, Then its records come too, and
    stopping loses nothing.
    """
    desk.send(event(1))
    stop = threading.Event()
    ended: list[Any] = []
    options = Options(every=0.2)
    runner = threading.Thread(target=lambda: ended.append(stream(desk.lake, [SOURCE], options, lambda _: None, stop)))
    runner.start()
    wait_for(lambda: len(desk.ledger().manifests) == 1)
    desk.kafka.add_partitions(desk.topic, 3)
    time.sleep(0.5)
    desk.send(event(2), event(3), partition=2)
    wait_for(lambda: sum(m.counts.get("accepted", 0) for m in desk.ledger().manifests) == 3)
    stop.set()
    runner.join(timeout=60)
    assert ended[0][0][0].error is None
    assert desk.offsets() == [("0", 0), ("2", 0), ("2", 1)]
    assert not (desk.lake.state / "streaming" / SOURCE).exists()
    desk.send(event(4), partition=2)
    assert desk.run().accepted == 1


def wait_for(is_so: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.1)


def test_records_that_retention_dropped_stop_the_stream_until_someone_decides(desk: Desk) -> None:
    """Given records that the topic dropped before they were taken, Then the run says which and takes nothing; with
    --skip-lost it goes on behind them, and the loss is not reported again.
    """
    desk.send(event(1), event(2))
    desk.run()
    desk.send(*[event(n) for n in range(3, 8)])
    desk.kafka.admin.delete_records({TopicPartition(desk.topic, 0): 5})
    refused = desk.run()
    assert refused.error and "partition 0 no longer holds the offsets 2 to 4" in str(refused.error)
    assert "--skip-lost" in str(refused.error) and len(desk.rows()) == 2
    skipped = desk.run(skip_lost=True)
    assert skipped.error is None and "they were skipped" in skipped.warnings[0]
    assert desk.offsets() == [("0", 0), ("0", 1), ("0", 5), ("0", 6)]
    assert desk.run().error is None and desk.run().warnings == ()


@pytest.mark.campaign
def test_a_topic_that_was_made_anew_is_refused(desk: Desk) -> None:
    """Given a topic deleted and made again under its name, Then its offsets are not mistaken for those taken before."""
    desk.send(event(1), event(2))
    desk.run()
    desk.kafka.admin.delete_topics([desk.topic])
    with pytest.raises(OpsError, match="There is no topic"):
        wait_for(lambda: bool(desk.run()) and False, 20)
    desk.kafka.create(desk.topic)
    desk.send(event(3))
    told = desk.run().error
    assert told and "the topic was made anew" in told and "kafka_topics" in told
    assert len(desk.rows()) == 2


def models(*names: str) -> tuple[Model, ...]:
    """Models of the project, without an artifact of dbt."""
    found = []
    for name in names:
        is_view, layer = name == "slv_accounts", "gold" if name.startswith("dim") else "silver"
        storage = {"materialized": "view" if is_view else "incremental", "strategy": None if is_view else "cdc_scd2"}
        found.append(
            Model(
                f"model.lakehouse.{name}",
                name,
                layer,
                layer,
                name,
                **storage,
                description="",
                meta={},
                columns=(),
                path="",
            )
        )
    return tuple(found)


@pytest.mark.campaign
def test_models_behind_the_source_are_applied_in_the_same_session(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given --apply, Then the models hold what was taken, run again only for something new, and a model that fails does
    not end the stream.
    """
    monkeypatch.setattr(behind, "affected", lambda lake, sources: models("slv_accounts", "slv_accounts_history"))
    view = f"{desk.lake.schema_name('silver')}.slv_accounts"
    applied_every = partial(behind.models_behind, desk.lake, [SOURCE])
    names: list[list[str]] = []
    stop = threading.Event()

    def report(what: Any) -> None:
        if isinstance(what, Applied) and what.error is None:
            names.append([row["name"] for row in desk.spark.sql(f"select name from {view} order by name").collect()])

    def run() -> None:
        ended.append(stream(desk.lake, [SOURCE], Options(every=0.2), report, stop, models=applied_every(0.5)))

    desk.send(event(1, "A1", name="old"), event(2, "A2", name="second"))
    ended: list[Any] = []
    runner = threading.Thread(target=run)
    runner.start()
    wait_for(lambda: ["old", "second"] in names, 120)
    desk.send(event(3, "A1", name="new"))
    wait_for(lambda: ["new", "second"] in names, 120)
    applied = len(names)
    time.sleep(2)
    assert len(names) == applied, "nothing new, and the models ran again"
    stop.set()
    runner.join(timeout=60)
    assert ended[0][0][0].error is None and ended[0][1].error is None

    monkeypatch.setattr(behind, "affected", lambda lake, sources: models("dim_customer"))
    desk.send(event(4, "A3", name="third"))
    (result,), last = stream(
        desk.lake, [SOURCE], Options(once=True), lambda _: None, threading.Event(), models=applied_every(60)
    )
    assert (result.error, result.accepted) == (None, 1)
    assert last is not None and last.error is not None and "dim_customer" in last.error


def test_events_come_as_json_or_as_avro(desk: Desk) -> None:
    """Given a topic of JSON that becomes one of Avro, Then both are typed alike, and what is neither is kept as it
    came, Avro's in base64.
    """
    events = Desk(desk.spark, with_topic(desk.lake, "kafka_events"), desk.kafka, "kafka_events")
    row = {
        "event_id": "e1", "event_type": "login", "account_id": None, "contact_id": "C1", "payload": '{"a": 1}',
        "occurred_at": "2025-03-03T06:00:00.000001Z",
    }  # fmt: skip
    events.send((None, row), (None, {**row, "event_id": None}), (b"k", None), (None, b"\x00\x00\x00\x00\x01framed"))
    result = events.run()
    assert result.error is None
    assert (result.read, result.accepted, result.quarantined, result.ignored) == (4, 1, 2, 1)

    schema = fastavro.parse_schema(avro_schema(load("kafka_events")))
    encoded = io.BytesIO()
    moment = datetime(2025, 3, 3, 6, 0, 0, 1, tzinfo=UTC)
    fastavro.schemaless_writer(encoded, schema, {**row, "event_id": "e2", "occurred_at": moment})
    events.lake = events.lake.with_settings(kafka_avro=("kafka_events",))
    events.send((None, encoded.getvalue()), (None, b"\x00\x00\x00\x00\x01framed"), (None, b"{}"), (b"k", None))
    again = events.run()
    assert again.error is None
    assert (again.read, again.accepted, again.quarantined, again.ignored) == (4, 1, 2, 1)
    first, second = ({n: v for n, v in r.asDict().items() if n[0] != "_"} for r in events.rows())
    assert first == {**second, "event_id": "e1"}
    assert second["occurred_at"] == datetime(2025, 3, 3, 6, 0, 0, 1)
    assert [letter["raw"] for letter in events.dlq()][-2:] == ["base64:AAAAAAFmcmFtZWQ=", "base64:e30="]


def test_a_batch_over_the_contracts_limit_halts_until_someone_decides(desk: Desk) -> None:
    """Given more rejected records than the contract allows, Then nothing of the batch is visible and the rest waits in
    the topic; approved it goes through under another number, discarded it is never taken.
    """
    strict = replace(load(SOURCE), thresholds=Thresholds(max_rejected_share=0.3))
    desk.lake.contracts = Contracts({SOURCE: strict})
    desk.send(event(1), (None, b"poison"), event(2), (None, b"poison"))
    for _ in range(2):
        halted = desk.run(max_records=2)
        assert halted.error and "batch 1 is halted, nothing of it is visible: 1 of 2 records" in str(halted.error)
        assert "lakeops stream run crm_accounts --approve 1" in str(halted.error)
        assert desk.rows() == [] and desk.dlq() == []
    with pytest.raises(ConfigError, match="no halted batch 7"):
        desk.run(approve=7)
    approved = desk.run(max_records=2, approve=1)
    assert approved.accepted == 1 and approved.error and "batch 3 is halted" in str(approved.error)
    assert (desk.offsets(), desk.numbers(), [row["line"] for row in desk.dlq()]) == ([("0", 0)], [2], [1])
    discard(desk.lake, [SOURCE], 3)
    desk.send(event(3))
    assert desk.run().accepted == 1
    assert (desk.offsets(), desk.numbers()) == ([("0", 0), ("0", 4)], [2, 4])


KILLED = """
import os, signal, sys
from python_ops.cli import main
from python_ops.jobs.ingest.tables import AppendOnlyTable

append = AppendOnlyTable.append

def append_and_die(self, rows, batch_id, *count):
    append(self, rows, batch_id, *count)
    if self.schema == "bronze" and batch_id == 2:
        os.kill(os.getpid(), signal.SIGKILL)

AppendOnlyTable.append = append_and_die
sys.argv = ["lakeops", "stream", "run", "crm_accounts", "--once", "--max-records", "2"]
main()
"""


@pytest.mark.campaign
def test_a_killed_stream_is_taken_up_and_sigterm_ends_it_at_a_safe_point(kafka: KafkaServer, tmp_path: Path) -> None:
    """Given kill -9 right after the rows of batch 2 were committed, and more records since, Then another process ends
    with every record once; SIGTERM ends that one with exit 0 and nothing unfinished.
    """
    topic = "killed"
    kafka.create(topic, 1)
    kafka.send(topic, [event(1), event(2), (None, b"poison"), event(3), event(4)], 0)
    given = {
        **os.environ, "LAKEHOUSE_HOME": str(tmp_path), "LAKEHOUSE_SCHEMA_PREFIX": "", "LAKEHOUSE_CORES": "2",
        "LAKEHOUSE_DRIVER_MEMORY": "1g", "LAKEHOUSE_KAFKA_SERVERS": kafka.servers,
        "LAKEHOUSE_KAFKA_TOPICS": json.dumps({SOURCE: topic}),
    }  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", KILLED], env=given, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    folder = tmp_path / "state" / "ingest"
    assert [m.state for m in Ledger(folder, SOURCE).manifests] == ["committed", "frozen"]
    kafka.send(topic, [event(5)], 0)
    command = [sys.executable, "-m", "python_ops", "stream", "run", SOURCE, "--every", "0.5"]
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        wait_for(lambda: running.poll() is not None or len(Ledger(folder, SOURCE).taken_offsets()) >= 3, 120)
        kafka.send(topic, [event(6)], 0)
        wait_for(lambda: running.poll() is not None or Ledger(folder, SOURCE).taken_offsets()[-1].end == 7, 60)
        running.send_signal(signal.SIGTERM)
        told, complaint = running.communicate(timeout=60)
    assert running.returncode == 0, told + complaint
    assert "next offsets of killed 0: 7" in told
    ledger = Ledger(folder, SOURCE)
    assert {m.state for m in ledger.manifests} == {"committed"}
    assert [(m.batch_id, m.offsets[0].start, m.offsets[0].end) for m in ledger.manifests[:2]] == [(1, 0, 2), (2, 2, 4)]
    bronze = Lake(Settings(home=tmp_path, schema_prefix="")).table_path("bronze", SOURCE)
    rows = QueryBuilder().register("t", DeltaTable(str(bronze))).execute("select _line from t")
    lines = pa.table(rows)["_line"].to_pylist()
    assert sorted(lines) == [0, 1, 3, 4, 5, 6]


@pytest.mark.campaign
def test_a_stream_runs_on_a_spark_server(kafka: KafkaServer, tmp_path: Path) -> None:
    """Given Spark on a Connect server, Then records are taken by it, poison too, and a second run finds nothing new."""
    topic = "served"
    kafka.create(topic, 1)
    kafka.send(topic, [event(1), (None, b"poison"), event(2)], 0)
    given = {
        **os.environ, "LAKEHOUSE_HOME": str(tmp_path), "LAKEHOUSE_SCHEMA_PREFIX": "", "LAKEHOUSE_CORES": "2",
        "LAKEHOUSE_DRIVER_MEMORY": "1g", "LAKEHOUSE_KAFKA_SERVERS": kafka.servers,
        "LAKEHOUSE_KAFKA_TOPICS": json.dumps({SOURCE: topic}),
    }  # fmt: skip

    def lakeops(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "python_ops", *words], env=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lakeops("spark", "start")
    try:
        assert "1 batches, read 3 = 2 accepted + 1 quarantined" in lakeops("stream", "run", SOURCE, "--once")
        assert "0 batches" in lakeops("stream", "run", SOURCE, "--once")
    finally:
        lakeops("spark", "stop")
    assert not (tmp_path / "logs" / "spark-start.log").exists(), "no Spark was started beside the server"
