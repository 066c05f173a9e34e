"""`lakeops home`: the lake's folder, and the environment that it belongs to."""

from __future__ import annotations

from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, print_json, say_if_planned
from python_ops.cli.tables import print_rows
from python_ops.lake import home
from python_ops.lake.config import load_settings
from python_ops.lake.errors import BusyError
from python_ops.lake.lake import Lake
from python_ops.lake.lock import exclusive
from python_ops.lake.spark import own_session
from python_ops.lake.views import restore
from python_ops.watch.doctor import check_metastore
from python_ops.watch.finding import Outcome

app = typer.Typer(help="Whose the lake's folder is.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The lake's folder, and the environment that it belongs to."""


@app.command()
def adopt(
    execute: Annotated[bool, typer.Option("--execute", help="Act; without it, the tables are listed.")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Register a home that was copied or moved at its new place, with every table that lies under it.

    Rows, ledgers and what was published stay as they are.

    Example: lakeops home adopt --execute
    """
    lake = Lake(load_settings(env.value))
    found = [
        {"table": f"{schema}.{name}", "folder": str(folder)} for schema, name, folder in home.tables(lake.settings)
    ]
    if execute:
        with exclusive(lake, "home adopt", claim=False):
            derby = check_metastore(home.metastore(lake.settings))
            if derby.outcome is not Outcome.OK:
                raise BusyError(f"{derby.found}. Stop it (a Spark Connect server?), then run again.")
            home.adopt(lake.settings, own_session)
            restore(lake.artifacts, own_session(lake.settings))
    if as_json:
        print_json({"home": str(lake.home), "tables": found, "executed": execute})
        return
    print_rows(["table", "folder"], [[each["table"], each["folder"]] for each in found])
    if execute:
        typer.echo(f"{lake.home} is the home of environment {lake.settings.target}. Next: `lakeops run --always`.")
    say_if_planned(execute)
