"""The ledger brought back to what the tables say, without a JVM: their rows and the writer's numbers in their logs.

A ledger that was deleted, rolled back, or pushed ahead by hand is never believed against the table. Batches that the
table holds and the ledger does not know are entered again with their files, so that these are not taken twice; batches
that the ledger calls committed and the table does not hold are given up, so that their files are taken again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import Any

from python_ops.config import Settings
from python_ops.contracts import Contract
from python_ops.delta import open_log, query
from python_ops.ingest import landing
from python_ops.ingest.landing import LandingFile
from python_ops.ingest.ledger import Ledger, State
from python_ops.ingest.offsets import Offsets, of_rows, parse
from python_ops.ingest.tables import AppendOnlyTable


class Fault(StrEnum):
    """How a ledger differs from the table."""

    UNKNOWN = "in the table, not in the ledger"
    GONE = "in the ledger, no longer in the table"
    AHEAD = "in the ledger, and beyond what the table ever took"


@dataclass(frozen=True)
class Finding:
    """One batch that ledger and tables disagree on.

    Attributes:
        table_number: The writer's highest number in the tables' logs: Delta's transaction identifier.
        files: What it was made of.
    """

    source: str
    batch_id: int
    fault: Fault
    table_number: int
    files: tuple[str, ...]
    accepted: int
    quarantined: int
    arrived_at: str = ""
    generation: int = 1

    def __str__(self) -> str:
        told = f"{self.source}: batch {self.batch_id} is {self.fault.value}"
        return told + (f", whose log knows numbers up to {self.table_number}" if self.fault is Fault.AHEAD else "")


def compare(settings: Settings, contract: Contract) -> list[Finding]:
    """What a source's ledger and its tables disagree on; reads rows only where counts or numbers differ.

    Raises:
        OpsError: a table cannot be read without Spark, or a manifest is none.
    """
    ledger = Ledger(settings.state / "ingest", contract.source)
    bronze, dlq = (AppendOnlyTable(settings, layer, contract) for layer in ("bronze", "dlq"))
    committed = {m.batch_id: m for m in ledger.manifests if m.state is State.COMMITTED}
    expected = sum(manifest.rows for manifest in committed.values())
    number = max(bronze.last_number(), dlq.last_number())
    if expected == bronze.row_count() and number <= ledger.last_number:
        return []
    rows, dead = _batches(bronze, "_file", "_arrived_at"), _batches(dlq, "file", "arrived_at")
    known = {manifest.batch_id for manifest in ledger.manifests if manifest.state is not State.LOST}
    found = []
    for batch in sorted({*rows, *dead} - known):
        good, bad = rows.get(batch, _Rows()), dead.get(batch, _Rows())
        files = tuple(sorted(good.files | bad.files))
        arrived = max(good.arrived_at, bad.arrived_at)
        found.append(
            Finding(
                contract.source, batch, Fault.UNKNOWN, number, files, good.count, bad.count, arrived, good.generation
            )
        )
    for batch, manifest in committed.items():
        if manifest.rows and batch not in rows:
            fault = Fault.AHEAD if batch > number else Fault.GONE
            files = tuple(file.name for file in manifest.files)
            counts = manifest.counts
            found.append(
                Finding(contract.source, batch, fault, number, files, counts["accepted"], counts["quarantined"])
            )
    return sorted(found, key=lambda finding: finding.batch_id)


def repair(settings: Settings, contract: Contract, findings: Sequence[Finding]) -> None:
    """Makes the ledger say what the tables say. Call it with the source's tables leased."""
    folder, ledger = settings.landing / contract.source, Ledger(settings.state / "ingest", contract.source)
    offsets = _offsets(settings, contract) if any(parse(name) for f in findings for name in f.files) else {}
    for finding in findings:
        if finding.fault is not Fault.UNKNOWN:
            (manifest,) = [m for m in ledger.manifests if m.batch_id == finding.batch_id]
            ledger.set_state(manifest, State.LOST)
            continue
        files = [
            landing.inspect(folder, name, contract) if (folder / name).exists() else LandingFile(name, 0, "")
            for name in finding.files
            if parse(name) is None
        ]
        read = finding.accepted + finding.quarantined
        counts = {"read": read, "accepted": finding.accepted, "quarantined": finding.quarantined, "ignored": 0}
        changes: dict[str, Any] = {"arrived_at": finding.arrived_at} if finding.arrived_at else {}
        taken = offsets.get(finding.batch_id, ())
        frozen = ledger.freeze(finding.batch_id, contract.version, files, taken, generation=finding.generation)
        ledger.set_state(frozen, State.COMMITTED, counts=counts, **changes)


def _offsets(settings: Settings, contract: Contract) -> dict[int, tuple[Offsets, ...]]:
    """Which records of a topic each batch of the tables holds."""
    found = []
    for layer, file, line in (("bronze", "_file", "_line"), ("dlq", "file", "line")):
        table = AppendOnlyTable(settings, layer, contract)
        lines: dict[int, dict[str, tuple[int, int]]] = {}
        if table.exists():
            sql = (
                f'select _batch_id, "{file}" as file, min("{line}") as low, max("{line}") as high from t'
                f' where "{line}" is not null group by _batch_id, "{file}"'
            )
            for row in query(table.path, sql).to_pylist():
                lines.setdefault(int(row["_batch_id"]), {})[row["file"]] = (int(row["low"]), int(row["high"]))
        found.append(lines)
    return of_rows(*found)


@dataclass
class _Rows:
    """What a table holds of one batch."""

    count: int = 0
    files: frozenset[str] = frozenset()
    arrived_at: str = ""
    generation: int = 1


def _batches(table: AppendOnlyTable, file: str, arrived: str) -> dict[int, _Rows]:
    if not table.exists():
        return {}
    has_generation = any(field.name == "_source_generation" for field in open_log(table.path).schema().fields)
    sql = (
        f"select _batch_id, count({file}) as n, array_agg(distinct {file}) as files, max({arrived}) as arrived, "
        f"{'max(_source_generation)' if has_generation else '1'} as generation from t group by _batch_id"
    )
    return {
        int(row["_batch_id"]): _Rows(
            int(row["n"]),
            frozenset(name for name in row["files"] or () if name),
            row["arrived"].astimezone(UTC).isoformat(timespec="microseconds") if row["arrived"] else "",
            int(row["generation"] or 1),
        )
        for row in query(table.path, sql).to_pylist()
    }
