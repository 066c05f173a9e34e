"""The lakehouse's schedules. Every task is one command; what it does is python_ops's business.

Where the project stands and which environment is meant come from Airflow's environment:

- `LAKEHOUSE_PROJECT`: the checkout, with its `.venv`; required
- `LAKEHOUSE_ENV`: `--env` of every command; `prod` when not set
- `LAKEHOUSE_RUNNER`: what runs them, `.venv/bin/lakeops` when not set; `.venv/bin/python infra/emr/submit.py OUTPUTS`
  makes a job of EMR Serverless of each

A run of a DAG is as its tasks: one that fails makes it red. Retries only where a command may be repeated: the daily run
and a snapshot are no-ops on what they have done; maintenance decides anew from the tables' state. Wrong configuration
(exit 2) and a breached service level (exit 3) are answers, and removing old snapshots is not tried again.
"""

from __future__ import annotations

import os
from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

PROJECT = os.environ.get("LAKEHOUSE_PROJECT", "")
ENVIRONMENT = os.environ.get("LAKEHOUSE_ENV", "prod")
RUNNER = os.environ.get("LAKEHOUSE_RUNNER", ".venv/bin/lakeops")
COMMON = {"start_date": datetime(2025, 1, 1), "catchup": False, "max_active_runs": 1, "tags": ["lakehouse"]}


class Command(BashOperator):
    """One command in the project's own environment. What ends with 2 or 3 fails at once, whatever its retries."""

    def execute(self, context: Context) -> object:
        """See BashOperator, whose `skip_on_exit_code` would leave the run green."""
        try:
            return super().execute(context)
        except AirflowSkipException as exc:
            raise AirflowFailException(
                "The command gave its answer: exit 2 is wrong configuration, 3 a breach."
            ) from exc


def lakeops(task_id: str, line: str, retries: int = 0) -> Command:
    """A task that runs a `lakeops` command, which prints one JSON document."""
    missing = "{ echo 'LAKEHOUSE_PROJECT is not set' >&2; exit 2; }"
    return Command(
        task_id=task_id,
        bash_command=f"test -n '{PROJECT}' || {missing}\n{RUNNER} {line} --env {ENVIRONMENT} --json",
        cwd=PROJECT or None,
        env={"DBT_PROFILES_DIR": "profiles"},
        append_env=True,
        retries=retries,  # each after Airflow's own `default_task_retry_delay`, five minutes
        skip_on_exit_code=(2, 3),
    )


# The same command as by hand: its steps, lineage, figures, alerts and report are those of one run.
with DAG("lakehouse_daily", schedule="0 4 * * *", **COMMON):
    lakeops("run", "run", retries=1)

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
