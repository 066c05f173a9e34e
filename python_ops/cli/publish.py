"""`lakeops publish`: gold tables to the warehouse."""

from __future__ import annotations

import typer

from python_ops.cli import AsJson, Env, Environment, print_json, settings_for
from python_ops.cli.tables import print_rows
from python_ops.lock import PUBLISH, exclusive
from python_ops.publish import Action, PublishResult, publish
from python_ops.publish import status as publish_status
from python_ops.spark import session

app = typer.Typer(help="Gold tables to the warehouse, audited, as a set.", no_args_is_help=True)


@app.command()
def run(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Publish the tables that changed since they were last published. Needs a green `dbt build`.

    Example: lakeops publish run
    """
    settings = settings_for(env)
    with exclusive(settings, "publish run", names=(PUBLISH,)):
        results = publish(
            settings, lambda: session(settings), None if as_json else lambda event: typer.echo(line(event))
        )
    if as_json:
        print_json(results)
    elif not results:
        typer.echo("publish  no model has `publish_to: [duckdb]` in its meta")


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show which version of each table is served, and which the lake has.

    Example: lakeops publish status --json
    """
    found = publish_status(settings_for(env))
    if as_json:
        print_json(found)
        return
    print_rows(
        ["table", "state", "lake version", "served version", "rows", "published at"],
        [[s.table, s.state, s.lake_version, s.served_version, s.rows, s.published_at] for s in found],
    )


def line(event: PublishResult) -> str:
    """A result as one line."""
    text = f"publish  {event.table:<32} {event.action.value:<9} version {event.version}, {event.rows} rows"
    return text if event.action is Action.UNCHANGED else f"{text}, {event.seconds:.1f} s"
