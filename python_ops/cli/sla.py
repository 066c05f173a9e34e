"""`lakeops sla`: service levels."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.lake.errors import ConfigError, SlaBreached
from python_ops.watch.alerts import Breach, pressing
from python_ops.watch.alerts import check as check_levels
from python_ops.watch.alerts.acknowledged import acknowledge
from python_ops.watch.alerts.message import Message
from python_ops.watch.alerts.notify import notify as send

app = typer.Typer(help="Service levels: checked against the limits in dbt meta.", no_args_is_help=True)


@app.callback()
def sla() -> None:
    """Service levels."""


@app.command()
def check(
    notify: Annotated[
        bool, typer.Option("--notify", help="Send alerts about what changed to the environment's targets.")
    ] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Compare the last run, deliveries and tables with their limits. Exit 3 on a breach. Starts no JVM.

    Example: lakeops sla check --notify
    """
    lake = lake_of(env)
    breaches = check_levels(lake)
    if as_json:
        print_json(breaches)
    else:
        typer.echo(text(env.value, breaches))
    if notify:
        targets = tuple(name for name in lake.settings.alerts if name != "console")  # it has just been printed
        for warning in send(lake.with_settings(alerts=targets), breaches, typer.echo):
            typer.echo(f"warning: {warning}", err=True)
    if loud := pressing(breaches):
        raise SlaBreached(f"{len(loud)} service levels are breached; the first: {loud[0].identity}.")


@app.command()
def ack(
    name: Annotated[str, typer.Argument(help="A breach as `sla check` names it, or its subject.")],
    until: Annotated[str, typer.Option("--until", help="Date or time, UTC; then an alert is sent again.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the acknowledgement back.")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Acknowledge a breach until a day: it stays listed, but sends no alert and causes no exit 3.

    Example: lakeops sla ack fx_rates --until 2026-12-24
    """
    if bool(until) == remove:
        raise ConfigError("Give either --until or --remove.")
    lake = lake_of(env)
    open_now = [breach.identity for breach in check_levels(lake)]
    chosen = acknowledge(lake, open_now, name, until, datetime.now(UTC))
    if as_json:
        print_json({"acknowledged": [] if remove else chosen, "until": until or None})
    for identity in () if as_json else chosen:
        typer.echo(f"{identity}: " + ("told again from now on" if remove else f"acknowledged until {until}"))


def text(environment: str, breaches: list[Breach]) -> str:
    """What the console shows."""
    loud = pressing(breaches)
    known = [f"- acknowledged until {b.acknowledged_until}: {b.identity}" for b in breaches if b not in loud]
    head = Message(environment, loud).text() if loud else "Every service level holds" + (", but:" if known else ".")
    return "\n".join([head, *known])
