"""The lakehouse's schedules. Every task is one command; what it does is python_ops's business.

Where the project stands and which environment is meant come from Airflow's environment:

- `LAKEHOUSE_PROJECT`: the checkout, with its `.venv`; required
- `LAKEHOUSE_ENV`: `--env` of every command; `prod` when not set

Retries only where a step may be repeated: extraction, ingestion, build, publishing and a snapshot are no-ops on what
they have done; maintenance decides anew from the tables' state. A check that finds a breach (exit 3) has given its
answer, and removing old snapshots is not tried again.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, TriggerRule

PROJECT = os.environ.get("LAKEHOUSE_PROJECT", "")
ENVIRONMENT = os.environ.get("LAKEHOUSE_ENV", "prod")
COMMON = {"start_date": datetime(2025, 1, 1), "catchup": False, "max_active_runs": 1, "tags": ["lakehouse"]}


def command(task_id: str, line: str, retries: int = 0, **options: object) -> BashOperator:
    """A task that runs one command in the project's own environment."""
    return BashOperator(
        task_id=task_id,
        bash_command=f"test -n '{PROJECT}' || {{ echo 'LAKEHOUSE_PROJECT is not set' >&2; exit 2; }}\n.venv/bin/{line}",
        cwd=PROJECT or None,
        env={"DBT_PROFILES_DIR": "profiles"},
        append_env=True,
        retries=retries,
        retry_delay=timedelta(minutes=5),
        **options,
    )


def lakeops(task_id: str, line: str, retries: int = 0, **options: object) -> BashOperator:
    """A `lakeops` command that prints one JSON document."""
    return command(task_id, f"lakeops {line} --env {ENVIRONMENT} --json", retries, **options)


with DAG("lakehouse_daily", schedule="0 4 * * *", **COMMON):
    ingest = lakeops("ingest", "ingest run", retries=2)
    build = command("build", f"dbt build --target {ENVIRONMENT}", retries=1)
    publish = lakeops("publish", "publish run", retries=2)
    check = lakeops("sla_check", "sla check --notify", trigger_rule=TriggerRule.ALL_DONE)
    lakeops("extract", "extract run", retries=2) >> ingest >> build >> publish >> check

# Apart from the daily run: it notices one that never came.
with DAG("lakehouse_heartbeat", schedule="45 * * * *", **COMMON):
    lakeops("sla_check", "sla check --notify")

with DAG("lakehouse_maintenance", schedule="0 1 * * 0", **COMMON):
    lakeops("maintain", "maintain run --execute", retries=1)

with DAG("lakehouse_dr", schedule="30 5 * * *", **COMMON):
    create = lakeops("snapshot", "snapshot create", retries=2)
    verify = lakeops("verify", "snapshot verify", retries=1)
    prune = lakeops("prune", "snapshot prune --keep 14 --execute")
    create >> verify >> prune

# A snapshot that was never restored is a hope: four times a year, on a machine that has Spark.
with DAG("lakehouse_dr_drill", schedule="0 6 1 1,4,7,10 *", **COMMON):
    lakeops("drill", "snapshot drill")
