"""`lakeops report`: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, local_file, print_json, settings_for
from python_ops.watch.report import gather, write


def report(
    output: Annotated[
        Path | None, typer.Option("--output", callback=local_file, help="File; <home>/report.html when not given.")
    ] = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Write one static HTML page: state, freshness, counts, tests, lineage, table sizes, what is served. Starts no JVM.

    Example: lakeops report --output report.html
    """
    settings = settings_for(env)
    found = gather(settings)
    path = write(found, output or settings.home_path / "report.html")
    if as_json:
        print_json({"path": str(path), "verdict": found.verdict})
        return
    typer.echo(f"{found.verdict.text}\n{path}")
