"""`lakeops watermark`: how far sources were extracted and ingested."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, Source, Sources, lake_of, print_json, say_if_planned
from python_ops.cli.tables import print_rows
from python_ops.jobs.ingest.repair import Disagreement, Fault, compare
from python_ops.jobs.ingest.repair import repair as repair_ledger
from python_ops.lake.errors import ConfigError
from python_ops.lake.lock import exclusive, leased
from python_ops.lake.rejections import by_text
from python_ops.lake.state.watermarks import Watermark, advance, read
from python_ops.watch.status import TakenSoFar, ingestion_progress

app = typer.Typer(help="How far sources were extracted and ingested.", no_args_is_help=True)


@dataclass(frozen=True)
class WatermarkChange:
    """What `set` and `reset` do, or would do."""

    source: str
    before: Watermark | None
    after: Watermark | None
    executed: bool


@app.command("list")
def list_(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """List the watermarks of extraction, and of each source the last batch by ledger and by table.

    Example: lakeops watermark list
    """
    lake = lake_of(env)
    store = lake.store
    marks = {source: read(store, source)[0] for source in store.names("watermark")}
    batches = ingestion_progress(lake)
    if as_json:
        print_json({"extraction": marks, "ingestion": batches})
        return
    shown: list[list[Any]] = [
        [b.source, b.ledger_batch, b.table_batch, _verdict(b), _text(marks.pop(b.source, None))] for b in batches
    ]
    shown += [[source, None, None, "extraction only", _text(mark)] for source, mark in marks.items()]
    print_rows(["source", "batch in ledger", "batch in bronze", "state", "extracted up to"], shown)


@app.command()
def get(source: Source, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show one source's watermark of extraction.

    Example: lakeops watermark get snowflake_orders
    """
    mark, _ = read(lake_of(env).store, source)
    if mark is None:
        raise ConfigError(f"{source} has no watermark: its first extraction takes everything.")
    if as_json:
        print_json(mark)
    else:
        typer.echo(_text(mark))


@app.command("set")
def set_(
    source: Source,
    at: Annotated[str, typer.Argument(help="ISO 8601 time with its zone.")],
    key: Annotated[str, typer.Option("--key", help="Key of the last row at that time.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Allow to set it back.")] = False,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Set a source's watermark. Rows before it that were not extracted yet are skipped for good.

    Example: lakeops watermark set snowflake_orders 2025-03-01T00:00:00Z --execute
    """
    store = lake_of(env).store
    before, revision = read(store, source)
    after = Watermark(at, key)
    if execute:
        advance(store, source, after, revision, force)
    _show(WatermarkChange(source, before, after, execute), as_json)


@app.command()
def reset(source: Source, execute: Execute = False, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Forget a source's watermark. Its next extraction takes everything; the engine drops repeated rows.

    Example: lakeops watermark reset snowflake_orders --execute
    """
    store = lake_of(env).store
    before, revision = read(store, source)
    if before is None:
        raise ConfigError(f"{source} has no watermark.")
    if execute:
        store.delete("watermark", source, revision)
    _show(WatermarkChange(source, before, None, execute), as_json)


@app.command()
def repair(
    sources: Sources = None,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Correct ingestion's ledgers by what the tables and their logs hold. Starts no JVM.

    Example: lakeops watermark repair shop_orders --execute
    """
    lake = lake_of(env)
    asked = sources or list(lake.contracts.sources)
    lake.contracts.require(asked)
    found: list[Disagreement] = []
    with exclusive(lake, "watermark repair", names=()) if execute else nullcontext():
        for contract in map(lake.contracts.load, asked):
            tables = [f"{lake.schema_name(layer)}.{contract.source}" for layer in ("bronze", "dlq")]
            with leased(lake, tables if execute else [], "lakeops watermark repair"):
                findings = compare(lake, contract)
                if execute:
                    repair_ledger(lake, contract, findings)
            found += findings
    if as_json:
        print_json([{**asdict(f), "reasons": by_text(f.rejected), "executed": execute} for f in found])
        return
    for finding in found:
        then = "entered again" if finding.fault is Fault.UNKNOWN else "given up; its files are taken again"
        typer.echo(f"{finding}: {'' if execute else 'would be '}{then}")
    if not found:
        typer.echo("Ledgers and tables agree.")
    else:
        say_if_planned(execute)


def _show(change: WatermarkChange, as_json: bool) -> None:
    if as_json:
        print_json(asdict(change))
        return
    done = "is" if change.executed else "would be"
    typer.echo(f"{change.source}: {_text(change.before)} {done} replaced by {_text(change.after)}")
    say_if_planned(change.executed)


def _verdict(batch: TakenSoFar) -> str:
    if batch.ledger_batch > batch.table_batch:
        return f"ledger ahead, {batch.ledger_batch} of {batch.table_batch}: `lakeops watermark repair`"
    if batch.ledger_batch < batch.table_batch:
        return f"ledger behind, {batch.ledger_batch} of {batch.table_batch}: `lakeops watermark repair`"
    return "agree"


def _text(mark: Watermark | None) -> str:
    return f"{mark.at} {mark.key}".strip() if mark else "nothing"
