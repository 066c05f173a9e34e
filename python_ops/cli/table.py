"""`lakeops table`: versions of a table."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, lake_of, print_json, say_if_planned
from python_ops.cli.tables import print_rows
from python_ops.jobs.maintenance.tagging import tag as make_tag
from python_ops.jobs.maintenance.tagging import untag as let_go
from python_ops.jobs.maintenance.versions import diff as find_diff
from python_ops.jobs.maintenance.versions import history as read_history
from python_ops.jobs.maintenance.versions import restore as restore_table
from python_ops.lake.lock import exclusive
from python_ops.lake.tags import Tag, lost, tag_named, tagged_versions
from python_ops.lake.tags import tags as all_tags

app = typer.Typer(help="Versions of tables: show them, compare them, go back to one, pin some.", no_args_is_help=True)

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


@app.command()
def tag(
    name: Annotated[str, typer.Argument(help="Name of the new tag.")],
    select: Annotated[
        list[str] | None, typer.Option("--select", help="A model; all gold models when not given.")
    ] = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Pin the newest versions of tables under a name, as the last green build left them. No VACUUM removes them.

    Example: lakeops table tag release-2026-11
    """
    lake = lake_of(env)
    with exclusive(lake, "table tag"):
        _show(made := make_tag(lake, name, select or ()), {}, as_json)
    if not as_json:
        typer.echo(
            f"{len(made.tables)} tables are tagged {name}. They keep every file until `lakeops table untag {name}`."
        )


@app.command()
def tags(
    name: Annotated[str | None, typer.Argument(help="Show the tables of this one.")] = None,
    as_vars: Annotated[bool, typer.Option("--vars", help="Print what `dbt --vars` takes, for at_version().")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """List the tags, or the versions of one and whether they can be read. Starts no JVM.

    Example: lakeops table tags release-2026-11
    """
    lake = lake_of(env)
    if as_vars:
        if name is None:
            raise typer.BadParameter("--vars is of one tag: name it.")
        typer.echo(json.dumps({"at_versions": tagged_versions(lake, name)}))
        return
    if name is not None:
        found = tag_named(lake, name)
        _show(found, lost(lake, found), as_json)
        return
    listed = all_tags(lake)
    if as_json:
        print_json([_told(found, lost(lake, found)) for found in listed])
        return
    rows = [[found.name, found.at, len(found.tables), len(lost(lake, found)) or None] for found in listed]
    print_rows(["tag", "at", "tables", "gone"], rows)


@app.command()
def untag(
    name: Annotated[str, typer.Argument(help="Name of the tag.")],
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Let a tag go: from then on maintenance removes what the tables' policy does not keep.

    Example: lakeops table untag release-2026-11 --execute
    """
    lake = lake_of(env)
    with exclusive(lake, "table untag") if execute else nullcontext():
        _show(let_go(lake, name, execute), {}, as_json)
    if not as_json:
        say_if_planned(execute)


def _told(found: Tag, gone: dict[str, str]) -> dict[str, object]:
    tables = {
        table: {"version": pin.version, "rows": pin.rows, "gone": gone.get(table)}
        for table, pin in found.tables.items()
    }
    return {"name": found.name, "at": found.at, "tables": tables}


def _show(found: Tag, gone: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json(_told(found, gone))
        return
    rows = [[table, pin.version, pin.rows, gone.get(table)] for table, pin in found.tables.items()]
    print_rows(["table", "version", "rows", "gone"], rows)
