"""All commands: nouns, then verbs. Importing what they need takes most of the second that a short one lasts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

# In the order of `lakeops --help`, with the module of those that are no nouns.
NOUNS = (
    "extract", "ingest", "dlq", "contracts", "publish", "maintain", "table", "catalog", "features", "erase", "snapshot",
    "home", "lineage", "sla", "metrics", "secrets", "stream", "spark", "watermark",
)  # fmt: skip
ALONE = {
    "run": "run", "demo": "run", "status": "run", "sql": "sql", "cost": "cost", "report": "report", "doctor": "doctor",
}  # fmt: skip


def made(asked: Sequence[str] = ()) -> typer.Typer:
    """The command line.

    Args:
        asked: What a call begins with. Where that is a command, only its module is imported.
    """
    app = typer.Typer(name="lakeops", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    app.callback()(_lakeops)
    wanted = {*asked[:1]} & {*NOUNS, *ALONE} or {*NOUNS, *ALONE}
    for noun in NOUNS:
        if noun in wanted:
            app.add_typer(import_module(f"python_ops.cli.{noun}").app, name=noun)
    for name, module in ALONE.items():
        if name in wanted:
            app.command()(getattr(import_module(f"python_ops.cli.{module}"), name))
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lakeops {installed_version('lakehouse-ops')}")
        raise typer.Exit


def _lakeops(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Its version.")] = False,
) -> None:
    """Operations around `dbt build`."""
