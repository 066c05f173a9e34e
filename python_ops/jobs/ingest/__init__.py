"""Landing files to bronze: one batch per source and run, checked against the contract, rejected records kept.

A manifest says what a batch is before it is read. Dead letters are appended first, then the good rows, each in one
commit that carries the batch number. The manifest is closed when the rows are in the tables. So a run that is
killed anywhere is finished by the next one; nothing is lost, and nothing is taken twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.jobs.ingest import generations
from python_ops.jobs.ingest.batch import BatchWriter, halt_text
from python_ops.jobs.ingest.batch_checks import fingerprint
from python_ops.jobs.ingest.dead_letters import finish as finish_replay
from python_ops.jobs.ingest.formats import format_of
from python_ops.jobs.ingest.reading import session_for_files
from python_ops.jobs.ingest.reasons import reason_of
from python_ops.jobs.ingest.result import IngestResult
from python_ops.jobs.ingest.tables import AppendOnlyTable, tables_of
from python_ops.lake import landing
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch, BatchState
from python_ops.lake.lineage import Dataset, JobRun, current_run, job_run
from python_ops.lake.lock import leased

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["IngestResult", "discard", "has_new_files", "ingest", "replaced"]


def has_new_files(lake: Lake, source: str) -> bool:
    """Whether a run would find something to do for the source, or to complain about. Starts no JVM."""
    contract, ledger = lake.contracts.load(source), lake.ledger(source)
    table = AppendOnlyTable(lake, "bronze", contract)
    return (
        ledger.open_batch is not None
        or ledger.halted is not None
        or bool(set(landing.names(lake.landing / source, contract)) - ledger.taken().keys())
        or not (ledger.manifests or table.exists())  # dbt reads every source's table, also before its first delivery
        or ledger.committed_rows != table.row_count()
    )


def ingest(
    lake: Lake,
    sources: Sequence[str] = (),
    on_event: Callable[[IngestResult], None] | None = None,
    approve: int | None = None,
    on_start: Callable[[str], None] | None = None,
) -> list[IngestResult]:
    """Takes the new landing files of each source: one batch per source, and one for each complete snapshot.

    Args:
        sources: Names; all that have a contract when empty.
        on_event: Called with each source's result as it comes.
        on_start: Called with the name of a source that has new files when it is their turn; two run side by side.
        approve: Number of a halted or discarded batch of the one source, which is to be taken after all.

    Returns:
        One result per source, in the order asked for. A source that failed has `error`; the others proceed.

    Raises:
        ConfigError: a source is unknown, a contract is not valid, or there is no such batch to approve.
    """
    asked = tuple(dict.fromkeys(sources)) or lake.contracts.sources
    lake.contracts.require(asked)
    contracts = [lake.contracts.load(name) for name in asked]
    if approve is not None:
        _waiting(lake, asked, approve, BatchState.HALTED, BatchState.DISCARDED)
    results: dict[str, IngestResult] = {}
    waiting = []
    for contract in contracts:
        try:
            halted = None if approve is not None else _still_halted(lake, contract)
            if halted is not None:
                results[contract.source] = halted
            elif approve is not None or has_new_files(lake, contract.source):
                waiting.append(contract)
                continue
            else:
                results[contract.source] = IngestResult(contract.source, warnings=_replaced(lake, contract))
        except OpsError as exc:
            results[contract.source] = IngestResult(contract.source, error=exc)
        except Exception as exc:  # one source never stops the others, whatever happened to it
            results[contract.source] = _failed(lake, contract, exc)
        if on_event:
            on_event(results[contract.source])
    if waiting:
        session = session_for_files(lake)
        # Small batches are bound by the latency of Spark's jobs, not by the cores.
        with ThreadPoolExecutor(max_workers=2) as pool:
            parent = current_run()

            def take(contract: Contract) -> IngestResult:
                if on_start:
                    on_start(contract.source)
                began = time.monotonic()
                result = _ingest_safely(lake, session, contract, parent, approve)
                return replace(result, seconds=round(time.monotonic() - began, 1))

            for result in pool.map(take, waiting):
                results[result.source] = result
                if on_event:
                    on_event(result)
    return [results[name] for name in asked]


def replaced(lake: Lake) -> list[IngestResult]:
    """Sources of which a taken file was replaced, each with the warnings. Starts no JVM."""
    found = [IngestResult(name, warnings=_replaced(lake, lake.contracts.load(name))) for name in lake.contracts.sources]
    return [result for result in found if result.warnings]


def _ingest_safely(
    lake: Lake, spark: SparkSession, contract: Contract, parent: JobRun | None = None,
    approve: int | None = None,
) -> IngestResult:  # fmt: skip
    delivered = Dataset(f"landing/{contract.source}", (lake.landing / contract.source).as_uri())
    try:
        with job_run(lake, f"ingest.{contract.source}", [delivered], parent=parent) as run:
            with leased(lake, tables_of(lake, contract), f"ingest {contract.source}"):
                batch = BatchWriter(lake, spark, contract)
                batch.told += batch.prepare()
                if (left := batch.ledger.open_batch) and left.replays is not None:
                    finish_replay(batch, left)
                result = batch.run(approve)
            result = replace(result, warnings=(*_replaced(lake, contract), *result.warnings))
            run.outputs = [
                Dataset(table.name, table.path.as_uri(), columns, rows=rows)
                for table, columns, rows in (
                    (
                        batch.bronze,
                        tuple((c.name, c.type) for c in batch.bronze.columns),
                        result.accepted + result.generated,
                    ),
                    (batch.dlq, (), result.quarantined + len(result.rejected_files)),
                )
            ]
        return result
    except OpsError as exc:
        return IngestResult(contract.source, error=exc)
    except Exception as exc:  # one source never stops the others, whatever happened to it
        return _failed(lake, contract, exc)


def _failed(lake: Lake, contract: Contract, error: Exception) -> IngestResult:
    """The message of an unexpected failure."""
    is_told = isinstance(error, OSError) or type(error).__module__.startswith(("py4j", "pyspark"))
    name = "" if is_told else f"{type(error).__name__}: "
    failure = OpsError(
        f"{contract.source}: {name}{reason_of(error)}. The batch is not finished: run again to finish it. If it "
        f"fails again, {lake.workspace / 'logs' / 'spark.log'} has the details; the other sources go on."
    )
    return IngestResult(contract.source, error=failure)


def discard(lake: Lake, sources: Sequence[str], number: int) -> None:
    """Gives up a halted batch. Its files stay where they are and are never taken; the source goes on.

    Raises:
        ConfigError: not one source is named, or it has no such halted batch.
    """
    manifest = _waiting(lake, sources, number, BatchState.HALTED)
    lake.ledger(manifest.source).set_state(manifest, BatchState.DISCARDED)


def _waiting(lake: Lake, sources: Sequence[str], number: int, *states: BatchState) -> Batch:
    if len(sources) != 1:
        raise ConfigError("Name the one source whose batch is decided on.")
    lake.contracts.require(sources)
    for manifest in lake.ledger(sources[0]).manifests:
        if manifest.batch_id == number and manifest.state in states:
            return manifest
    raise ConfigError(f"{sources[0]} has no halted batch {number}. `lakeops ingest status` names the batch that waits.")


def _still_halted(lake: Lake, contract: Contract) -> IngestResult | None:
    """The halted batch of a source, as long as neither its contract nor its generation has changed."""
    ledger = lake.ledger(contract.source)
    halted = ledger.halted
    if halted is None or ledger.open_batch is not None:
        return None
    if halted.judged_by != fingerprint(contract, generations.current(lake, ledger).number):
        return None
    text = halt_text(contract.source, halted, halted.halted_by or "")
    return IngestResult(contract.source, error=OpsError(text), halted=halted.batch_id)


def _replaced(lake: Lake, contract: Contract) -> tuple[str, ...]:
    """Taken files that were replaced (only files written since are read again), and names in the folder that are never
    taken.
    """
    folder: Path = lake.landing / contract.source
    ledger = lake.ledger(contract.source)
    frozen_at = {f.name: datetime.fromisoformat(m.arrived_at).timestamp() for m in ledger.manifests for f in m.files}
    taken, there = ledger.taken(), landing.names(folder, contract)
    known = {name: taken[name] for name in there if name in taken and taken[name].sha256}
    changed = landing.replaced(folder, known, frozen_at)
    told = (
        f"{folder / name} was replaced after it was taken; what it holds now is not read. "
        + _how_to_deliver(contract, name)
        for name in changed
    )
    return (*told, *landing.left_outside(folder, contract))


def _how_to_deliver(contract: Contract, name: str) -> str:
    """What to do with a file whose name was taken before."""
    if not format_of(contract).is_full_load(name):
        return "Deliver it under a new name."
    return (
        f"A repeated full load has the old names: `lakeops ingest generation {contract.source} --new --execute`, and "
        "put its files into a folder that is named by the day, as 20250401/ (docs/guides/dms.md)."
    )
