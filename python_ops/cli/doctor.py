"""`lakeops doctor`: what must be true of this machine."""

from __future__ import annotations

import typer

from python_ops.cli import AsJson, Env, Environment, print_json
from python_ops.cli.tables import print_rows
from python_ops.lake.config import load_settings
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.watch.doctor import checks
from python_ops.watch.finding import Outcome


def doctor(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Check Java, versions, disk, memory, ports, locks and storage; in an environment that needs them also the Spark
    server, the clock, the state table, the topic, buckets, secrets and warehouses. Starts no Spark; exits 1 when a
    check fails.

    Example: lakeops doctor --env prod
    """
    found = checks(Lake(load_settings(env.value)))
    if as_json:
        print_json(found)
    else:
        print_rows(["outcome", "check", "found"], [[check.outcome, check.name, check.found] for check in found])
        for check in found:
            if check.fix:
                typer.echo(f"{check.name}: {check.fix}")
    if failed := [check.name for check in found if check.outcome is Outcome.FAIL]:
        raise OpsError(f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}.")
