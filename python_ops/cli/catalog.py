"""`lakeops catalog`: the lake's tables and views in AWS Glue, where Athena, Trino and EMR find them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, lake_of, print_json, say_if_planned
from python_ops.cli.tables import print_rows
from python_ops.jobs.catalog import Action, Change, refuse_incomplete
from python_ops.jobs.catalog import register as register_entries
from python_ops.jobs.catalog import unregister as unregister_entries
from python_ops.jobs.catalog.access import exported
from python_ops.jobs.catalog.lake_formation import grants as bring_grants
from python_ops.jobs.catalog.readers import check as check_readers
from python_ops.jobs.catalog.readers import refuse_broken
from python_ops.lake.lock import exclusive

app = typer.Typer(help="The lake in AWS Glue, where Athena, Trino and EMR find it.", no_args_is_help=True)
grants = typer.Typer(help="Who may read what, by Lake Formation.", no_args_is_help=True)
app.add_typer(grants, name="grants")


@app.command()
def register(execute: Execute = False, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Make Glue say what the lake has: databases, tables, views, their columns and whose they are.

    An entry of somebody else is named and left as it is; the command then ends with 1.

    Example: lakeops catalog register --env prod --execute
    """
    lake = lake_of(env)
    with exclusive(lake, "catalog register") if execute else nullcontext():
        changes = register_entries(lake, execute)
    _show(changes, execute, as_json)
    refuse_incomplete(changes)


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show which entries Glue has as they should be, and which it lacks.

    Example: lakeops catalog status --env prod
    """
    _show(register_entries(lake_of(env)), True, as_json, unchanged=True)


@app.command()
def check(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show which engines can read each table, from its Delta log. Ends with 1 where a promised one cannot.

    Example: lakeops catalog check
    """
    found = check_readers(lake_of(env))
    if as_json:
        print_json(found)
    else:
        print_rows(
            ["table", "promised", "can read it", "lacks"],
            [
                [
                    each.table,
                    ", ".join(each.promised) or None,
                    ", ".join(each.readers) or None,
                    "; ".join(f"{reader}: {', '.join(lacks)}" for reader, lacks in each.lacks.items()) or None,
                ]
                for each in found
            ],
        )
    refuse_broken(found)


@app.command()
def unregister(execute: Execute = False, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Take the environment's entries out of Glue, and the databases that it made. No data is touched.

    Example: lakeops catalog unregister --env dev --execute
    """
    lake = lake_of(env)
    with exclusive(lake, "catalog unregister") if execute else nullcontext():
        changes = unregister_entries(lake, execute)
    _show(changes, execute, as_json)


@grants.command("plan")
def grants_plan(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show how Lake Formation's tags, filters and grants differ from what contracts, models and roles say.

    Example: lakeops catalog grants plan --env prod
    """
    _show(bring_grants(lake_of(env)), False, as_json)


@grants.command("apply")
def grants_apply(execute: Execute = False, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Do what `catalog grants plan` shows. What bears no tag of this environment is never touched.

    Example: lakeops catalog grants apply --env prod --execute
    """
    lake = lake_of(env)
    with exclusive(lake, "catalog grants apply") if execute else nullcontext():
        changes = bring_grants(lake, execute)
    _show(changes, execute, as_json)
    refuse_incomplete(changes)


@grants.command("export")
def grants_export(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Print the tags, filters and grants as one JSON document: what `apply` makes, for Terraform.

    Example: lakeops catalog grants export --env prod > target/emr/prod-grants.json
    """
    print_json(exported(lake_of(env)))


def _show(changes: Iterable[Change], executed: bool, as_json: bool, unchanged: bool = False) -> None:
    """Prints changes; those that change nothing are counted, unless they are asked for."""
    listed = list(changes)
    if as_json:
        print_json({"executed": executed, "entries": listed})
        return
    shown = [change for change in listed if unchanged or change.action is not Action.UNCHANGED]
    if shown:
        print_rows(
            ["entry", "action", "why"], [[change.name, change.action.value, change.why or None] for change in shown]
        )
    typer.echo(f"{len(listed) - len(shown)} entries are as they should be.")
    if shown:
        say_if_planned(executed)
