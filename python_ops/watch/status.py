"""What was taken, built and published, read from ledgers, without a JVM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.jobs.maintenance.versions import unreadable
from python_ops.jobs.publish.target import Served
from python_ops.jobs.publish.warehouses import warehouse
from python_ops.lake import landing
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import BatchState
from python_ops.lake.run_record import last_run
from python_ops.watch.quality.verdicts import read as read_verdict


@dataclass(frozen=True)
class SourceStatus:
    """What was taken from a source, in rows, and what waits, in files.

    Attributes:
        last_verdict: `lakeops ingest report` on the last batch; None when it was not judged.
        left_outside: What lies in the landing folder and is never taken, with the reason.
    """

    source: str
    batches: int
    accepted: int
    quarantined: int
    last_batch_at: str | None
    waiting_files: int
    unfinished: bool
    last_verdict: str | None = None
    halted: int | None = None
    halted_by: str | None = None
    left_outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """The lakehouse at a glance.

    Attributes:
        published: What each warehouse's ledger says, by warehouse and table.
        unreachable: Why a warehouse could not be asked, by warehouse.
        unreadable: What is missing of tables that cannot be read, by table. `lakeops doctor` looks into files too.
    """

    home: str
    last_run: dict[str, Any] | None
    sources: list[SourceStatus]
    published: dict[str, dict[str, Served]]
    unreachable: dict[str, str]
    unreadable: dict[str, str]


def source_status(lake: Lake, source: str) -> SourceStatus:
    """One source's ledger and landing folder."""
    ledger, folder, contract = lake.ledger(source), lake.landing / source, lake.contracts.load(source)
    done = [manifest for manifest in ledger.manifests if manifest.state is BatchState.COMMITTED]
    return SourceStatus(
        source=source,
        batches=len(done),
        accepted=sum(manifest.counts["accepted"] for manifest in done),
        quarantined=sum(manifest.counts["quarantined"] for manifest in done),
        last_batch_at=done[-1].arrived_at if done else None,
        waiting_files=len(set(landing.names(folder, contract)) - ledger.taken().keys()),
        unfinished=ledger.open_batch is not None,
        last_verdict=_verdict(lake, source, done[-1].batch_id) if done else None,
        halted=ledger.halted.batch_id if ledger.halted else None,
        halted_by=ledger.halted.halted_by if ledger.halted else None,
        left_outside=tuple(landing.left_outside(folder, contract)),
    )


def _verdict(lake: Lake, source: str, batch: int) -> str | None:
    found = read_verdict(lake, source, batch)
    if found is None:
        return None
    return "good" if found.good else f"{len(found.findings)} of {found.expectations} expectations do not hold"


@dataclass(frozen=True)
class TakenSoFar:
    """A source's highest committed batch, by its ledger and by the writer's number in the tables' logs."""

    source: str
    ledger_batch: int
    table_batch: int


def ingestion_progress(lake: Lake) -> list[TakenSoFar]:
    """How far each source was ingested. Starts no JVM."""
    found = []
    for source in lake.contracts.sources:
        contract = lake.contracts.load(source)
        done = [m.batch_id for m in lake.ledger(source).committed]
        tables = [AppendOnlyTable(lake, layer, contract) for layer in ("bronze", "dlq")]
        found.append(TakenSoFar(source, max(done, default=0), max(table.last_number() for table in tables)))
    return found


def status(lake: Lake) -> Status:
    """Sources, the last run, tables that cannot be read, and what is served."""
    published: dict[str, dict[str, Served]] = {}
    unreachable: dict[str, str] = {}
    for name in lake.settings.publish:
        try:
            published[name] = warehouse(lake, name).served()
        except OpsError as exc:
            unreachable[name] = str(exc)
    try:
        lacking = unreadable(lake, lake.manifest())
    except OpsError:  # nothing was ever built
        lacking = {}
    return Status(
        home=str(lake.home),
        last_run=last_run(lake),
        sources=[source_status(lake, source) for source in lake.contracts.sources],
        published=published,
        unreachable=unreachable,
        unreadable=lacking,
    )
