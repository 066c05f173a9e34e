"""The DAGs in real Airflow: `make test-airflow`."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.exceptions import AirflowException

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


def test_no_dag_is_green_with_a_failed_task(bag: DagBag) -> None:
    """Airflow judges a run by its last tasks: each must fail, or not start, when any before it fails."""
    for dag in bag.dags.values():
        assert all(task.trigger_rule == "all_success" and not task.is_teardown for task in dag.tasks), dag.dag_id


def test_only_what_may_be_repeated_is_tried_again(bag: DagBag) -> None:
    once = {f"{dag.dag_id}.{task.task_id}" for dag in bag.dags.values() for task in dag.tasks if not task.retries}
    assert once == {"lakehouse_heartbeat.sla_check", "lakehouse_dr.prune", "lakehouse_dr_drill.drill"}


def test_the_day_is_one_command(bag: DagBag) -> None:
    (task,) = bag.dags["lakehouse_daily"].tasks
    assert task.bash_command.endswith(".venv/bin/lakeops run --env prod --json")


def test_a_runner_takes_the_place_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_RUNNER", ".venv/bin/python infra/emr/submit.py outputs.json")
    lines = [task.bash_command for dag in DagBag(str(DAGS)).dags.values() for task in dag.tasks]
    assert all("\n.venv/bin/python infra/emr/submit.py outputs.json " in line for line in lines)
    assert any(line.endswith(" outputs.json sla check --notify --env prod --json") for line in lines)


@pytest.mark.parametrize(("code", "kind"), [(1, "AirflowException"), (2, "AirflowFailException"),
                                            (3, "AirflowFailException")])  # fmt: skip
def test_configuration_and_breaches_fail_without_another_try(bag: DagBag, code: int, kind: str) -> None:
    """AirflowFailException is Airflow's word for a failure that is not tried again."""
    task = copy.copy(bag.dags["lakehouse_daily"].get_task("run"))
    task.bash_command, task.cwd = f"exit {code}", None
    with pytest.raises(AirflowException) as told:
        task.execute({})
    assert type(told.value).__name__ == kind


def test_old_snapshots_go_only_after_the_new_one_is_proved_whole(bag: DagBag) -> None:
    dag = bag.dags["lakehouse_dr"]
    assert [task.task_id for task in dag.topological_sort()] == ["snapshot", "verify", "prune"]
    assert all(task.trigger_rule == "all_success" for task in dag.tasks)


def test_every_command_is_one_that_the_project_has(bag: DagBag) -> None:
    for dag in bag.dags.values():
        for task in dag.tasks:
            program, *words = task.bash_command.split("\n.venv/bin/")[1].split()
            noun = list(takewhile(lambda word: not word.startswith("--"), words))
            done = subprocess.run(
                [PROJECT / ".venv" / "bin" / program, *noun, "--help"], cwd=PROJECT, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{dag.dag_id}.{task.task_id}: {done.stderr}"
            for option in (word for word in words if word.startswith("--")):
                assert option in done.stdout, f"{dag.dag_id}.{task.task_id}: no {option}"


def test_two_days_on_the_bundled_data(tmp_path: Path) -> None:
    """Given a source whose delivery halts, Then the day fails, and all that does not read it is served; once that is
    decided, Then the next day is green and complete, with lineage, figures and a report of its own."""
    home = tmp_path / "lake"
    for file in (PROJECT / "seeds" / "landing").glob("*/batch_0.*"):
        (home / "landing" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, home / "landing" / file.parent.name)
    broken = home / "landing" / "crm_opportunities"
    shutil.rmtree(broken)
    broken.mkdir()
    (broken / "a.jsonl").write_text('{"op": "x"}\n' * 20)
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "LAKEHOUSE_PROJECT": str(PROJECT),
        "LAKEHOUSE_ENV": "local",
        "LAKEHOUSE_HOME": str(home),
    }

    def day(date: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "airflow", "dags", "test", "lakehouse_daily", date]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def record() -> dict[str, Any]:
        return dict(json.loads((home / "state" / "last_run.json").read_text()))

    def served() -> set[str]:
        command = [PROJECT / ".venv" / "bin" / "lakeops", "publish", "status", "--json"]
        done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=True)
        return {table["table"] for table in json.loads(done.stdout) if table["rows"] is not None}

    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    red = day("2025-03-08")
    assert red.returncode != 0 and "DagRun failed" in red.stderr + red.stdout, red.stdout[-4000:]
    assert "fct_opportunities, slv_opportunities, slv_opportunities_history wait for" in red.stdout
    assert {step["name"]: step["outcome"] for step in record()["steps"]} == {
        "ingest": "failed", "dbt build": "ok", "publish": "ok",
    }  # fmt: skip
    assert len(served()) == 12 and "gold.fct_opportunities" not in served()

    decide = [PROJECT / ".venv" / "bin" / "lakeops", "ingest", "run", "crm_opportunities", "--discard", "1"]
    subprocess.run(decide, env=environment, cwd=PROJECT, check=True, capture_output=True)
    shutil.copy(PROJECT / "seeds" / "landing" / "crm_opportunities" / "batch_0.jsonl.gz", broken)
    before = (home / "state" / "metrics" / "metrics.jsonl").stat().st_size
    green = day("2025-03-09")
    assert green.returncode == 0, green.stdout[-4000:] + green.stderr[-2000:]
    assert record()["command"] == "run" and record()["waiting"] == {} and len(served()) == 13
    lines = (home / "state" / "lineage" / "events.jsonl").read_text().splitlines()
    jobs = {event["job"]["name"] for event in map(json.loads, lines) if event["eventType"] == "COMPLETE"}
    assert {"lakeops run", "ingest.crm_opportunities", "dbt.fct_opportunities", "publish.duckdb"} <= jobs
    assert (home / "state" / "metrics" / "metrics.jsonl").stat().st_size > before
    assert (home / "report.html").exists()
