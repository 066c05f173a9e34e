"""Maintenance decides from a table's state, keeps its rows, and says what it saved."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifact_files as files
import pytest

from python_ops.jobs.maintenance import Act, TablePlan, plan, run
from python_ops.lake.config import Settings
from python_ops.lake.delta import TableLog
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PREFIX = "upkeep"


def no_session() -> SparkSession:
    """For calls that must not start a JVM."""
    raise AssertionError("asked for a Spark session")


class KeptLake(Lake):
    """Gold tables in Delta, and the manifest that has their policy."""

    schema = f"{PREFIX}_gold"

    def table(self, name: str, clause: str = "", **meta: Any) -> Path:
        """An empty table with a policy."""
        self.spark.sql(f"create table {self.schema}.{name} (id bigint, day date, text string) using delta {clause}")
        node = files.model(name, prefix=PREFIX)
        node["config"]["meta"] = meta
        files.write_manifest(self.artifacts, node)
        return self.table_path("gold", name)

    def append(self, name: str, times: int, rows: int = 10) -> None:
        """Appends in several commits, one file each."""
        for commit in range(times):
            ids = self.spark.range(commit * rows, (commit + 1) * rows)
            shaped = ids.selectExpr("id", "date '2025-01-01' as day", "repeat(string(id), 20) as text")
            shaped.coalesce(1).write.format("delta").mode("append").saveAsTable(f"{self.schema}.{name}")

    def rows(self, name: str) -> list[Any]:
        return sorted(map(str, self.spark.table(f"{self.schema}.{name}").collect()))

    def plan(self, *tables: str) -> TablePlan:
        (planned,) = plan(self, tables)
        return planned

    def run(self) -> TablePlan:
        (done,) = run(self)
        assert done.error is None
        return done


@pytest.fixture
def lake(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[KeptLake]:
    own = settings.model_copy(update={"schema_prefix": PREFIX})
    spark.sql(f"drop schema if exists {PREFIX}_gold cascade")
    spark.sql(f"create schema {PREFIX}_gold")
    yield KeptLake(own, artifacts=tmp_path / "target", start=lambda: spark)


def acts(planned: TablePlan) -> list[Act]:
    return [action.act for action in planned.actions]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("clause", "meta", "statement"),
    [("", {}, "OPTIMIZE"), ("", {"zorder_by": "id"}, "zOrderBy"), ("cluster by (id)", {}, "clusterBy")],
)
def test_small_files_are_merged_once(lake: KeptLake, clause: str, meta: dict[str, Any], statement: str) -> None:
    """Given as many small files as the policy bears, When maintained, Then one file with the same rows remains."""
    path = lake.table("small", clause, optimize_after_files=4, **meta)
    lake.append("small", 4)
    assert lake.plan().actions == (), "three files could be saved; the policy says four"
    lake.append("small", 1)
    before, version = lake.rows("small"), lake.plan().before.version
    assert acts(lake.plan()) == [Act.OPTIMIZE]
    assert acts(lake.plan(f"{lake.schema}.small")) == [Act.OPTIMIZE]

    done = lake.run()

    assert done.after is not None
    assert (done.before.files, done.after.files, done.after.rows) == (5, 1, 50)
    assert lake.rows("small") == before
    assert not TableLog(path).rows_changed_since(version), "an OPTIMIZE is no change for readers"
    commit = lake.spark.sql(f"describe history {lake.schema}.small limit 1").collect()[0]
    assert commit["operation"] == "OPTIMIZE" and statement in f"OPTIMIZE {json.dumps(commit['operationParameters'])}"
    assert run(Lake(lake.settings, artifacts=lake.artifacts, start=no_session))[0].actions == ()
    lake.append("small", 1)
    assert TableLog(path).rows_changed_since(version)


@pytest.mark.spark
def test_files_per_partition_are_not_merged_across_partitions(lake: KeptLake) -> None:
    lake.table("parts", "partitioned by (day)", optimize_after_files=2)
    for day in range(1, 6):
        lake.spark.sql(f"insert into {lake.schema}.parts values (1, date '2025-01-0{day}', 'x')")
    assert (lake.plan().before.files, lake.plan().before.compactable_files, lake.plan().actions) == (5, 0, ())


@pytest.mark.spark
def test_deleted_rows_are_purged_from_the_files(lake: KeptLake) -> None:
    lake.table("marked")
    lake.append("marked", 1, rows=100)
    lake.spark.sql(f"delete from {lake.schema}.marked where id < 10")
    assert lake.plan().actions == ()
    lake.spark.sql(f"delete from {lake.schema}.marked where id < 25")
    assert lake.plan().before.deleted_share == 0.25
    before = lake.rows("marked")
    done = lake.run()
    assert acts(done) == [Act.PURGE]
    assert done.after is not None and (done.after.deleted_share, done.after.rows) == (0.0, 75)
    assert lake.rows("marked") == before


@pytest.mark.spark
def test_vacuum_removes_what_is_past_the_retention_and_nothing_else(lake: KeptLake) -> None:
    """Given removed files on both sides of the retention, When maintained, Then only the old ones go."""
    path = lake.table("old", retain_hours=48)
    lake.append("old", 1, rows=1000)
    lake.spark.sql(f"insert overwrite {lake.schema}.old select * from {lake.schema}.old where id < 500")
    age(path, hours=72)
    lake.append("old", 1, rows=1000)
    lake.spark.sql(f"insert overwrite {lake.schema}.old select * from {lake.schema}.old where id < 400")
    version = lake.plan().before.version
    before = lake.rows("old")
    planned = lake.plan()
    assert (acts(planned), planned.before.removable_files) == ([Act.VACUUM_LITE], 1)

    done = lake.run()

    assert done.after is not None and done.after.removable_files == 0
    assert done.after.bytes_on_disk == done.before.bytes_on_disk - done.before.removable_bytes
    assert lake.rows("old") == before
    assert lake.spark.sql(f"select * from {lake.schema}.old version as of {version - 1}").count() == 1500
    properties = {r["key"]: r["value"] for r in lake.spark.sql(f"show tblproperties {lake.schema}.old").collect()}
    assert properties["delta.deletedFileRetentionDuration"] == "interval 48 hours"
    assert lake.plan().actions == ()


@pytest.mark.spark
def test_leavings_of_failed_writes_are_vacuumed(lake: KeptLake) -> None:
    path = lake.table("littered")
    lake.append("littered", 1)
    for number in range(20):
        (path / f"part-{number:05}-leaving-c000.snappy.parquet").write_bytes(b"half a file")
    assert lake.plan().actions == (), "younger than the retention: a write may be in progress"
    age(path, hours=200)
    done = lake.run()
    assert acts(done) == [Act.VACUUM_FULL]
    assert done.after is not None and done.after.untracked_files == 0
    assert len(lake.rows("littered")) == 10


@pytest.mark.spark
@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"retain_hours": 2}, "retain_hours of upkeep_gold.t is 2; a reader .* 24 hours. Nothing was removed"),
        ({"optimize_after_files": "many"}, "optimize_after_files of upkeep_gold.t must be a whole number"),
    ],
)
def test_a_policy_that_is_not_allowed_is_refused(lake: KeptLake, meta: dict[str, Any], told: str) -> None:
    lake.table("t", **meta)
    with pytest.raises(ConfigError, match=told):
        run(Lake(lake.settings, artifacts=lake.artifacts, start=no_session))


@pytest.mark.spark
def test_an_unknown_table_is_named(lake: KeptLake) -> None:
    lake.table("t")
    with pytest.raises(ConfigError, match=r"No such table: gold\.nope\. Tables: upkeep_gold\.t\."):
        plan(lake, ["gold.nope"])


def age(path: Path, hours: int) -> None:
    """Makes a table's files, and what its log says of removals, older."""
    then = time.time() - hours * 3600
    for file in path.rglob("*"):
        if file.is_file():
            os.utime(file, (then, then))
    for entry in (path / "_delta_log").glob("*.json"):
        lines = []
        for line in entry.read_text(encoding="utf-8").split("\n"):
            if line.startswith('{"remove":'):
                action = json.loads(line)
                action["remove"]["deletionTimestamp"] = int(then * 1000)
                line = json.dumps(action, separators=(",", ":"))
            lines.append(line)
        entry.write_text("\n".join(lines), encoding="utf-8")
        entry.with_name(f".{entry.name}.crc").unlink(missing_ok=True)  # Hadoop's checksum of the old text
        os.utime(entry, (then, then))
