"""Versions of a table on real Delta: history, differences in counts, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifact_files as files
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from test_cli import lakeops

from python_ops.jobs.maintenance.versions import diff, history, restore
from python_ops.lake.config import Settings
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.state.leases import hold
from python_ops.watch.doctor import Outcome, check_tables
from python_ops.watch.status import status

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TABLE = "versions_gold.fct_a"


def no_session() -> Any:
    raise AssertionError("asked for a Spark session")


def make(lake: Lake) -> Path:
    """A table of three versions: two rows; a third; none of the first."""
    node = files.model("fct_a", prefix=lake.settings.schema_prefix, strategy="merge")
    node["config"]["unique_key"] = "id"
    files.write_manifest(lake.artifacts, node)
    path = lake.table_path("gold", "fct_a")
    for mode, ids in (("error", [1, 2]), ("append", [3])):
        write_deltalake(str(path), pa.table({"id": ids, "text": ["secret value"] * len(ids)}), mode=mode)
    DeltaTable(str(path)).delete("id = 1")
    return path


@pytest.fixture
def own(tmp_path: Path) -> Lake:
    settings = Settings(home=tmp_path / "lake", schema_prefix="versions")
    return Lake(settings, artifacts=tmp_path, start=no_session)


def test_history_and_plans_start_no_jvm(own: Lake, tmp_path: Path) -> None:
    path = make(own)
    assert [(c.version, c.operation) for c in history(own, TABLE)] == [
        (2, "DELETE"), (1, "WRITE"), (0, "WRITE"),
    ]  # fmt: skip
    planned = restore(own, TABLE, 0)
    assert (planned.before, planned.to, planned.version) == (2, 0, None)
    assert [commit.version for commit in planned.undone] == [2, 1]
    assert DeltaTable(str(path)).version() == 2


def test_dead_letters_are_not_restored_away(own: Lake, tmp_path: Path) -> None:
    """Given letters of two batches, one removed, Then the removal can be undone, and the second batch cannot."""
    files.write_manifest(tmp_path)
    path = own.table_path("dlq", "fx_rates")
    for batch in (1, 2):
        write_deltalake(str(path), pa.table({"_batch_id": [batch]}), mode="append")
    DeltaTable(str(path)).delete("_batch_id = 1")
    table = "versions_dlq.fx_rates"
    assert restore(own, table, 1).to == 1
    with pytest.raises(OpsError, match=r"lacks the dead letters of version 1, .* version 1 at the furthest"):
        restore(own, table, 0, execute=True)


def test_a_version_that_has_lost_a_file_is_not_restored(own: Lake, tmp_path: Path) -> None:
    """Given a file of version 1 that is gone, or another that is garbled, Then it is named before anything is done."""
    path = make(own)
    removed = DeltaTable(str(path))
    removed.load_as_version(1)
    first, second = (Path(uri) for uri in sorted(removed.file_uris()))
    kept = first.read_bytes()
    for spoil in (lambda: first.unlink(), lambda: first.write_bytes(kept[:-4] + b"XXXX")):
        spoil()
        for execute in (False, True):
            with pytest.raises(OpsError, match=rf"version 1 cannot be read any more: {first.name}.* as it was"):
                restore(own, TABLE, 1, execute=execute)
    first.write_bytes(kept)
    assert restore(own, TABLE, 1).to == 1
    assert second.exists() and DeltaTable(str(path)).version() == 2


def test_status_and_doctor_notice_a_table_that_cannot_be_read(own: Lake, tmp_path: Path) -> None:
    path = make(own)
    assert status(own).unreadable == {}
    gone = Path(DeltaTable(str(path)).file_uris()[0])
    gone.unlink()
    assert status(own).unreadable == {TABLE: f"{gone.name} is gone"}
    (check,) = check_tables(own)
    assert check.outcome is Outcome.FAIL and f"{TABLE} cannot be read: {gone.name} is gone" in check.found


@pytest.mark.parametrize("version", [-1, 3])
def test_a_version_that_is_not_there_is_refused(own: Lake, tmp_path: Path, version: int) -> None:
    make(own)
    with pytest.raises(ConfigError, match=rf"has versions 0 to 2, not {version}\."):
        restore(own, TABLE, version, execute=True)
    with pytest.raises(ConfigError, match=r"No such table: versions_gold\.nope"):
        history(own, "versions_gold.nope")


def test_a_table_that_another_holds_is_not_restored(own: Lake, tmp_path: Path) -> None:
    path = make(own)
    with hold(own.store, [TABLE], "stream run"), pytest.raises(BusyError, match="is held by `stream run`"):
        restore(own, TABLE, 0, execute=True)
    assert DeltaTable(str(path)).version() == 2


def test_an_unknown_table_exits_2_or_names_the_missing_build(tmp_path: Path) -> None:
    done = lakeops(tmp_path, "table", "history", "gold.nope")
    assert done.returncode in (1, 2) and ("No such table" in done.stderr or "manifest.json" in done.stderr)


@pytest.fixture
def registered(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[Lake]:
    """The table in the session's catalog."""
    changed = settings.model_copy(update={"schema_prefix": "versions"})
    within = Lake(changed, artifacts=tmp_path, start=lambda: spark)
    spark.sql("create schema if not exists versions_gold")
    path = make(within)
    spark.sql(f"create table {TABLE} using delta location '{path}'")
    yield within
    spark.sql("drop schema versions_gold cascade")


@pytest.mark.spark
def test_differences_are_counted_and_a_version_comes_back(
    spark: SparkSession, registered: Lake, tmp_path: Path
) -> None:
    spark.sql(f"update {TABLE} set text = 'other' where id = 2")
    found = diff(registered, TABLE, 0)
    assert (found.added, found.removed, found.changed) == (1, 1, 1), "3 came, 1 went, 2 changed"
    assert "other" not in json.dumps(vars(found))
    done = restore(registered, TABLE, 1, execute=True)
    assert (done.before, done.version) == (3, 4)
    assert sorted(row["id"] for row in spark.table(TABLE).collect()) == [1, 2, 3]
    assert diff(registered, TABLE, 1).added == 0
    events = (registered.state / "lineage" / "events.jsonl").read_text()
    assert f'"restore.{TABLE}"' in events


@pytest.mark.spark
def test_a_version_whose_deletion_vector_is_gone_is_not_restored(
    spark: SparkSession, registered: Lake, tmp_path: Path
) -> None:
    """Given a vector that VACUUM took, Then the version that needs it is refused, and the table can be read."""
    spark.sql(f"insert into {TABLE} select id, 'x' from range(10, 200)")
    spark.sql(f"alter table {TABLE} set tblproperties ('delta.enableDeletionVectors' = 'true')")
    spark.sql(f"delete from {TABLE} where id = 50")
    path = registered.table_path("gold", "fct_a")
    before = DeltaTable(str(path)).version()
    spark.sql(f"insert overwrite {TABLE} select 1, 'x'")
    (vector,) = path.glob("deletion_vector_*.bin")
    vector.unlink()
    with pytest.raises(OpsError, match=rf"version {before} cannot be read any more: {vector.name} is gone"):
        restore(registered, TABLE, before, execute=True)
    assert spark.table(TABLE).count() == 1
