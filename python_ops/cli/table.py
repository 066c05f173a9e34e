"""`lakeops table`: versions of a table."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, lake_of, print_json
from python_ops.cli.tables import print_rows
from python_ops.jobs.maintenance.versions import diff as find_diff
from python_ops.jobs.maintenance.versions import history as read_history
from python_ops.jobs.maintenance.versions import restore as restore_table
from python_ops.lake.lock import exclusive

app = typer.Typer(help="Versions of a table: show them, compare them, go back to one.", no_args_is_help=True)

Table = Annotated[str, typer.Argument(help="Table as schema.table; a CDC model's is `silver.<model>__cdc`.")]


@app.command()
def history(
    table: Table,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many of the newest commits.")] = 20,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Show the newest commits of a table. Starts no JVM.

    Example: lakeops table history gold.fct_orders
    """
    found = read_history(lake_of(env), table, limit)
    if as_json:
        print_json(found)
    else:
        print_rows(["version", "at", "operation", "rows"], [[c.version, c.at, c.operation, c.rows] for c in found])


@app.command()
def diff(
    table: Table,
    before: Annotated[int, typer.Option("--from", help="The earlier version.")],
    after: Annotated[int | None, typer.Option("--to", help="The later one; the newest when not given.")] = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Count the rows that differ between two versions. Never shows their values.

    Example: lakeops table diff gold.fct_orders --from 3
    """
    lake = lake_of(env)
    with exclusive(lake, "table diff", names=()):  # it writes nothing; Spark's metastore admits one process
        found = find_diff(lake, table, before, after)
    if as_json:
        print_json(found)
        return
    changed = "" if found.changed is None else f", {found.changed} changed"
    typer.echo(
        f"{found.table} from version {found.before} to {found.after}: {found.added} rows added, "
        f"{found.removed} removed{changed}"
    )


@app.command()
def restore(
    table: Table,
    version: Annotated[int, typer.Option("--version", help="The version to go back to.")],
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Make an older version the newest again. The next run builds or takes again what was undone.

    Example: lakeops table restore gold.fct_orders --version 3 --execute
    """
    lake = lake_of(env)
    with exclusive(lake, "table restore") if execute else nullcontext():
        done = restore_table(lake, table, version, execute)
    if as_json:
        print_json(done)
        return
    for commit in done.undone:
        typer.echo(f"undo  version {commit.version}  {commit.at}  {commit.operation}")
    if done.version is None:
        typer.echo(f"{done.table} would go back from version {done.before} to {done.to}. Nothing was done.")
    else:
        typer.echo(f"{done.table} is at version {done.version}, which equals version {done.to}.")
