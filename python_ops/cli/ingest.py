"""`lakeops ingest`: landing files to bronze and the dead-letter queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, Source, Sources, lake_of, print_json
from python_ops.cli.live import Live, row
from python_ops.jobs.ingest import IngestResult, generations
from python_ops.jobs.ingest import discard as discard_batch
from python_ops.jobs.ingest import ingest as run_ingest
from python_ops.lake.errors import ConfigError, OpsError, together
from python_ops.lake.lake import Lake
from python_ops.lake.landing import printable
from python_ops.lake.lock import exclusive
from python_ops.lake.spark import session
from python_ops.watch import quality
from python_ops.watch.quality.verdicts import Verdict
from python_ops.watch.status import source_status

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

app = typer.Typer(help="Take landing files into bronze, checked against contracts.", no_args_is_help=True)


Approve = Annotated[int | None, typer.Option(help="Take a halted batch of the source after all.")]
Discard = Annotated[int | None, typer.Option(help="Give up a halted batch of the source.")]


@app.command()
def run(
    sources: Sources = None,
    approve: Approve = None,
    discard: Discard = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Take the new files of LAKEHOUSE_HOME/landing/<source>/ in name order, one batch per source.

    Example: lakeops ingest run shop_orders shop_order_items
    """
    lake = lake_of(env)
    refuse_both(approve, discard)
    with exclusive(lake, "ingest run", names=()):  # each source's tables are leased as it comes to them
        if discard is not None:
            discard_batch(lake, sources or (), discard)
        with Live(quiet=as_json) as live:
            live.begin("ingest", len(sources or lake.contracts.sources))

            def tell(result: IngestResult) -> None:
                live.end(result.source)
                if not as_json:
                    typer.echo(line(result))

            results = run_ingest(lake, sources or (), tell, approve, live.start)
    if as_json:
        print_json(results)
    else:
        taken = [result.accepted for result in results if result.batch_id is not None]
        told = f"{sum(taken)} rows accepted from {len(taken)} of {len(results)} sources"
        typer.echo(f"done    {told}, in {live.seconds:.1f} s")
    if failed := [result.source for result in results if result.error]:
        message = f"{len(failed)} of {len(results)} sources failed: {', '.join(failed)}. The others are done."
        raise together([result.error for result in results if result.error], message)


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show what was taken from each source, and what waits.

    Example: lakeops ingest status --json
    """
    lake = lake_of(env)
    shown = [source_status(lake, source) for source in lake.contracts.sources]
    if as_json:
        print_json(shown)
        return
    for source in shown:
        typer.echo(
            f"{source.source:<20} {source.batches:>4} batches {source.accepted:>9} rows "
            f"{source.quarantined:>6} rejected {source.waiting_files:>4} files waiting"
            + (", a batch unfinished" if source.unfinished else "")
            + (f", last batch: {source.last_verdict}" if source.last_verdict else "")
        )
        if source.halted:
            typer.echo(f"    batch {source.halted} is halted: {source.halted_by}")
        for told in source.left_outside:
            typer.echo(f"    {told}")


@app.command()
def generation(
    source: Source,
    new: Annotated[bool, typer.Option("--new", help="Begin a new generation.")] = False,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Show a source's generation, or declare a new one when its positions begin again.

    Example: lakeops ingest generation shop_orders --new --execute
    """
    lake = lake_of(env)
    lake.contracts.require([source])
    ledger = lake.ledger(source)
    before = generations.current(lake, ledger)
    after = None
    if new and execute:
        with exclusive(lake, "ingest generation", names=()):
            after = generations.declare(lake, ledger)
    if as_json:
        print_json({"source": source, "before": before, "after": after, "executed": after is not None})
        return
    if after is not None:
        typer.echo(
            f"{source}: generation {after.number} begins with the next file. `lakeops ingest run {source}` takes it."
        )
        return
    since = f", declared {before.declared_at}" if before.declared_at else ""
    typer.echo(f"{source}: generation {before.number}{since}")
    if new:
        typer.echo(
            f"Generation {before.number + 1} would begin with the next file. Nothing was done. `--execute` acts."
        )


@app.command()
def report(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Sources; all that have a batch when none is named.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Number; the last one of the source if not given.")
    ] = None,
    engine: Annotated[quality.Engine, typer.Option("--engine", help="auto: Spark for large batches only.")] = (
        quality.Engine.AUTO
    ),
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Judge a batch as a whole by its contract's expectations, and write pages. Exit 1 when one does not hold.

    Example: lakeops ingest report shop_orders --batch 3
    """
    lake = lake_of(env)
    if batch is not None and len(sources or ()) != 1:
        raise ConfigError("--batch is the number of one source's batch: name that source.")
    asked = list(dict.fromkeys(sources or quality.judgeable(lake)))
    lake.contracts.require(asked)
    verdicts, failed = [], []
    with ExitStack() as held:

        def start() -> SparkSession:
            held.enter_context(exclusive(lake, "ingest report"))
            return session(lake.settings)

        locking = Lake(lake.settings, contracts=lake.contracts, start=start)  # a verdict without Spark needs no lock
        for source in asked:
            try:
                verdicts.append(quality.judge(locking, source, batch, engine))
            except OpsError as exc:
                if len(asked) == 1:
                    raise
                failed.append(source)
                typer.echo(f"report  {source:<20} FAILED  {exc}", err=as_json)
                continue
            if not as_json:
                typer.echo(verdict_lines(verdicts[-1]))
    if as_json:
        print_json([{**asdict(verdict), "good": verdict.good} for verdict in verdicts])
    elif not asked:
        typer.echo("report  no batch was committed yet: `lakeops ingest run` takes the first.")
    bad = [verdict.source for verdict in verdicts if not verdict.good]
    told = [f"{len(bad)} of {len(verdicts)} batches are not as expected: {', '.join(bad)}"] if bad else []
    told += [f"{len(failed)} could not be judged: {', '.join(failed)}"] if failed else []
    if told:
        raise OpsError("; ".join(told) + ".")


def refuse_both(approve: int | None, discard: int | None) -> None:
    """One decision at a time."""
    if approve is not None and discard is not None:
        raise ConfigError("Give --approve or --discard, not both.")


def verdict_lines(verdict: Verdict) -> str:
    """A verdict as one line, what does not hold and what is not judged below it."""
    held = verdict.expectations - len(verdict.findings)
    state = "good" if verdict.good else "NOT AS EXPECTED"
    text = (
        f"report  {verdict.source:<20} batch {verdict.batch_id}: {state}, {held} of {verdict.expectations} "
        f"expectations hold, {verdict.rows} rows ({verdict.engine}, {verdict.seconds} s)"
    )
    for finding in verdict.findings:
        text += f"\n        not so: {finding.expected} Found: {finding.found}."
    for what in verdict.not_judged:
        text += f"\n        not judged: {what}"
    return text + (f"\n        {verdict.page}" if verdict.page else "")


def line(result: IngestResult) -> str:
    """A result as one line, what is to be known of it below; names that others chose change nothing on a terminal."""
    return "\n        ".join(map(printable, _told(result)))


def _told(result: IngestResult) -> Iterator[str]:
    if result.error:
        yield row("ingest", result.source, f"{'HALTED' if result.halted else 'FAILED'}  {result.error}")
        return
    if result.batch_id is None:
        yield row("ingest", result.source, "nothing new")
    else:
        told = f"batch {result.batch_id}: {result.files} files, read {result.read} = {result.accepted} accepted"
        told += f" + {result.quarantined} quarantined + {result.ignored} ignored ({result.seconds:.1f} s)"
        yield row("ingest", result.source, told)
    if result.generated:
        yield f"complete snapshot: {result.generated} keys that it lacks are deleted"
    for name, count in result.changes.items():
        yield f"{name}: {count}"
    for name, fault in result.rejected_files.items():
        yield f"file {name} rejected: {fault}"
    if result.extra_columns:
        yield f"columns not in the contract, kept in _extra: {', '.join(result.extra_columns)}"
    for warning in result.warnings:
        yield f"warning: {warning}"
