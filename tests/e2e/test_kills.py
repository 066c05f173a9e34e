"""Kill -9 at named steps of ingestion and of the engine: the next run ends with what PostgreSQL held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from recording import ENTITIES, deliver, differences, stored_rows, truth_after

from python_ops.config import PROJECT_ROOT, Settings
from python_ops.ingest.ledger import Ledger

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

ACCOUNTS = ENTITIES[0]

# Ingestion of one source and a run of its silver model; Python and Spark die together at the point.
JOB = """
import os, signal, sys, threading, time
from pathlib import Path

import dbt.adapters.spark.session as dbt_session

from python_ops.config import Settings
from python_ops.dbt import arguments, failure, invoke
from python_ops.ingest import ingest
from python_ops.ingest.tables import AppendOnlyTable
from python_ops.spark import session

point, home, result = sys.argv[1:]
settings = Settings(home=home)
spark = session(settings)
java = int(spark._jvm.java.lang.ProcessHandle.current().pid())


def die():
    os.kill(java, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_the_first_file(folder):
    while not list(folder.glob("*.parquet")):
        time.sleep(0.001)
    die()


append, execute = AppendOnlyTable.append, dbt_session.Cursor.execute


def append_or_die(self, rows, batch_id):
    if (self.schema, point) == ("bronze", "before the commit"):
        threading.Thread(target=die_at_the_first_file, args=(self.path,)).start()
    append(self, rows, batch_id)
    if (self.schema, point) in (("dlq", "after the dead letters"), ("bronze", "before the ledger")):
        die()


def execute_or_die(self, sql, *parameters):
    merges = "merge into" in sql
    if merges and point == "before the merge":
        die()
    if merges and point == "during the merge":
        threading.Timer(0.4, die).start()
    execute(self, sql, *parameters)
    if merges and point == "after the merge" or "create or replace view" in sql and point == "between the views":
        die()


AppendOnlyTable.append, dbt_session.Cursor.execute = append_or_die, execute_or_die
while (taken := ingest(settings, lambda: spark, ["crm_accounts"])[0]).files:
    assert not taken.error, taken.error
built = invoke(settings, ["--quiet", *arguments(["run"], settings, ["slv_accounts_history"])])
assert built.success, failure(built)
spark.table("silver.slv_accounts_history").where("is_current").write.parquet(f"{result}/current")
spark.table("silver.slv_accounts_history__cdc").write.parquet(f"{result}/stored")
spark.table("bronze.crm_accounts").write.parquet(f"{result}/bronze")
spark.table("dlq.crm_accounts").write.parquet(f"{result}/dlq")
"""

# In their order; a batch arrives before each of the first five, also between a death and the run that takes it up.
POINTS = (
    "before the commit",
    "before the ledger",
    "after the dead letters",
    "between the views",
    "before the merge",
    "during the merge",
    "after the merge",
)


def test_every_run_after_a_kill_takes_up_what_was_left(spark: SparkSession, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "lake")
    landing = settings.landing / ACCOUNTS.source
    for number, point in enumerate([*POINTS, "never"]):
        deliver(settings, number)  # nothing after the fifth
        if point == "after the dead letters":
            (landing / "bad.jsonl").write_text("not an event\n")
        given = {**os.environ, "LAKEHOUSE_SCHEMA_PREFIX": "", "LAKEHOUSE_DRIVER_MEMORY": "1g"}
        command = [sys.executable, "-c", JOB, point, str(settings.home), str(tmp_path / "result")]
        done = subprocess.run(command, env=given, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=240)
        expected = 0 if point == "never" else -signal.SIGKILL
        assert done.returncode == expected, f"{point}: {done.stdout}{done.stderr}"

    for name in ("current", "stored", "bronze", "dlq"):
        spark.read.parquet(f"{tmp_path}/result/{name}").createOrReplaceTempView(f"killed_{name}")
    wrong = differences(truth_after(ACCOUNTS, 4), stored_rows(spark, ACCOUNTS, "killed_current"))
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"
    twice = "select 1 from killed_{} group by {} having count(*) > 1"
    assert spark.sql(twice.format("stored", "account_id, _source_generation, _source_lsn")).count() == 0
    assert spark.sql(twice.format("bronze", "_file, _line")).count() == 0
    assert [row["file"] for row in spark.table("killed_dlq").collect()] == ["bad.jsonl"]
    manifests = Ledger(settings.state / "ingest", ACCOUNTS.source).manifests
    assert {manifest.state for manifest in manifests} <= {"committed", "lost"}
    taken = [file.name for manifest in manifests if manifest.state == "committed" for file in manifest.files]
    assert sorted(taken) == sorted(path.name for path in landing.iterdir()), "every file once"
