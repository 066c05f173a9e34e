"""`lakeops sla`: service levels."""

from __future__ import annotations

from typing import Annotated

import typer

from python_ops.alerts import Breach
from python_ops.alerts import check as check_levels
from python_ops.alerts.notify import notify as send
from python_ops.alerts.targets import Message
from python_ops.cli import AsJson, Env, Environment, print_json, settings_for
from python_ops.errors import SlaBreached

app = typer.Typer(help="Service levels: checked against the limits in dbt meta.", no_args_is_help=True)


@app.callback()
def sla() -> None:
    """Service levels."""


@app.command()
def check(
    notify: Annotated[
        bool, typer.Option("--notify", help="Tell the environment's alert targets what changed.")
    ] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Compare the last run, deliveries and tables with their limits. Exit 3 on a breach. Starts no JVM.

    Example: lakeops sla check --notify
    """
    settings = settings_for(env)
    breaches = check_levels(settings)
    if as_json:
        print_json(breaches)
    else:
        typer.echo(text(env.value, breaches))
    if notify:
        targets = tuple(name for name in settings.alerts if name != "console")  # it has just been printed
        for warning in send(settings.model_copy(update={"alerts": targets}), breaches, typer.echo):
            typer.echo(f"warning: {warning}", err=True)
    if breaches:
        raise SlaBreached(f"{len(breaches)} service levels are breached; the first: {breaches[0].identity}.")


def text(environment: str, breaches: list[Breach]) -> str:
    """What the console shows."""
    return Message(environment, breaches).text() if breaches else "Every service level holds."
