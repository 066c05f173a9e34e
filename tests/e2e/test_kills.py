"""Kill -9 at named steps of ingestion and the engine, SIGTERM in a build: the next runs end with PostgreSQL's rows.

Each step is a process with a Spark of its own, so `make test` has two. At the others, tests/ops/test_ingest.py and
test_cdc_scenarios.py raise an exception.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_truth import ENTITIES

from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.lake import Lake
from python_ops.run.demo import deliver

pytestmark = pytest.mark.spark

ACCOUNTS = ENTITIES[0]

# Ingestion of one source and a run of its silver model; Python and Spark die together at the point.
JOB = """
import json, os, signal, sys, threading, time
from pathlib import Path

sys.path[:0] = ["tests/e2e", "tests/engine"]

import dbt_spark_sessions as dbt_session
from recorded_truth import ENTITIES, differences, truth_after
from recording import stored_rows

from python_ops.run import daily
from python_ops.run.demo import deliver
from python_ops.cli import main
from python_ops.lake.config import Settings
from python_ops.jobs.build import arguments, failure, invoke
from python_ops.jobs.ingest import ingest
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.lake.lake import Lake

point, home, result, later, afterwards = sys.argv[1:]
lake = Lake(Settings(home=home))
spark = lake.spark
java = int(spark._jvm.java.lang.ProcessHandle.current().pid())


def die():
    os.kill(java, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_the_first_file(folder):
    while not list(folder.glob("*.parquet")):
        time.sleep(0.001)
    die()


append, execute = AppendOnlyTable.append, dbt_session.Cursor.execute


def append_or_die(self, *given):
    if (self.schema, point) == ("bronze", "before the commit"):
        threading.Thread(target=die_at_the_first_file, args=(self.path,)).start()
    append(self, *given)
    if (self.schema, point) in (("dlq", "after the dead letters"), ("bronze", "before the ledger")):
        die()


def execute_or_die(self, sql, *parameters):
    merges = "merge into" in sql
    if merges and point == "before the merge":
        die()
    if merges and point == "during the merge":
        threading.Timer(0.4, die).start()
    if merges and point == "told to stop":
        threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGTERM)).start()
    execute(self, sql, *parameters)
    if merges and point == "after the merge" or "create or replace view" in sql and point == "between the views":
        die()


def take_up():
    while (taken := ingest(lake, ["crm_accounts"])[0]).files:
        assert not taken.error, taken.error
    built = invoke(lake, ["--quiet", *arguments(["run"], lake, ["slv_accounts_history"])])
    assert built.success, failure(built)


for batch in later:
    take_up()
    deliver(lake, int(batch))
AppendOnlyTable.append, dbt_session.Cursor.execute = append_or_die, execute_or_die
code = 0
if point == "told to stop":
    daily.ingest = lambda lake, on_event, on_start: ingest(lake, ["crm_accounts"], on_event)
    daily.arguments = lambda command, lake, exclude: arguments(command, lake, ["slv_accounts_history"])
    sys.argv = ["lakeops", "run"]
    try:
        main()
    except SystemExit as told:
        if not afterwards:
            raise
        point, code = "never", told.code
    for batch in afterwards:
        deliver(lake, int(batch))
take_up()
spark.table("silver.slv_accounts_history").where("is_current").createOrReplaceTempView("now")
twice = "select count(*) from (select 1 from {} group by {} having count(*) > 1)"
Path(result).write_text(json.dumps({
    "wrong": differences(truth_after(ENTITIES[0], 4), stored_rows(spark, ENTITIES[0], "now")),
    "stored twice": spark.sql(twice.format(
        "silver.slv_accounts_history__cdc", "account_id, _source_generation, _source_lsn")).first()[0],
    "taken twice": spark.sql(twice.format("bronze.crm_accounts", "_file, _line")).first()[0],
    "dead letters of": [row["file"] for row in spark.table("dlq.crm_accounts").collect()],
}))
sys.exit(code)
"""

# In their order, each with the recorded batches that arrive before it, between a death and the run that takes it up.
# The first process takes up batch 0 before it dies in the MERGE of batch 1; the second takes up the rest after it was
# told to stop, with batch 4. So two processes do what four would.
SOME = {"during the merge": [0], "told to stop": [2, 3]}
LATER, AFTERWARDS = {"during the merge": "1"}, {"told to stop": "4"}
EVERY = {
    "before the commit": [0],
    "before the ledger": [],
    "after the dead letters": [1],
    "between the views": [2],
    "told to stop": [3],
    "before the merge": [4],
    "during the merge": [],
    "after the merge": [],
    "never": [],
}


@pytest.mark.parametrize(
    "points", [pytest.param(SOME, id="some"), pytest.param(EVERY, id="every", marks=pytest.mark.campaign)]
)
def test_every_run_after_a_kill_takes_up_what_was_left(tmp_path: Path, points: dict[str, list[int]]) -> None:
    lake = Lake(Settings(home=tmp_path / "lake"))
    landing = lake.landing / ACCOUNTS.source
    for number, (point, batches) in enumerate(points.items()):
        for batch in batches:
            deliver(lake, batch)
        if number == (1 if points is SOME else 2):
            (landing / "bad.jsonl").write_text("not an event\n")
        given = {
            **os.environ, "LAKEHOUSE_HOME": str(lake.settings.home), "LAKEHOUSE_SCHEMA_PREFIX": "",
            "LAKEHOUSE_DRIVER_MEMORY": "1g",
        }  # fmt: skip
        command = [sys.executable, "-c", JOB, point, str(lake.settings.home), str(tmp_path / "result")]
        command += [batches.get(point, "") if points is SOME else "" for batches in (LATER, AFTERWARDS)]
        done = subprocess.run(command, env=given, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=240)
        expected = {"never": 0, "told to stop": 128 + signal.SIGTERM}.get(point, -signal.SIGKILL)
        assert done.returncode == expected, f"{point}: {done.stdout}{done.stderr}"
        if point == "told to stop":
            assert "dbt build was interrupted; what it committed is kept. Done before it: ingest." in done.stderr

    found = json.loads((tmp_path / "result").read_text())
    assert found == {"wrong": [], "stored twice": 0, "taken twice": 0, "dead letters of": ["bad.jsonl"]}
    manifests = lake.ledger(ACCOUNTS.source).manifests
    assert {manifest.state for manifest in manifests} <= {"committed", "lost"}
    taken = [file.name for manifest in manifests if manifest.state == "committed" for file in manifest.files]
    assert sorted(taken) == sorted(path.name for path in landing.iterdir()), "every file once"
