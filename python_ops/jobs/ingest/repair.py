"""Corrects the ledger by the tables, without a JVM: by their rows, and the writer's numbers in their logs.

Ingestion does this before each batch, `lakeops watermark repair` on request. A ledger that was
deleted, rolled back, or set ahead by hand does not count against the table. Batches that the table holds and the
ledger does not know are entered again, with their files and with what guards later ones, positions and generation;
batches that the ledger calls committed and the table does not hold are given up, so that their files are taken again.
What no row says is lost: ignored records, how values were changed, decisions on halted batches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.lake.contracts import Contract
from python_ops.lake.delta import open_log, query
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import BatchState
from python_ops.lake.offsets import Offsets, of_rows, parse
from python_ops.lake.rejections import Kind, Rejection, kind_of


class Fault(StrEnum):
    """How a ledger differs from the table."""

    UNKNOWN = "in the table, not in the ledger"
    GONE = "in the ledger, no longer in the table"
    AHEAD = "in the ledger, and beyond what the table ever took"


@dataclass(frozen=True)
class Disagreement:
    """One batch that ledger and tables disagree on.

    Attributes:
        table_number: The writer's highest number in the tables' logs: Delta's transaction identifier.
        files: What it was made of.
        generated: Deletes that a complete snapshot implied.
        positions: Lowest and highest source position.
        rejected: Dead letters by reason and column.
        whole_files: Files that were rejected as a whole, with the reason.
        is_replay: It took dead letters again.
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
    contract_version: str = ""
    generated: int = 0
    positions: tuple[int, int] | None = None
    snapshot_at: str | None = None
    extra_columns: tuple[str, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    whole_files: dict[str, str] = field(default_factory=dict)
    is_replay: bool = False

    def __str__(self) -> str:
        told = f"{self.source}: batch {self.batch_id} is {self.fault.value}"
        return told + (f", whose log knows numbers up to {self.table_number}" if self.fault is Fault.AHEAD else "")


def compare(lake: Lake, contract: Contract) -> list[Disagreement]:
    """What a source's ledger and its tables disagree on. Rows are read only if counts or numbers differ.

    Raises:
        OpsError: a table cannot be read without Spark, or a manifest is none.
    """
    ledger = lake.ledger(contract.source)
    bronze, dlq = (AppendOnlyTable(lake, layer, contract) for layer in ("bronze", "dlq"))
    number = max(bronze.last_number(), dlq.last_number())
    if ledger.committed_rows == bronze.row_count() and number <= ledger.last_number:
        return []
    rows, (dead, replays) = _bronze_batches(bronze), _dead_batches(dlq)
    known = {manifest.batch_id for manifest in ledger.manifests if manifest.state is not BatchState.LOST}
    found = []
    for batch in sorted({*rows, *dead} - known):
        good, bad = rows.get(batch, {}), dead.get(batch, {})
        arrived = max(good.get("arrived_at", ""), bad.get("arrived_at", ""))
        files = tuple(sorted(good.get("files", frozenset()) | bad.get("files", frozenset())))
        told = {"contract_version": "", "quarantined": 0, "accepted": 0, **bad, **good}
        told |= {"files": files, "arrived_at": arrived, "is_replay": batch in replays}
        found.append(Disagreement(contract.source, batch, Fault.UNKNOWN, number, **told))
    for manifest in ledger.committed:
        if manifest.rows and manifest.batch_id not in rows:
            fault = Fault.AHEAD if manifest.batch_id > number else Fault.GONE
            files = tuple(file.name for file in manifest.files)
            counts = manifest.counts
            found.append(
                Disagreement(
                    contract.source, manifest.batch_id, fault, number, files, counts["accepted"],
                    counts["quarantined"], is_replay=manifest.replays is not None,
                )
            )  # fmt: skip
    return sorted(found, key=lambda finding: finding.batch_id)


def repair(lake: Lake, contract: Contract, findings: Sequence[Disagreement]) -> None:
    """Makes the ledger agree with the tables. Call it with the source's tables leased."""
    folder, ledger = lake.landing / contract.source, lake.ledger(contract.source)
    offsets = _offsets(lake, contract) if any(parse(name) for f in findings for name in f.files) else {}
    for finding in findings:
        if finding.fault is not Fault.UNKNOWN:
            (manifest,) = [m for m in ledger.manifests if m.batch_id == finding.batch_id]
            ledger.set_state(manifest, BatchState.LOST)
            continue
        files = [_file(folder, name, contract, finding) for name in finding.files if parse(name) is None]
        counts = {
            "read": finding.accepted + finding.quarantined, "accepted": finding.accepted,
            "quarantined": finding.quarantined, "ignored": 0,
            **({"generated": finding.generated} if finding.generated else {}),
        }  # fmt: skip
        given: dict[str, Any] = {"generation": finding.generation, "snapshot_at": finding.snapshot_at}
        if finding.is_replay:
            given["replays"] = {"version": None, "batches": []}
        taken = offsets.get(finding.batch_id, ())
        version = finding.contract_version or contract.version
        frozen = ledger.freeze(finding.batch_id, version, files, taken, **given)
        changes: dict[str, Any] = {"arrived_at": finding.arrived_at} if finding.arrived_at else {}
        ledger.set_state(
            frozen, BatchState.COMMITTED, counts=counts, positions=finding.positions, rejected=finding.rejected,
            extra_columns=finding.extra_columns, **changes,
        )  # fmt: skip


def _file(folder: Path, name: str, contract: Contract, finding: Disagreement) -> LandingFile:
    """A file as it is now; one that was rejected as a whole keeps its reason."""
    found = inspect(folder, name, contract) if (folder / name).exists() else LandingFile(name, 0, "")
    return replace(found, fault=finding.whole_files.get(name))


def _offsets(lake: Lake, contract: Contract) -> dict[int, tuple[Offsets, ...]]:
    """Which records of a topic each batch of the tables holds."""
    found = []
    for layer, file, line in (("bronze", "_file", "_line"), ("dlq", "file", "line")):
        table = AppendOnlyTable(lake, layer, contract)
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


def _bronze_batches(table: AppendOnlyTable) -> dict[int, dict[str, Any]]:
    """What bronze says of each batch: attributes of Finding."""
    if not table.exists():
        return {}
    names = {column.name for column in open_log(table.path).schema().fields}

    def told(column: str, sql: str) -> str:
        return sql if column in names else "null"

    implied = "_op = 'd' and _line = 0" if {"_op", "_line"} <= names else "false"
    snapshot = f"max(case when {implied} then _source_ts end)"
    sql = (
        "select _batch_id, count(*) as n, array_agg(distinct _file) as files, max(_arrived_at) as arrived,"
        f" count(case when {implied} then 1 end) as generated,"
        f" {told('_source_generation', 'max(_source_generation)')} as generation,"
        f" {told('_source_lsn', 'min(_source_lsn)')} as low, {told('_source_lsn', 'max(_source_lsn)')} as high,"
        f" {told('_source_ts', snapshot)} as snapshot_at,"
        f" {told('_contract_version', 'max(_contract_version)')} as version from t group by _batch_id"
    )
    extra: dict[int, set[str]] = {}
    if "_extra" in names:
        for row in query(table.path, "select _batch_id, _extra from t where _extra is not null").to_pylist():
            extra.setdefault(int(row["_batch_id"]), set()).update(json.loads(row["_extra"]))
    return {
        int(row["_batch_id"]): {
            "accepted": int(row["n"]) - int(row["generated"]),
            "generated": int(row["generated"]),
            "files": frozenset(name for name in row["files"] or () if name),
            "arrived_at": _utc(row["arrived"]) or "",
            "generation": int(row["generation"] or 1),
            "positions": None if row["low"] is None else (int(row["low"]), int(row["high"])),
            "snapshot_at": _utc(row["snapshot_at"]),
            "contract_version": row["version"] or "",
            "extra_columns": tuple(sorted(extra.get(int(row["_batch_id"]), ()))),
        }
        for row in query(table.path, sql).to_pylist()
    }


def _dead_batches(table: AppendOnlyTable) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """What the dead letters say of each batch, as attributes of Finding, and which batches were replays."""
    if not table.exists():
        return {}, set()
    names = {column.name for column in open_log(table.path).schema().fields}
    line, kind, reason, column, version, replayed = (
        f'"{name}"' if name in names else "null"
        for name in ("line", "kind", "reason", "column", "contract_version", "replayed_batch")
    )
    sql = (
        f'select _batch_id, "file", {kind} as kind, {reason} as reason, {column} as col, {line} is null as whole,'
        f" {replayed} as again,"
        f" max({version}) as version, max(arrived_at) as arrived, count(*) as n from t"
        " group by 1, 2, 3, 4, 5, 6, 7"
    )
    found: dict[int, dict[str, Any]] = {}
    replays = set()
    for row in query(table.path, sql).to_pylist():
        if row["again"] is not None:
            replays.add(int(row["again"]))
        batch = found.setdefault(int(row["_batch_id"]), {"quarantined": 0, "rejected": (), "whole_files": {}})
        batch["files"] = batch.get("files", frozenset()) | {row["file"]}
        batch["arrived_at"] = max(batch.get("arrived_at", ""), _utc(row["arrived"]) or "")
        batch["contract_version"] = row["version"] or ""
        if row["whole"] and "line" in names:
            batch["whole_files"][row["file"]] = row["reason"]
            continue
        batch["quarantined"] += int(row["n"])
        if row["reason"]:
            kind_given = Kind(row["kind"]) if row["kind"] else kind_of(row["reason"])
            batch["rejected"] += (Rejection(kind_given, row["reason"], row["col"], int(row["n"])),)
    return found, replays


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")
