"""`lakeops run`, `lakeops demo` and `lakeops status`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.cli.progress import Progress
from python_ops.lake.errors import SlaBreached
from python_ops.lake.lock import exclusive
from python_ops.lake.run_record import last_run, waits
from python_ops.run.daily import aftermath
from python_ops.run.daily import run as run_job
from python_ops.run.demo import allow
from python_ops.run.demo import demo as run_demo
from python_ops.watch.status import status as read_status


def run(
    env: Env = Environment.LOCAL,
    always: Annotated[bool, typer.Option("--always", help="Run although nothing has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """The daily job: extract, ingest, dbt build, publish what changed; then figures, service levels, alerts, report.

    A source that is halted or fails stops only what reads it. The run names what was left out, and ends with 1.
    With nothing new it only checks service levels and sends alerts, which takes seconds and starts no JVM.

    Example: lakeops run --json
    """
    lake = lake_of(env)
    with exclusive(lake, "run"), Progress(quiet=as_json) as progress:
        started = time.monotonic()
        say: Callable[[str], None] = partial(typer.echo, err=as_json)
        try:
            job = run_job(lake, progress, always)
        except BaseException:
            aftermath(lake, say)
            raise
        breaches = aftermath(lake, say, unchanged=job.unchanged_since is not None)
    if as_json:
        print_json(last_run(lake))
    elif job.unchanged_since:
        typer.echo(f"nothing new since the green run of {job.unchanged_since}; `lakeops run --always` runs anyway.")
    else:
        typer.echo(f"done    in {time.monotonic() - started:.0f} s. `lakeops status` says where things stand.")
    if breaches:
        raise SlaBreached(f"The run is done; {len(breaches)} service levels are breached: {breaches[0].identity}.")


def demo(
    env: Env = Environment.LOCAL,
    every_batch: Annotated[bool, typer.Option("--every-batch", help="Build after each change day.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the job on the bundled batches: the first, then four change days that arrive in the wrong order.

    Example: lakeops demo --every-batch
    """
    lake = lake_of(env)
    allow(lake)
    with exclusive(lake, "demo"), Progress(quiet=as_json) as progress:
        started = time.monotonic()
        _, docs = run_demo(lake, progress, every_batch)
        aftermath(lake, partial(typer.echo, err=as_json))
    if as_json:
        print_json(last_run(lake))
        return
    database = lake.workspace / "published" / "lakehouse.duckdb"
    typer.echo(
        f"done    in {time.monotonic() - started:.0f} s\n\n"
        "What to look at\n"
        f"  {lake.home / 'report.html'}  how everything stands, for a browser\n"
        f"  {docs}  the dbt docs site: every table, column and the lineage graph\n"
        f"  {database}  the served tables; try\n"
        f"      .venv/bin/python -c \"import duckdb; print(duckdb.connect('{database}', read_only=True)"
        ".sql('from gold.rpt_daily_revenue order by order_date'))\"\n"
        "  .venv/bin/lakeops status  what was taken, built and published\n"
        "  dbt_project/models/silver/crm/slv_contacts_history.sql  all that the history of contacts takes"
    )


def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show what was taken, what the last run did and what is served. Starts no JVM.

    Example: lakeops status --json
    """
    shown = read_status(lake_of(env))
    if as_json:
        print_json(shown)
        return
    typer.echo(f"home    {shown.home}")
    if shown.last_run:
        typer.echo(f"last    `lakeops {shown.last_run['command']}` at {shown.last_run['started_at']}")
        if shown.last_run.get("unchanged_since"):
            typer.echo(f"        nothing new since the green run of {shown.last_run['unchanged_since']}")
        for step in shown.last_run["steps"]:
            typer.echo(f"        {step['outcome']:<8} {step['name']} ({step['seconds']:.1f} s)")
        if waiting := waits(shown.last_run.get("waiting", {})):
            typer.echo(f"        {waiting}")
    else:
        typer.echo("last    no run yet: `lakeops demo` or `lakeops run`")
    for source in shown.sources:
        typer.echo(
            f"source  {source.source:<20} {source.batches} batches, {source.accepted} rows, "
            f"{source.quarantined} rejected, {source.waiting_files} files waiting"
            + (", a batch unfinished" if source.unfinished else "")
            + (f", last batch: {source.last_verdict}" if source.last_verdict else "")
        )
    for name, what in shown.unreadable.items():
        typer.echo(f"table   {name} CANNOT BE READ: {what}; docs/runbooks/dr_restore.md")
    for target, tables in shown.published.items():
        for name, table in tables.items():
            typer.echo(
                f"served  {name:<27} {table.rows} rows, Delta version {table.version.number}, "
                f"since {table.published_at}, {target}"
            )
    for target, error in shown.unreachable.items():
        typer.echo(f"served  {target}: {error}")
