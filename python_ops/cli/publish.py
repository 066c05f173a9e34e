"""`lakeops publish`: gold tables to the warehouses."""

from __future__ import annotations

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.cli.live import Live, row
from python_ops.cli.tables import print_rows
from python_ops.jobs.publish import Action, PublishResult, publish
from python_ops.jobs.publish import status as publish_status
from python_ops.lake.errors import OpsError
from python_ops.lake.lock import PUBLISH, exclusive

app = typer.Typer(help="Send gold tables to the warehouses, each in one transaction.", no_args_is_help=True)


@app.command()
def run(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Publish the tables that changed since they were last published, to each warehouse of the environment as a set.

    Needs a green `dbt build`. A warehouse that fails does not hold up the others; the command then ends with 1.

    Example: lakeops publish run
    """
    lake = lake_of(env)
    with exclusive(lake, "publish run", names=(PUBLISH,)), Live(quiet=as_json) as live:
        live.begin("publish")

        def tell(event: PublishResult) -> None:
            if event.action is Action.STAGED:
                live.end(event.table)
            elif not as_json:
                typer.echo(line(event))

        results = publish(lake, tell, live.start)
    if as_json:
        print_json(results)
    elif not results:
        typer.echo(f"publish no model's `publish_to` names one of {', '.join(lake.settings.publish)}")
    else:
        sent = sum(result.action is Action.PUBLISHED for result in results)
        typer.echo(f"done    {sent} of {len(results)} tables sent, in {live.seconds:.1f} s")


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show which version of each table each warehouse serves, and which the lake has.

    Ends with 1 when a warehouse does not answer.

    Example: lakeops publish status --json
    """
    found = publish_status(lake_of(env))
    if as_json:
        print_json(found)
    else:
        print_rows(
            ["target", "table", "state", "lake version", "served version", "rows", "published at", "personal"],
            [
                [
                    s.target,
                    s.table,
                    s.state,
                    s.lake_version,
                    s.served_version,
                    s.rows,
                    s.published_at,
                    s.personal or None,
                ]
                for s in found
            ],
        )
    if errors := sorted({f"{s.target}: {s.error}" for s in found if s.error}):
        raise OpsError(" ".join(errors))


def line(event: PublishResult) -> str:
    """A result as one line."""
    told = f"{event.target:<9} {event.action.value:<9} version {event.version}, {event.rows} rows"
    text = row("publish", event.table, told)
    if event.action is Action.PUBLISHED:
        text += f", {event.sent} sent"
    return text if event.action is Action.UNCHANGED else f"{text} ({event.seconds:.1f} s)"
