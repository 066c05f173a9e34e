"""`lakeops metrics`: figures of runs and tables."""

from __future__ import annotations

from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.lake.metrics import record
from python_ops.watch.metrics import collect
from python_ops.watch.metrics.cloudwatch import dashboard as make_dashboard
from python_ops.watch.metrics.cloudwatch import push as push_to_cloudwatch
from python_ops.watch.metrics.cloudwatch import put_dashboard

app = typer.Typer(help="Figures of runs and tables, and a dashboard of them.", no_args_is_help=True)


@app.command()
def push(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Record the figures of the last run and of every table; send them where the environment has CloudWatch.

    Example: lakeops metrics push --env prod
    """
    lake = lake_of(env)
    found = collect(lake)
    path = record(lake, found)
    sent = push_to_cloudwatch(lake) if lake.settings.metrics == "cloudwatch" else 0
    if as_json:
        print_json({"recorded": found, "sent": sent})
    else:
        typer.echo(f"{len(found)} figures recorded in {path}, {sent} sent")


@app.command()
def dashboard(
    execute: Annotated[
        bool, typer.Option("--execute", help="Put it into CloudWatch; without it, it is printed.")
    ] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Make a CloudWatch dashboard from the manifest: jobs, sources, gold tables.

    Example: lakeops metrics dashboard --env prod --execute
    """
    lake = lake_of(env)
    body = make_dashboard(lake, lake.manifest())
    if not execute or as_json:
        print_json(body)
    if execute:
        name = put_dashboard(lake, body)
        if not as_json:
            typer.echo(f"dashboard {name} has {len(body['widgets'])} widgets")
