"""Leases between real processes: one works, a dead one is followed, a stopped one cannot commit when it comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifact_files as files
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from test_cli import lakeops
from test_state import make_table

from python_ops.jobs.ingest import ingest
from python_ops.jobs.maintenance import run as maintain
from python_ops.lake.config import Settings
from python_ops.lake.errors import BusyError
from python_ops.lake.lake import Lake
from python_ops.lake.lock import exclusive, fence, leased
from python_ops.lake.state.dynamodb import DynamoStore
from python_ops.lake.state.leases import hold

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow

# A job of two commits: it takes its leases, says so, waits to be told, and commits under its number.
JOB = """
import sys
import pyarrow as pa
from deltalake import write_deltalake
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.lake.errors import OpsError
from python_ops.lake.lock import check_held, exclusive, leased

lake, who, table = Lake(Settings()), sys.argv[1], sys.argv[2]
try:
    with exclusive(lake, who), leased(lake, ["gold.fct_orders"], who):
        print("holds", flush=True)
        sys.stdin.readline()
        check_held("gold.fct_orders")
        write_deltalake(table, pa.table({"who": [who]}), mode="append")
        print("committed", flush=True)
except OpsError as exc:
    print(exc, flush=True)
    sys.exit(exc.exit_code)
"""


# For who comes after the time of a lease of six seconds.
LATER = """
import time
now = time.time
time.time = lambda: now() + 7
"""


class Machines:
    """Processes with homes of their own that share one store, as several machines do."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.environment, self.begun = folder, environment, []
        self.table = folder / "table"

    def start(self, who: str, before: str = "", **environment: str) -> subprocess.Popen[str]:
        given = {**os.environ, "LAKEHOUSE_HOME": str(self.folder / who), **self.environment, **environment}
        command = [sys.executable, "-c", before + JOB, who, str(self.table)]
        job = subprocess.Popen(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.begun.append(job)
        return job

    def lease_ends(self) -> float:
        """Until when the environment is held, unless that is renewed."""
        record = DynamoStore("state").get("lease", "environment")
        assert record is not None
        return float(record.value["until"])

    def committed(self) -> list[str]:
        rows = DeltaTable(str(self.table)).to_pyarrow_table().column("who").to_pylist() if self.table.exists() else []
        return sorted(rows)


@pytest.fixture
def machines(tmp_path: Path, aws: str) -> Iterator[Machines]:
    make_table()
    made = Machines(
        tmp_path, LAKEHOUSE_STATE_STORE="dynamodb", LAKEHOUSE_STATE_TABLE="state", LAKEHOUSE_LEASE_SECONDS="6"
    )
    yield made
    for job in made.begun:
        job.kill()
        job.wait()
        for pipe in (job.stdin, job.stdout):
            if pipe:
                pipe.close()


def told(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def go(job: subprocess.Popen[str]) -> tuple[str, int]:
    assert job.stdin is not None
    job.stdin.write("\n")
    job.stdin.flush()
    return told(job), job.wait(timeout=60)


def test_of_two_runs_one_works_and_the_other_exits_4(machines: Machines) -> None:
    first = machines.start("first")
    assert told(first) == "holds"
    second = machines.start("second")
    assert "environment is held by `lakeops first` (process" in told(second)
    assert second.wait(timeout=60) == 4
    done = lakeops(machines.folder / "third", "run", **machines.environment)
    assert done.returncode == 4 and f"(process {first.pid} on" in done.stderr
    ends, deadline = machines.lease_ends(), time.monotonic() + 60
    while machines.lease_ends() == ends:
        assert time.monotonic() < deadline, "it is not renewed"
        time.sleep(0.1)
    assert go(first) == ("committed", 0)
    again = machines.start("second")
    assert told(again) == "holds"
    assert go(again) == ("committed", 0)
    assert machines.committed() == ["first", "second"]


def test_a_dead_holder_is_followed_at_once_on_its_machine(machines: Machines) -> None:
    first = machines.start("first")
    assert told(first) == "holds"
    first.kill()
    first.wait()
    second = machines.start("second")
    assert told(second) == "holds"
    assert go(second) == ("committed", 0)


def test_a_stopped_holder_is_followed_after_its_time_and_cannot_commit(machines: Machines) -> None:
    """Given a holder that was stopped, When another has taken over and it goes on, Then it exits 4, nothing written."""
    zombie = machines.start("zombie")
    assert told(zombie) == "holds"
    zombie.send_signal(signal.SIGSTOP)
    heir = machines.start("heir", LATER)
    assert told(heir) == "holds"

    zombie.send_signal(signal.SIGCONT)
    text, code = go(zombie)

    assert code == 4 and "was lost; `" in text and "heir` (process" in text and "Nothing was committed" in text
    assert go(heir) == ("committed", 0)
    assert machines.committed() == ["heir"]


# What a process inherits of a script that starts it by `&`, of cron, or of nohup; then of one that blocks all signals.
# The second replaces the program, as a shell does, so that what it set is inherited and not set by the job itself.
INHERITED = {
    "from a terminal": "signal.signal(signal.SIGINT, signal.SIG_DFL)",
    "from a script": "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGURG, signal.SIG_IGN)",
    "signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGURG])",
}


BEFORE = """
import os, signal, sys
if 'AGAIN' not in os.environ:
    {inherited}
    os.environ['AGAIN'] = '1'
    os.execv(sys.executable, sys.orig_argv)
"""


def test_a_lost_lease_interrupts_what_is_under_way(machines: Machines) -> None:
    zombies = {}
    for case, inherited in INHERITED.items():
        store = {"LAKEHOUSE_STATE_TABLE": f"state.{case.replace(' ', '_')}"}
        make_table(store["LAKEHOUSE_STATE_TABLE"])
        zombies[case] = (machines.start(f"zombie {case}", BEFORE.format(inherited=inherited), **store), store)
    for zombie, _ in zombies.values():
        assert told(zombie) == "holds"
    for zombie, _ in zombies.values():
        zombie.send_signal(signal.SIGSTOP)
    for case, (zombie, store) in zombies.items():
        heir = machines.start(f"heir {case}", LATER, **store)
        assert told(heir) == "holds", case
        zombie.send_signal(signal.SIGCONT)  # and nobody tells it to go on: it waits, as for a long statement
        assert "was lost" in told(zombie), case
        assert zombie.wait(timeout=60) == 4, case
        assert go(heir) == ("committed", 0), case


def test_on_one_home_the_lock_is_the_kernels_and_the_lease_says_who(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path, lease_seconds=1))
    with exclusive(lake, "run"):
        record = lake.store.get("lease", "environment")
        assert record is not None and record.value["holder"].startswith(f"`lakeops run` (process {os.getpid()} on ")
        done = lakeops(tmp_path, "publish", "run")
        assert done.returncode == 4 and "is in use by `lakeops run`" in done.stderr
    with exclusive(lake, "run"):
        after = lake.store.get("lease", "environment")
    assert after is not None and after.value["token"] == record.value["token"] + 1


def test_maintenance_leaves_a_table_alone_that_another_holds(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path))
    node = files.model("fct_a")
    node["config"]["meta"] = {"optimize_after_files": 2}
    files.write_manifest(tmp_path / "target", node)
    path = lake.table_path("gold", "fct_a")
    for number in range(4):
        write_deltalake(str(path), pa.table({"id": [number]}), mode="append")

    def no_session() -> Any:
        raise AssertionError("asked for a Spark session")

    with hold(lake.store, ["gold.fct_a"], "stream run"):
        (planned,) = maintain(lake)
    assert isinstance(planned.error, BusyError) and "gold.fct_a is held by `stream run`" in str(planned.error)
    assert DeltaTable(str(path)).version() == 3


@pytest.mark.spark
def test_a_source_whose_table_another_holds_is_left_for_later(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path, schema_prefix="leased"), start=lambda: spark)
    landing = lake.landing / "fx_rates"
    landing.mkdir(parents=True)
    (landing / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-01-02,USD,1.03\n")
    with hold(lake.store, ["leased_bronze.fx_rates"], "stream run"):
        (result,) = ingest(lake, ["fx_rates"])
    assert isinstance(result.error, BusyError) and "leased_bronze.fx_rates is held by `stream run`" in str(result.error)
    assert not lake.table_path("bronze", "fx_rates").exists()


@pytest.mark.spark
def test_a_merge_under_way_when_its_lease_passed_on_cannot_commit(spark: SparkSession, tmp_path: Path) -> None:
    """Given a zombie's MERGE that has begun, When the heir fences the table, Then Delta refuses the zombie's commit."""
    spark.sql("create schema if not exists fenced_gold")
    spark.sql("create or replace table fenced_gold.t (id bigint, who string) using delta")
    spark.sql("insert into fenced_gold.t values (1, 'before')")
    outcome: list[str] = []

    def zombie() -> None:
        sleep = "not java_method('java.lang.Thread', 'sleep', 10000L) <=> 'x'"
        slow = f"select id, 'zombie' as who from range(1, 2) where id < 2 and {sleep}"
        try:
            spark.sql(
                f"merge into fenced_gold.t as t using ({slow}) as s on t.id = s.id when matched then update set * "
                "when not matched then insert *"
            ).collect()
            outcome.append("committed")
        except Exception as exc:
            outcome.append(str(exc))

    lake = Lake(Settings(home=tmp_path, lease_seconds=0.3))
    store = lake.store
    store.put("lease", "fenced_gold.t", {"holder": "zombie", "token": 6, "since": 0, "until": 1}, 0)
    merging = threading.Thread(target=zombie)
    merging.start()
    deadline = time.monotonic() + 60
    while not spark.sparkContext.statusTracker().getActiveJobsIds() and time.monotonic() < deadline:
        time.sleep(0.1)  # MERGE reads its source inside its transaction
    with leased(lake, ["fenced_gold.t", "fenced_gold.nowhere"], "heir") as leases:
        assert fence(spark, leases) == ["fenced_gold.t"]
    merging.join()
    history = [(r["operation"], str(r["timestamp"])) for r in spark.sql("describe history fenced_gold.t").collect()]
    assert outcome[0] != "committed", history
    assert "DELTA_METADATA_CHANGED" in outcome[0].upper()
    assert [row["who"] for row in spark.table("fenced_gold.t").collect()] == ["before"]
    with leased(lake, ["fenced_gold.t"], "next") as leases:
        assert fence(spark, leases) == [], "the heir gave it back"


def test_what_a_process_holds_it_may_hold_again_and_all_is_given_back(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path))
    with leased(lake, ["gold.a"], "one"), leased(lake, ["gold.b", "gold.a"], "two") as inner:
        assert [lease.name for lease in inner] == ["gold.b"]
    with hold(lake.store, ["gold.c"], "another"):
        with (
            pytest.raises(BusyError, match=r"gold\.c is held by `another`"),
            leased(lake, ["gold.b", "gold.c"], "x"),
        ):
            pass
        with hold(lake.store, ["gold.a", "gold.b"], "what failed half-way left nothing"):
            pass
