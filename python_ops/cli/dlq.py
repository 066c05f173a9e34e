"""`lakeops dlq`: rejected records."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, Source, Sources, lake_of, print_json, say_if_planned
from python_ops.cli.ingest import line as ingest_line
from python_ops.cli.tables import print_rows
from python_ops.jobs.ingest import dead_letters
from python_ops.jobs.ingest.tables import tables_of
from python_ops.lake.lock import exclusive

app = typer.Typer(help="Rejected records: see why, take them again, remove old ones.", no_args_is_help=True)


@app.command("list")
def list_(
    sources: Sources = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """List dead letters by source, batch and reason; starts no JVM.

    Example: lakeops dlq list shop_orders
    """
    found = dead_letters.groups(lake_of(env), sources or ())
    if as_json:
        print_json(found)
    elif found:
        rows = [[g.source, g.batch_id, g.reason, g.column, g.records, g.open] for g in found]
        print_rows(["source", "batch", "reason", "column", "records", "open"], rows)
    else:
        typer.echo("No dead letters.")


@app.command()
def show(
    source: Source,
    batch: Annotated[int | None, typer.Option(help="Only of this batch.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Also those that were replayed.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show the record itself too; it may be personal data.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Show single dead letters: file, line and reason; starts no JVM.

    Example: lakeops dlq show shop_orders --batch 7 --raw
    """
    found = dead_letters.letters(lake_of(env), source, batch, closed, raw, limit)
    if as_json:
        print_json(found)
        return
    for letter in found:
        place = letter.file if letter.line is None else f"{letter.file}:{letter.line}"
        column = f" ({letter.column})" if letter.column else ""
        state = f", in bronze as batch {letter.replayed_batch}" if letter.replayed_batch else ""
        typer.echo(
            f"batch {letter.batch_id}  {place}  {letter.reason}{column}, contract {letter.contract_version}{state}"
        )
        if letter.raw is not None:
            typer.echo(f"    {letter.raw}")
    if not found:
        typer.echo("No dead letters.")


@app.command()
def replay(
    source: Source,
    batch: Annotated[
        list[int] | None, typer.Option(help="Only the dead letters of this batch; may be repeated.")
    ] = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Take open dead letters again, with today's contract. Those that pass are a new batch; the others stay open.

    Example: lakeops dlq replay shop_orders --batch 7
    """
    lake = lake_of(env)
    names = tables_of(lake, lake.contracts.load(source))
    with exclusive(lake, "dlq replay", names):
        result = dead_letters.replay(lake, source, batch or ())
    if as_json:
        print_json(result)
    else:
        typer.echo(
            ingest_line(result) if result.batch_id else f"{source}: no open dead letter passes today's contract."
        )


@app.command()
def purge(
    source: Source,
    older_than: Annotated[int, typer.Option(help="Remove those that arrived more than so many days ago.")] = 30,
    with_open: Annotated[bool, typer.Option("--with-open", help="Also those never replayed; they are lost.")] = False,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Remove old dead letters that were replayed.

    Example: lakeops dlq purge shop_orders --older-than 90 --execute
    """
    lake = lake_of(env)
    with exclusive(lake, "dlq purge", tables_of(lake, lake.contracts.load(source))) if execute else nullcontext():
        done = dead_letters.purge(lake, source, older_than, with_open, execute)
    if as_json:
        print_json(done)
        return
    word = "removed" if execute else "would be removed"
    typer.echo(f"{source}: {done.closed} replayed and {done.open} open dead letters {word}.")
    say_if_planned(execute)
