"""`lakeops stream`: topics of Kafka to bronze."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.cli.ingest import Approve, Discard, refuse_both
from python_ops.jobs.ingest import IngestResult
from python_ops.jobs.ingest import discard as discard_batch
from python_ops.jobs.ingest.streaming import Applied, Options, StreamResult, checked, lag, stream
from python_ops.lake.errors import OpsError
from python_ops.lake.lock import exclusive
from python_ops.run.stream import models_behind

app = typer.Typer(help="Take Kafka topics into bronze, checked against contracts.", no_args_is_help=True)

Sources = Annotated[list[str] | None, typer.Argument(help="Sources; all that have a topic when none is named.")]


@app.command()
def run(
    sources: Sources = None,
    once: Annotated[
        bool, typer.Option("--once", "--available-now", help="Take what the topics hold now, and end.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so many seconds; by default never.")] = None,
    apply: Annotated[
        float | None, typer.Option(min=0, help="Run the dbt models that read the sources every so many seconds.")
    ] = None,
    every: Annotated[float, typer.Option(min=0, help="Seconds between the beginnings of two micro-batches.")] = 10.0,
    max_records: Annotated[int, typer.Option(min=1, help="Most records of one micro-batch.")] = 100_000,
    skip_lost: Annotated[
        bool, typer.Option("--skip-lost", help="Go on after records that the topic dropped before they were taken.")
    ] = False,
    approve: Approve = None,
    discard: Discard = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Take the records of Kafka topics into bronze, each exactly once.

    SIGTERM or Ctrl-C ends it after the current batch or run of models; a second one ends it at once.

    Example: lakeops stream run kafka_events --apply 60
    """
    lake = lake_of(env)
    refuse_both(approve, discard)
    asked = checked(lake, sources or ())
    stop = _stop_on_signals()
    options = Options(once, every, max_records, skip_lost, approve)
    with exclusive(lake, "stream run", names=()):  # the tables are leased while they are written
        if discard is not None:
            discard_batch(lake, sources or (), discard)
        models = models_behind(lake, asked, apply) if apply is not None else None
        results, applied = stream(
            lake,
            asked,
            options,
            lambda what: None if as_json else typer.echo(line(what)),
            stop,
            seconds,
            models,
        )
    if as_json:
        print_json({"sources": results, "applied": applied})
    if failed := [result.source for result in results if result.error]:
        raise OpsError(f"{len(failed)} of {len(results)} streams failed: {', '.join(failed)}. Run again to go on.")
    if applied and applied.error:
        raise OpsError(
            f"The models were not applied: {applied.error} What was taken is in bronze; `lakeops run` goes on."
        )


@app.command()
def status(sources: Sources = None, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show how far each partition was taken, and how many records wait.

    Example: lakeops stream status shop_orders --json
    """
    shown = lag(lake_of(env), sources or ())
    if as_json:
        print_json(shown)
        return
    for row in shown:
        taken = "nothing" if row.taken is None else f"{row.taken}"
        typer.echo(f"{row.source:<20} {row.topic}/{row.partition}: taken {taken} of {row.end}, {row.waiting} waiting")


def _stop_on_signals() -> threading.Event:
    """Set by the first SIGTERM or Ctrl-C; the second interrupts."""
    stop = threading.Event()

    def asked(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, asked)
    return stop


def line(what: IngestResult | Applied | StreamResult) -> str:
    """What happened, as one line, warnings below it."""
    if isinstance(what, Applied):
        told = f"FAILED  {what.error}" if what.error else f"{len(what.models)} models in {what.seconds} s"
        return f"apply   {told}"
    counts = f"read {what.read} = {what.accepted} accepted + {what.quarantined} quarantined + {what.ignored} ignored"
    if isinstance(what, IngestResult):
        text = f"stream  {what.source:<20} batch {what.batch_id}: {counts}"
        return text + "".join(f"\n        warning: {warning}" for warning in what.warnings)
    offsets = ", ".join(f"{partition}: {offset}" for partition, offset in sorted((what.offsets or {}).items()))
    text = (
        f"ended   {what.source:<20} {what.batches} batches, {counts}; next offsets of {what.topic} {offsets or 'none'}"
    )
    text += "".join(f"\n        warning: {warning}" for warning in what.warnings)
    return text + (f"\n        FAILED  {what.error}" if what.error else "")
