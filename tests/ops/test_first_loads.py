"""What a first load that was killed leaves is set aside, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyspark.errors import AnalysisException

from python_ops.jobs.build.first_loads import set_aside
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture
def lake(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[Lake]:
    """Schemas and state of the test's own, in the shared warehouse."""
    changed = settings.model_copy(update={"schema_prefix": "killed"})
    given = Lake(changed, state=tmp_path / "state", start=lambda: spark)
    spark.sql("create schema killed_silver")
    yield given
    spark.sql("drop schema killed_silver cascade")
    shutil.rmtree(given.table_path("silver", "_").parent, ignore_errors=True)


def test_a_killed_first_load_does_not_stop_the_next(spark: SparkSession, lake: Lake) -> None:
    """Given folders as a kill leaves them after each step of a first load, Then they are moved whole, and the table is
    made; what the metastore knows, and what has a row, stays."""
    make = "create table killed_silver.{} using delta as select {} as id"
    spark.sql(make.format("known", "1") + " where false")
    spark.sql(make.format("full", "1"))
    folders = {
        name: lake.table_path("silver", name) for name in ("known", "full", "committed", "begun", "rows", "other")
    }
    shutil.copytree(folders["known"], folders["committed"])
    shutil.copytree(folders["full"], folders["rows"])
    (folders["begun"] / "_delta_log").mkdir(parents=True)
    (folders["begun"] / "part-0.parquet").write_bytes(b"half a file")
    folders["other"].mkdir()
    (folders["other"] / "notes.txt").write_text("not a table of ours")
    with pytest.raises(AnalysisException, match="NON_EMPTY_LOCATION"):
        spark.sql(make.format("committed", "2"))
    told = set_aside(lake)
    assert [text.split(":")[0] for text in told] == ["killed_silver.begun", "killed_silver.committed"]
    assert set_aside(lake) == []
    assert {name for name, folder in folders.items() if folder.exists()} == {"known", "full", "rows", "other"}
    begun, committed = sorted((lake.state / "unfinished").iterdir())
    assert (begun / "part-0.parquet").read_bytes() == b"half a file"
    assert (committed / "_delta_log" / f"{0:020}.json").exists() and f"moved to {committed}" in told[1]
    for name in ("committed", "begun"):
        spark.sql(make.format(name, "2"))
        assert spark.table(f"killed_silver.{name}").collect() == [(2,)]
