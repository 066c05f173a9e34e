"""Snapshots of tables that Spark wrote, with deletion vectors: read back, and the next batch applied once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifact_files as files
import pytest
from recovery_lake import flip

from python_ops.jobs.ingest import ingest
from python_ops.jobs.recovery.create import create
from python_ops.jobs.recovery.manifest import store_of
from python_ops.jobs.recovery.restore import restore
from python_ops.jobs.recovery.verify import verify
from python_ops.lake import home
from python_ops.lake.config import Settings
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

PREFIX = "dr"


@pytest.fixture
def own(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[Lake]:
    """Schemas of the test in the shared warehouse; landing and state in its folder."""
    changed = settings.model_copy(update={"schema_prefix": PREFIX, "recovery": str(tmp_path / "store")})
    landing, state, artifacts = (tmp_path / name for name in ("landing", "state", "target"))
    yield Lake(changed, landing=landing, state=state, artifacts=artifacts, start=lambda: spark)
    for prefix in (PREFIX, "dr_back"):
        for layer in ("bronze", "dlq", "silver"):
            spark.sql(f"drop schema if exists {prefix}_{layer} cascade")


def deliver(lake: Lake, name: str, *keys: str) -> None:
    """A landing file of crm_accounts."""
    folder = lake.landing / "crm_accounts"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for lsn, key in enumerate(keys, 10):
        row = {"account_id": key, "name": f"Account {key}", "updated_at": "2025-03-03T06:00:00.000001Z"}
        source = {"table": "accounts", "lsn": lsn, "ts_us": 1741000000000001, "txId": 7}
        value = {"before": None, "after": row, "source": source, "op": "c"}
        lines.append(json.dumps({"topic": "t", "key": {"account_id": key}, "value": value}))
    (folder / name).write_text("\n".join(lines) + "\n")


def take(lake: Lake, spark: SparkSession) -> int | None:
    (result,) = ingest(lake, ["crm_accounts"])
    assert result.error is None
    return result.batch_id


def forget(spark: SparkSession) -> None:
    """A session keeps what it knows of a table; after a restore, a lake has a new process."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    spark.catalog.clearCache()


def rows(spark: SparkSession, table: str) -> list[Any]:
    return sorted(map(str, spark.table(table).collect()))


def test_tables_with_deletion_vectors_come_back_and_the_next_batch_is_applied_once(
    spark: SparkSession, own: Lake, tmp_path: Path
) -> None:
    files.write_manifest(own.artifacts, files.model("held", layer="silver", strategy="cdc_scd1", prefix=PREFIX))
    deliver(own, "a.jsonl", "A1", "A2", "A3")
    assert take(own, spark) == 1
    held, bronze = f"{PREFIX}_silver.held__cdc", f"{PREFIX}_bronze.crm_accounts"
    spark.sql(f"create schema if not exists {PREFIX}_silver")
    spark.sql(
        f"create table {held} using delta partitioned by (`part`) as "
        "select id, concat('p/', id % 2) as `part` from range(0, 2000, 1, 1)"
    )
    # One vector per file, each in use: a bit that is flipped in the middle is always one of a vector that counts.
    spark.sql(f"delete from {held} where id % 14 = 0")
    log = spark._jvm.org.apache.spark.sql.delta.DeltaLog
    log.forTable(spark._jsparkSession, str(own.table_path("silver", "held__cdc"))).checkpoint()
    spark.sql(f"delete from {held} where id % 10 = 1")
    before = {table: rows(spark, table) for table in (held, bronze)}

    made = create(own)

    stored = {table.name: table for table in made.tables}
    assert list(stored) == ["bronze.crm_accounts", "dlq.crm_accounts", "silver.held__cdc"]
    assert any("checkpoint" in entry.path for entry in stored["silver.held__cdc"].log)
    vectors = [file for file in stored["silver.held__cdc"].files if file.path.endswith(".bin")]
    assert len(vectors) == 2 and stored["silver.held__cdc"].rows == len(before[held])
    store = store_of(own)
    assert verify(store, made).faults == ()

    # A garbled deletion vector is named before it gets into a snapshot.
    place = own.table_path("silver", "held__cdc")
    good = (place / vectors[0].path).read_bytes()
    flip(place / vectors[0].path)
    with pytest.raises(OpsError, match=r"silver.held__cdc: .*\.bin holds a garbled deletion vector"):
        create(own, full=True)
    (place / vectors[0].path).write_bytes(good)

    # The lake goes on; then it is taken back in place.
    deliver(own, "b.jsonl", "B1", "B2")
    assert take(own, spark) == 2
    spark.sql(f"delete from {held} where id < 1000")
    restore(own, own, made.id, overwrite=True, execute=True)
    forget(spark)
    assert {table: rows(spark, table) for table in before} == before

    # The batch that came after the snapshot is taken again, once, under a number of its own.
    assert take(own, spark) == 3
    assert take(own, spark) is None
    counted = spark.sql(f"select _file, count(*) as n, max(_batch_id) as batch from {bronze} group by _file order by 1")
    assert [tuple(row) for row in counted.collect()] == [("a.jsonl", 3, 1), ("b.jsonl", 2, 3)]
    states = [m.state.value for m in own.ledger("crm_accounts").manifests]
    assert states == ["committed", "lost", "committed"]

    # To another home, which a catalog does not know yet.
    back = Lake(Settings(home=tmp_path / "back", schema_prefix="dr_back"), start=lambda: spark)
    restore(own, back, made.id, execute=True)
    assert home.register(back.settings, spark) == 3
    assert home.register(back.settings, spark) == 0
    assert rows(spark, "dr_back_silver.held__cdc") == before[held]
