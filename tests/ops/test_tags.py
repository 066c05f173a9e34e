"""Tags: a consistent set of versions that VACUUM and maintenance leave alone until it is let go."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifact_files as files
import boto3
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from servers import to_bucket
from test_cli import lakeops

from python_ops.jobs.maintenance import Act, plan, run
from python_ops.jobs.maintenance.tagging import tag, untag
from python_ops.jobs.query import query
from python_ops.lake.config import Settings
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.state.leases import hold
from python_ops.lake.tags import KIND, Pin, Tag, lost, tagged_versions, tags

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PREFIX = "tagged"
TABLE = f"{PREFIX}_gold.fct_a"


def no_session() -> Any:
    raise AssertionError("asked for a Spark session")


@pytest.fixture
def own(tmp_path: Path) -> Lake:
    """A gold table of two versions, a silver one, a gold view, and a green build."""
    lake = Lake(Settings(home=tmp_path / "lake", schema_prefix=PREFIX), artifacts=tmp_path / "t", start=no_session)
    view = files.model("rpt_v", prefix=PREFIX)
    view["config"]["materialized"] = "view"
    silver = files.model("slv_s", prefix=PREFIX, layer="silver")
    files.write_manifest(lake.artifacts, files.model("fct_a", prefix=PREFIX, parents=["slv_s"]), view, silver)
    build(lake, "success")
    for mode in ("error", "append"):
        write_deltalake(str(lake.table_path("gold", "fct_a")), pa.table({"id": [1]}), mode=mode)
    return lake


def build(lake: Lake, status: str) -> None:
    files.write_run_results(lake.artifacts, {"model.lakehouse.slv_s": status, "model.lakehouse.fct_a": "success"})


def record(lake: Lake, name: str = "q1", version: int = 0, table_id: str | None = None) -> Tag:
    """A tag as the store has it, without its tables' properties."""
    told = DeltaTable(str(lake.table_path("gold", "fct_a"))).metadata().id
    made = Tag(name, "2026-01-01T00:00:00+00:00", {TABLE: Pin(version, table_id or str(told), "gold", "fct_a", 1)})
    lake.store.put(KIND, name, asdict(made), 0)
    return made


def test_a_tag_is_what_was_recorded(own: Lake) -> None:
    made = record(own)
    assert tags(own) == [made]
    assert tagged_versions(own, "q1") == {TABLE: 0}
    assert untag(own, "q1") == made and tags(own) == [made], "a plan lets nothing go"


def test_a_query_reads_the_versions_of_a_tag_and_nothing_else(own: Lake) -> None:
    record(own)
    write_deltalake(str(own.table_path("bronze", "fct_b")), pa.table({"id": [1]}))
    assert query(own, "select count(*) from fct_a").rows() == [(2,)]
    assert query(own, "select count(*) from fct_a", at="q1").rows() == [(1,)]
    with pytest.raises(ConfigError, match=rf"Tag q1 has no {own.schema_name('bronze')}.fct_b. It has {TABLE}"):
        query(own, "select * from fct_b", at="q1")
    with pytest.raises(ConfigError, match="No such tag: q2"):
        query(own, "select * from fct_a", at="q2")


def test_a_version_that_is_gone_is_named(own: Lake) -> None:
    """Given a removed file, a table that was made anew, or none at all, Then the tag says so and is not read."""
    record(own, "another", table_id="another")
    made, path = record(own), own.table_path("gold", "fct_a")
    assert lost(own, made) == {}
    with pytest.raises(OpsError, match=rf"Tag another: version 0 of {TABLE} is gone \(another table has its name\)"):
        tagged_versions(own, "another")
    table = DeltaTable(str(path))
    table.load_as_version(0)
    Path(table.file_uris()[0]).unlink()
    with pytest.raises(OpsError, match=rf"version 0 of {TABLE} is gone \(part.* is gone\)\. A snapshot"):
        tagged_versions(own, "q1")
    shutil.rmtree(path)
    assert "no Delta log" in lost(own, made)[TABLE] or "is missing" in lost(own, made)[TABLE]


@pytest.mark.parametrize(
    ("name", "select", "error", "told"),
    [
        ("q1", [], ConfigError, r"There is a tag q1 already\..*untag q1"),
        ("a/b", [], ConfigError, r"A tag's name has letters, digits and \. _ - only.* not 'a/b'"),
        ("q2", ["nope"], ConfigError, r"No such model, .*: nope\. Models: fct_a, slv_s\."),
        ("q2", ["rpt_v"], ConfigError, r"none with a table of its own: rpt_v"),
        ("q2", ["slv_s"], OpsError, r"Not built yet: slv_s\. Nothing was tagged"),
    ],
)
def test_what_cannot_be_tagged_is_refused(
    own: Lake, name: str, select: list[str], error: type[OpsError], told: str
) -> None:
    record(own)
    with pytest.raises(error, match=told):
        tag(own, name, select)
    assert [known.name for known in tags(own)] == ["q1"]


def test_a_red_build_and_a_table_that_is_written_are_not_tagged(own: Lake) -> None:
    with hold(own.store, [TABLE], "stream run"), pytest.raises(BusyError, match="is held by `stream run`"):
        tag(own, "q1")
    build(own, "error")
    with pytest.raises(OpsError, match=r"is not green: model\.lakehouse\.slv_s \(error\)\. Nothing was tagged"):
        tag(own, "q1")
    assert tags(own) == []


def test_an_unknown_tag_is_named_with_those_that_there_are(own: Lake) -> None:
    record(own)
    for refused in (lambda: tagged_versions(own, "q9"), lambda: untag(own, "q9", execute=True)):
        with pytest.raises(ConfigError, match=r"No such tag: q9\. Tags: q1\."):
            refused()


def test_maintenance_protects_a_tagged_table_that_lost_its_properties(own: Lake) -> None:
    (before,) = plan(own, [TABLE])
    assert before.actions == ()
    record(own)
    (planned,) = plan(own, [TABLE])
    assert [step.act for step in planned.actions] == [Act.PROTECT]
    assert planned.actions[0].reason == "tagged q1, and its properties keep less"


def test_a_home_in_a_bucket_has_tags_too(own: Lake, aws: str) -> None:
    record(own)
    to_bucket(own.home, "lake", "prod")
    there = Lake(Settings(home=Path("s3://lake/prod"), schema_prefix=PREFIX), artifacts=own.artifacts)
    assert tagged_versions(there, "q1") == {TABLE: 0}
    boto3.client("s3").delete_object(Bucket="lake", Key=_key_of(own, version=0))
    with pytest.raises(OpsError, match=rf"Tag q1: version 0 of {TABLE} is gone"):
        tagged_versions(there, "q1")


def _key_of(lake: Lake, version: int) -> str:
    """Key in the bucket of a version's only file."""
    table = DeltaTable(str(lake.table_path("gold", "fct_a")), version=version)
    return f"prod/{Path(table.file_uris()[0]).relative_to(lake.home)}"


def test_the_command_lists_tags_and_gives_dbt_its_vars(tmp_path: Path) -> None:
    done = lakeops(tmp_path, "table", "tags")
    assert done.returncode == 0 and done.stdout.split() == ["tag", "at", "tables", "gone"]
    assert lakeops(tmp_path, "table", "tags", "--vars").returncode == 2
    done = lakeops(tmp_path, "table", "tags", "q1", "--vars")
    assert done.returncode == 2 and "No such tag: q1. Tags: none yet." in done.stderr


@pytest.fixture
def registered(own: Lake, spark: SparkSession) -> Iterator[Lake]:
    """The gold table in the session's catalog, by Spark."""
    shutil.rmtree(own.table_path("gold", "fct_a"))
    spark.sql(f"create schema if not exists {PREFIX}_gold")
    spark.sql(f"create table {TABLE} (id bigint) using delta location '{own.table_path('gold', 'fct_a')}'")
    yield Lake(own.settings, artifacts=own.artifacts, start=lambda: spark)
    spark.sql(f"drop schema {PREFIX}_gold cascade")


def replace_rows(spark: SparkSession, path: Path, number: int) -> None:
    """New rows for all, and every file ten days old, on disk and in the log."""
    spark.sql(f"insert overwrite {TABLE} select {number}")
    then = int(time.time() - 240 * 3600)
    for entry in (path / "_delta_log").glob("*.json"):
        lines = [json.loads(line) for line in entry.read_text().splitlines()]
        for line in lines:
            if "remove" in line:
                line["remove"]["deletionTimestamp"] = then * 1000
        entry.write_text("\n".join(map(json.dumps, lines)) + "\n")
        (entry.parent / f".{entry.name}.crc").unlink(missing_ok=True)
    for file in path.rglob("*"):
        os.utime(file, (then, then))
    spark.sql(f"refresh table {TABLE}")


@pytest.mark.spark
def test_a_tagged_version_outlives_vacuum_until_it_is_let_go(registered: Lake, spark: SparkSession) -> None:
    """By hand and by maintenance; then, let go, maintenance takes what the policy does not keep."""
    path = registered.table_path("gold", "fct_a")
    spark.sql(f"insert into {TABLE} values (1)")
    made = tag(registered, "q1")
    version = made.tables[TABLE].version
    assert spark.sql(f"select id from {TABLE} version as of {version}").collect()[0]["id"] == 1
    replace_rows(spark, path, 2)

    spark.sql(f"vacuum {TABLE}")
    (done,) = run(registered, [TABLE])
    assert done.error is None and not {Act.VACUUM_FULL, Act.VACUUM_LITE} & {step.act for step in done.actions}
    assert tagged_versions(registered, "q1") == {TABLE: version}
    assert spark.sql(f"select id from {TABLE} version as of {version}").collect()[0]["id"] == 1

    untag(registered, "q1", execute=True)
    kept = DeltaTable(str(path)).metadata().configuration
    assert kept["delta.deletedFileRetentionDuration"] == "interval 168 hours"
    assert kept["delta.logRetentionDuration"] == "interval 30 days"
    replace_rows(spark, path, 3)
    (done,) = run(registered, [TABLE])
    assert done.error is None and Act.VACUUM_LITE in {step.act for step in done.actions}
    assert TABLE in lost(registered, made)
