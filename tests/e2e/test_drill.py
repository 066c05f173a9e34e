"""The drill as an operator runs it: a process of its own with a snapshot, the next batch and a new home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from python_ops.jobs.build import arguments, invoke
from python_ops.jobs.ingest import ingest
from python_ops.jobs.recovery.create import create
from python_ops.jobs.recovery.last import last
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.campaign]

PREFIX, SOURCE, MODEL = "drilled", "crm_accounts", "slv_accounts_history"
BUNDLED = PROJECT_ROOT / "seeds" / "landing" / SOURCE


@pytest.fixture
def lake(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[Lake]:
    """The first bundled batch of one source, ingested and built, in schemas of its own."""
    changed = settings.model_copy(update={"schema_prefix": PREFIX, "recovery": str(tmp_path / "store")})
    own = Lake(changed, landing=tmp_path / "landing", artifacts=tmp_path / "target", start=lambda: spark)
    (own.landing / SOURCE).mkdir(parents=True)
    shutil.copy(BUNDLED / "batch_0.jsonl.gz", own.landing / SOURCE)
    (taken,) = ingest(own, [SOURCE])
    assert taken.error is None and taken.accepted > 0
    listed = arguments(["run"], own, [MODEL])
    assert invoke(own, ["--quiet", *listed]).success
    yield own
    for layer in ("bronze", "dlq", "silver"):
        spark.sql(f"drop schema if exists {PREFIX}_{layer} cascade")


def test_a_drill_restores_compares_and_applies_the_next_batch_once(lake: Lake, tmp_path: Path) -> None:
    """Given a snapshot and the next batch, When drilled, Then a new home with an empty catalog has all of it, once."""
    made = create(lake)
    assert [table.name for table in made.tables] == [
        f"bronze.{SOURCE}", f"dlq.{SOURCE}", f"silver.{MODEL}__cdc"
    ]  # fmt: skip
    batch = tmp_path / "next_batch" / SOURCE
    batch.mkdir(parents=True)
    shutil.copy(BUNDLED / "batch_1.jsonl.gz", batch)
    environment = {
        **os.environ,
        "LAKEHOUSE_HOME": str(lake.home),
        "LAKEHOUSE_SCHEMA_PREFIX": PREFIX,
        "LAKEHOUSE_RECOVERY": str(tmp_path / "store"),
    }
    command = [sys.executable, "-m", "python_ops", "snapshot", "drill", "--batch", str(batch.parent), "--json"]
    command += ["--scratch", str(tmp_path / "scratch"), "--select", MODEL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert [(table["table"], table["is_equal"]) for table in told["tables"]] == [(t.name, True) for t in made.tables]
    assert [table["rows"] for table in told["tables"]] == [table.rows for table in made.tables]
    (applied,) = told["batches"]
    assert (applied["source"], applied["batch_id"]) == (SOURCE, 2)
    assert applied["found"] == applied["accepted"] > 0
    assert told["nodes"] >= 3 and told["moved_again"] == []
    assert told["rpo_seconds"] > 0 and told["rto_seconds"] > 0
    assert not (tmp_path / "scratch").exists(), "nothing is left of a drill that went well"
    kept = last(lake, "drill")
    assert kept is not None and kept["rto_seconds"] == told["rto_seconds"]
