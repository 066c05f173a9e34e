"""All commands: nouns, then verbs."""

from __future__ import annotations

import typer

from python_ops.cli import ingest

app = typer.Typer(
    name="lakeops",
    help="Operations around `dbt build`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(ingest.app, name="ingest")
