"""The DAGs in real Airflow: `make test-airflow`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

PROJECT = Path(__file__).resolve().parents[3]
DAGS = PROJECT / "infra" / "airflow" / "dags"


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(str(DAGS))


def test_every_dag_is_imported(bag: DagBag) -> None:
    assert bag.import_errors == {}
    names = {"daily", "heartbeat", "maintenance", "dr", "dr_drill"}
    assert set(bag.dags) == {f"lakehouse_{name}" for name in names}
    assert all(dag.max_active_runs == 1 and not dag.catchup for dag in bag.dags.values())


def test_the_daily_order_and_the_check_that_always_runs(bag: DagBag) -> None:
    dag = bag.dags["lakehouse_daily"]
    order = ["extract", "ingest", "build", "publish", "sla_check"]
    assert [task.task_id for task in dag.topological_sort()] == order
    check = dag.get_task("sla_check")
    assert check.trigger_rule == "all_done" and check.retries == 0, "a breach is not tried again"
    assert all(task.retries > 0 for task in dag.tasks if task is not check)


def test_only_what_may_be_repeated_is_tried_again(bag: DagBag) -> None:
    once = {task.task_id for dag in bag.dags.values() for task in dag.tasks if not task.retries}
    assert once == {"sla_check", "prune", "drill"}
    build = bag.dags["lakehouse_daily"].get_task("build")
    assert "dbt build --target prod" in build.bash_command


def test_old_snapshots_go_only_after_the_new_one_is_proved_whole(bag: DagBag) -> None:
    dag = bag.dags["lakehouse_dr"]
    assert [task.task_id for task in dag.topological_sort()] == ["snapshot", "verify", "prune"]
    assert all(task.trigger_rule == "all_success" for task in dag.tasks)


def test_every_command_is_one_that_the_project_has(bag: DagBag) -> None:
    for dag in bag.dags.values():
        for task in dag.tasks:
            program, *words = task.bash_command.split("\n.venv/bin/")[1].split()
            noun = words[: 2 if program == "lakeops" else 1]
            done = subprocess.run(
                [PROJECT / ".venv" / "bin" / program, *noun, "--help"], cwd=PROJECT, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{dag.dag_id}.{task.task_id}: {done.stderr}"
            for option in (word for word in words if word.startswith("--")):
                assert option in done.stdout, f"{dag.dag_id}.{task.task_id}: no {option}"


def test_a_day_on_the_bundled_data(tmp_path: Path) -> None:
    """Given the first batch, When the daily DAG runs, Then every task succeeds and gold is served."""
    home = tmp_path / "lake"
    for file in (PROJECT / "seeds" / "landing").glob("*/batch_0.*"):
        (home / "landing" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, home / "landing" / file.parent.name)
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "LAKEHOUSE_PROJECT": str(PROJECT),
        "LAKEHOUSE_ENV": "local",
        "LAKEHOUSE_HOME": str(home),
    }
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [*airflow, "dags", "test", "lakehouse_daily", "2025-03-08"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert (home / "published" / "lakehouse.duckdb").exists()
    ledger = json.loads(next((home / "state" / "ingest" / "shop_orders").glob("batch_*.json")).read_text())
    assert (ledger["state"], ledger["counts"]["accepted"]) == ("committed", 5000)
