"""`lakeops ingest`: landing files to bronze and the dead-letter queue."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from python_ops.cli import AsJson, Env, Environment, print_json, settings_for
from python_ops.contracts import load
from python_ops.contracts import sources as known_sources
from python_ops.errors import OpsError
from python_ops.ingest import IngestResult
from python_ops.ingest import ingest as run_ingest
from python_ops.ingest.landing import names
from python_ops.ingest.ledger import Ledger, State
from python_ops.lock import exclusive
from python_ops.spark import session

app = typer.Typer(help="Landing files to bronze, checked against contracts.", no_args_is_help=True)


@app.command()
def run(
    sources: Annotated[list[str] | None, typer.Argument(help="Sources; all when none is named.")] = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Take the new files of LAKEHOUSE_HOME/landing/<source>/ in name order, one batch per source.

    Example: lakeops ingest run shop_orders shop_order_items
    """
    settings = settings_for(env)
    with exclusive(settings, "ingest run"):
        results = run_ingest(
            settings, lambda: session(settings), sources or (), None if as_json else lambda r: typer.echo(line(r))
        )
    if as_json:
        print_json(results)
    if failed := [result.source for result in results if result.error]:
        raise OpsError(f"{len(failed)} of {len(results)} sources failed: {', '.join(failed)}. The others are done.")


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show what was taken from each source, and what waits.

    Example: lakeops ingest status --json
    """
    settings = settings_for(env)
    shown: list[dict[str, Any]] = []
    for source in known_sources():
        ledger = Ledger(settings.state / "ingest", source)
        done = [m for m in ledger.manifests if m.state is State.COMMITTED]
        waiting = [name for name in names(settings.landing / source) if name not in ledger.taken()]
        shown.append(
            {
                "source": source,
                "contract_version": load(source).version,
                "batches": len(done),
                "accepted": sum(m.counts["accepted"] for m in done),
                "quarantined": sum(m.counts["quarantined"] for m in done),
                "last_batch_at": done[-1].arrived_at if done else None,
                "waiting_files": waiting,
                "unfinished_batch": ledger.open_batch.batch_id if ledger.open_batch else None,
            }
        )
    if as_json:
        print_json(shown)
        return
    for row in shown:
        unfinished = f", batch {row['unfinished_batch']} unfinished" if row["unfinished_batch"] else ""
        typer.echo(
            f"{row['source']:<20} {row['batches']:>4} batches {row['accepted']:>9} rows "
            f"{row['quarantined']:>6} rejected {len(row['waiting_files']):>4} files waiting{unfinished}"
        )


def line(result: IngestResult) -> str:
    """A result as one line, warnings below it."""
    if result.error:
        return f"ingest  {result.source:<20} FAILED  {result.error}"
    if result.batch_id is None:
        text = f"ingest  {result.source:<20} nothing new"
    else:
        text = (
            f"ingest  {result.source:<20} batch {result.batch_id}: {result.files} files, read {result.read} = "
            f"{result.accepted} accepted + {result.quarantined} quarantined + {result.ignored} ignored"
        )
    for name, fault in result.rejected_files.items():
        text += f"\n        file {name} rejected: {fault}"
    if result.extra_columns:
        text += f"\n        columns not in the contract, kept in _extra: {', '.join(result.extra_columns)}"
    return text + "".join(f"\n        warning: {warning}" for warning in result.warnings)
