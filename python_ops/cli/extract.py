"""`lakeops extract`: systems to landing files."""

from __future__ import annotations

from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.cli.live import Live, row
from python_ops.cli.tables import print_rows
from python_ops.jobs.extract import ExtractResult, PullStatus, extract
from python_ops.jobs.extract import status as extract_status
from python_ops.lake.errors import together
from python_ops.lake.lock import exclusive

app = typer.Typer(help="Write what changed in the sources as landing files.", no_args_is_help=True)


@app.command()
def run(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Sources; those that the environment extracts when none is named.")
    ] = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Pull what changed since each source's watermark into LAKEHOUSE_HOME/landing/<source>/.

    Example: lakeops extract run snowflake_orders --env prod
    """
    lake = lake_of(env)
    with exclusive(lake, "extract run", names=()), Live(quiet=as_json) as live:  # each source has a lease of its own
        live.begin("extract", len(sources or lake.settings.extract))

        def tell(result: ExtractResult) -> None:
            live.end(result.source)
            if not as_json:
                typer.echo(line(result))

        results = extract(lake, sources or (), tell, live.start)
    if as_json:
        print_json(results)
    elif not results:
        typer.echo(f"extract nothing: `extract` in python_ops/lake/config/{env.value}.yml names no source")
    else:
        rows = sum(result.rows for result in results)
        typer.echo(f"done    {rows} rows of {len(results)} sources, in {live.seconds:.1f} s")
    if failed := [result for result in results if result.error]:
        names = ", ".join(result.source for result in failed)
        message = f"{len(failed)} of {len(results)} sources failed: {names}. The others are done."
        raise together([result.error for result in failed if result.error], message)


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show how far each source was extracted, and what its last run did. Asks no source.

    Example: lakeops extract status --json
    """
    found = extract_status(lake_of(env))
    if as_json:
        print_json(found)
        return
    print_rows(
        ["source", "system", "with every run", "watermark", "last asked", "rows", "state"],
        [[s.source, s.system, "yes" if s.is_due else "no", s.at, s.asked_at, s.rows, _state(s)] for s in found],
    )


def line(result: ExtractResult) -> str:
    """A result as one line, warnings below it."""
    if result.error:
        text = row("extract", result.source, f"FAILED  {result.error}")
    elif not result.files:
        text = row("extract", result.source, f"nothing new ({result.seconds:.1f} s)")
    else:
        told = f"{result.rows} rows, {result.bytes} bytes in {len(result.files)} files ({result.seconds:.1f} s)"
        text = row("extract", result.source, told)
    return text + "".join(f"\n        warning: {warning}" for warning in result.warnings)


def _state(status: PullStatus) -> str:
    if status.error:
        return f"failed: {status.error}"
    return "a landing file without its watermark; the next run saves it" if status.unfinished else "ok"
