"""`lakeops publish`: gold to the serving database."""

from __future__ import annotations

import typer

from python_ops.cli import AsJson, Env, Environment, print_json, settings_for
from python_ops.lock import exclusive
from python_ops.publish import PublishResult
from python_ops.publish import publish as publish_tables
from python_ops.publish.duckdb_target import DuckDBTarget
from python_ops.spark import session

app = typer.Typer(help="Gold tables to the serving database.", no_args_is_help=True)


@app.command()
def run(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Send the gold tables that changed, as one set, after a green build.

    Example: lakeops publish run
    """
    settings = settings_for(env)
    with exclusive(settings, "publish run"):
        results = publish_tables(settings, lambda: session(settings), on_event=None if as_json else _print)
    if as_json:
        print_json(results)


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show what is served, and from which version.

    Example: lakeops publish status --json
    """
    path = settings_for(env).home_path / "published" / "lakehouse.duckdb"
    served = {}
    if path.exists():
        with DuckDBTarget(path, read_only=True) as target:
            served = target.ledger()
    if as_json:
        print_json(served)
        return
    for name, table in served.items():
        typer.echo(f"{name:<27} {table.rows} rows, Delta version {table.version}, since {table.published_at}")
    if not served:
        typer.echo("Nothing was published yet. `lakeops run` builds and publishes.")


def _print(result: PublishResult) -> None:
    typer.echo(f"{result.table:<27} {result.action}: {result.rows} rows, Delta version {result.version}")
