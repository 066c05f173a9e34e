"""`lakeops report`: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, local_file, print_json
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
    lake = lake_of(env)
    found = gather(lake)
    path = write(found, output or lake.home / "report.html")
    if as_json:
        print_json({"path": str(path), "verdict": found.verdict})
        return
    typer.echo(f"{found.verdict.text}\n{path}")
