"""Which records of a topic were taken, from a ledger's batches or from the rows of the tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from python_ops.jobs.ingest.repair import Fault, compare, repair
from python_ops.jobs.ingest.streaming import checked
from python_ops.jobs.ingest.streaming.broker import Broker
from python_ops.jobs.ingest.streaming.topic import at_most
from python_ops.lake.artifacts import Manifest
from python_ops.lake.config import Settings
from python_ops.lake.contracts import load
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import BatchState, Ledger
from python_ops.lake.offsets import Offsets, gaps, next_offsets, of_rows, parse
from python_ops.watch.credentials import needed


def span(start: int, end: int, partition: int = 0, topic: str = "t") -> Offsets:
    return Offsets(topic, partition, start, end)


def test_the_next_offset_is_after_the_highest_of_each_partition_of_that_topic() -> None:
    taken = [span(5, 9), span(0, 5), span(3, 4, partition=1), span(0, 99, topic="another"), span(7, 7, partition=2)]
    assert next_offsets(taken, "t") == {0: 9, 1: 4}
    assert next_offsets(taken, "unknown") == {}


@pytest.mark.parametrize(
    ("taken", "missing"),
    [
        ([span(0, 5), span(5, 9)], ()),
        ([span(0, 5), span(7, 9)], (span(5, 7),)),
        ([span(0, 5), span(3, 9), span(12, 13), span(20, 21)], (span(9, 12), span(13, 20))),
        ([span(4, 5), span(0, 9)], ()),
        ([span(3, 5)], ()),
    ],
)
def test_gaps_lie_between_what_was_taken_and_never_before_it(
    taken: list[Offsets], missing: tuple[Offsets, ...]
) -> None:
    assert gaps(taken, "t") == missing


@pytest.mark.parametrize(
    ("waiting", "taken"),
    [
        ({}, {}),
        ({0: 60, 1: 40}, {0: 60, 1: 40}),
        ({0: 150, 1: 50}, {0: 75, 1: 25}),
        ({0: 100_000, 1: 1}, {0: 99, 1: 1}),
        (dict.fromkeys(range(300), 9), dict.fromkeys(range(300), 1)),
    ],
    ids=["nothing", "all", "in proportion", "one at least", "more partitions than records"],
)
def test_a_batch_takes_a_share_of_each_partition(waiting: dict[int, int], taken: dict[int, int]) -> None:
    """Given records behind offset 7, When a batch may have 100, Then it begins there in each partition."""
    ranges = [Offsets("t", partition, 7, 7 + count) for partition, count in waiting.items()]
    assert at_most(ranges, 100) == [Offsets("t", partition, 7, 7 + count) for partition, count in taken.items()]


def test_a_file_name_is_never_mistaken_for_a_partition() -> None:
    assert parse(span(0, 1, partition=3, topic="app.events-x_1").name) == ("app.events-x_1", 3)
    for name in ("batch_1.jsonl", "kafka:t-0", "t-0", "kafka:__t_0"):
        assert parse(name) is None


def test_a_ledger_is_rebuilt_from_the_lines_of_rows_and_dead_letters() -> None:
    """Given batches whose records between the rows were tombstones, Then the ranges join, and what a restored table
    took again under a later number does not stretch over what lies between.
    """
    bronze = {1: {"kafka://t/0": (0, 3), "a.jsonl": (1, 9)}, 2: {"kafka://t/0": (6, 8)}, 4: {"kafka://t/0": (1, 2)}}
    dlq = {2: {"kafka://t/1": (0, 0)}, 3: {"kafka://t/0": (9, 10)}}
    assert of_rows(bronze, dlq) == {
        1: (span(0, 4),),
        2: (span(4, 9), span(0, 1, partition=1)),
        3: (span(9, 11),),
        4: (span(1, 3),),
    }


def test_a_batch_of_a_topic_that_the_ledger_forgot_is_entered_with_its_offsets(tmp_path: Path) -> None:
    """Given the tables of two batches and the ledger of the first, Then the second comes back with what it took."""
    lake, contract = Lake(Settings(home=tmp_path)), load("crm_accounts")
    at = datetime(2026, 1, 2, tzinfo=UTC)
    for batch, lines in ((1, [0, 1]), (2, [3, 4])):
        names, good = ["kafka://t/0"] * 2, {"_batch_id": [batch] * 2, "_source_generation": [1, 1]}
        for layer, columns in (
            ("bronze", {**good, "_file": names, "_line": lines, "_arrived_at": [at, at]}),
            ("dlq", {"_batch_id": [batch], "file": names[:1], "line": [lines[1] + 1], "arrived_at": [at]}),
        ):
            number = CommitProperties(app_transactions=[Transaction(f"ingest:{layer}.crm_accounts", batch)])
            path = str(lake.table_path(layer, "crm_accounts"))
            write_deltalake(path, pa.table(columns), mode="append", commit_properties=number)
    ledger = lake.ledger("crm_accounts")
    first = ledger.freeze(1, "1.0.0", offsets=[span(0, 3)])
    ledger.set_state(first, BatchState.COMMITTED, counts={"read": 3, "accepted": 2, "quarantined": 1, "ignored": 0})
    found = compare(lake, contract)
    assert [(finding.batch_id, finding.fault) for finding in found] == [(2, Fault.UNKNOWN)]
    repair(lake, contract, found)
    again = lake.ledger("crm_accounts")
    assert again.taken_offsets() == (span(0, 3), span(3, 6))
    assert (again.manifests[1].files, again.manifests[1].counts["read"]) == ((), 3)
    assert compare(lake, contract) == []


def test_the_ledger_keeps_offsets_and_lost_batches_do_not_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "crm_accounts")
    first = ledger.freeze(1, "1.0.0", offsets=[span(0, 4), span(0, 2, partition=1)])
    assert Ledger(tmp_path, "crm_accounts").open_batch == first
    assert ledger.taken_offsets() == ()
    ledger.set_state(first, BatchState.COMMITTED, counts={"accepted": 1})
    ledger.set_state(ledger.freeze(2, "1.0.0", offsets=[span(4, 9)]), BatchState.LOST)
    assert Ledger(tmp_path, "crm_accounts").taken_offsets() == first.offsets


def test_what_a_topic_cannot_carry_is_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown source nope"):
        checked(Lake(Settings()), ["nope"])
    with pytest.raises(ConfigError, match=r"fx_rates has no topic\. The setting kafka_topics names those of crm_acc"):
        checked(Lake(Settings()), ["fx_rates"])
    with pytest.raises(ConfigError, match="fx_rates is csv, which a topic does not carry"):
        checked(Lake(Settings(kafka_topics={"fx_rates": "fx"})), ["fx_rates"])
    assert checked(Lake(Settings()), ["shop_orders", "shop_orders"]) == ("shop_orders",)
    assert "kafka_events" in checked(Lake(Settings()), [])


def test_a_broker_needs_an_address_and_with_sasl_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Set LAKEHOUSE_KAFKA_SERVERS=host:port"):
        Broker(Lake(Settings()))
    sasl = Lake(Settings(home=tmp_path, kafka_servers="broker:9092", kafka_protocol="SASL_SSL"))
    with pytest.raises(ConfigError, match="Secret kafka is not set"):
        Broker(sasl)


def test_a_login_is_quoted_and_reaches_spark_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_SECRET_KAFKA", '{"user": "u", "password": "a\\"b\\\\c;"}')
    broker = Broker(Lake(Settings(home=tmp_path, kafka_servers="broker:9092", kafka_protocol="SASL_SSL")))
    options = broker.spark_options()
    assert options["kafka.sasl.jaas.config"].endswith('ScramLoginModule required username="u" password="a\\"b\\\\c;";')
    assert options["kafka.sasl.mechanism"] == "SCRAM-SHA-512"
    assert options["kafka.isolation.level"] == "read_committed"


def test_a_cluster_of_aws_is_asked_by_role_and_without_a_secret(tmp_path: Path) -> None:
    iam = Settings(home=tmp_path, kafka_servers="b:9098", kafka_protocol="SASL_SSL", kafka_mechanism="AWS_MSK_IAM")
    options = Broker(Lake(iam)).spark_options()
    assert options["kafka.sasl.mechanism"] == "AWS_MSK_IAM" and options["kafka.security.protocol"] == "SASL_SSL"
    assert options["kafka.sasl.jaas.config"] == "software.amazon.msk.auth.iam.IAMLoginModule required;"
    assert options["kafka.sasl.client.callback.handler.class"].endswith(".IAMClientCallbackHandler")
    assert "kafka" not in needed(Lake(iam))
    with pytest.raises(ConfigError, match="AWS_MSK_IAM needs kafka_protocol SASL_SSL, and it is SASL_PLAINTEXT"):
        Broker(Lake(iam.model_copy(update={"kafka_protocol": "SASL_PLAINTEXT"})))
    plain = iam.model_copy(update={"kafka_protocol": "PLAINTEXT"})
    assert "kafka.sasl.mechanism" not in Broker(Lake(plain)).spark_options()


def test_everything_behind_a_source_is_downstream_of_it() -> None:
    source = "source.lakehouse.bronze.crm_accounts"
    parents = {
        "model.a": frozenset({source}),
        "model.b": frozenset({"model.a", "seed.x"}),
        "model.c": frozenset({"seed.x"}),
        "test.b": frozenset({"model.b"}),
    }
    manifest = Manifest(models={}, parents=parents, tests=frozenset())
    assert manifest.downstream([source]) == {source, "model.a", "model.b", "test.b"}
