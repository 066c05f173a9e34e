"""Ledger and tables brought together again after a restore or a loss: the tables' own rows are the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.contracts import Contract
from python_ops.ingest import landing
from python_ops.ingest.landing import LandingFile
from python_ops.ingest.ledger import Ledger, State
from python_ops.ingest.offsets import of_rows as offsets_of_rows
from python_ops.ingest.offsets import parse as parse_offsets
from python_ops.ingest.tables import AppendOnlyTable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def committed_rows(ledger: Ledger) -> int:
    """Rows that bronze should have."""
    return sum(manifest.rows for manifest in ledger.committed)


def find_lost(spark: SparkSession, ledger: Ledger, bronze: AppendOnlyTable, dlq: AppendOnlyTable) -> list[str]:
    """Marks batches that the ledger has as committed and the restored table lacks: their files are new again, their
    dead letters open again.
    """
    if committed_rows(ledger) == bronze.row_count():
        return []
    present = bronze.batches(spark)
    lost = [m for m in ledger.committed if m.rows and m.batch_id not in present]
    for manifest in lost:
        ledger.set_state(manifest, State.LOST)
        if manifest.replays is not None:
            spark.sql(
                f"update {dlq.name} set replayed_batch = null, replayed_at = null"
                f" where replayed_batch = {manifest.batch_id}"
            ).collect()
    numbers = ", ".join(str(m.batch_id) for m in lost)
    return [f"{bronze.name} no longer holds batch {numbers}: what they held is taken again."] if lost else []


def rebuild_ledger(
    spark: SparkSession, ledger: Ledger, folder: Path, contract: Contract, bronze: AppendOnlyTable, dlq: AppendOnlyTable
) -> None:
    """The ledger is gone and the tables are not: their own rows say which files and offsets were taken."""
    rows, dead, positions = bronze.batches(spark), dlq.batches(spark), bronze.positions(spark)
    offsets = offsets_of_rows(bronze.lines(spark, "_file", "_line"), dlq.lines(spark, "file", "line"))
    files: dict[int, set[str]] = {}
    for listed in (bronze.files(spark, "_file"), dlq.files(spark, "file")):
        for batch_id, found in listed.items():
            files.setdefault(batch_id, set()).update(found)
    for batch_id in sorted(files):
        accepted, quarantined = rows.get(batch_id, 0), dead.get(batch_id, 0)
        counts = {"read": accepted + quarantined, "accepted": accepted, "quarantined": quarantined, "ignored": 0}
        known = [
            landing.inspect(folder, name, contract) if (folder / name).exists() else LandingFile(name, 0, "")
            for name in sorted(files[batch_id])
            if parse_offsets(name) is None
        ]
        generation, low, high = positions.get(batch_id, (1, None, None))
        frozen = ledger.freeze(batch_id, contract.version, known, offsets.get(batch_id, ()), generation=generation)
        seen = None if low is None or high is None else (low, high)
        ledger.set_state(frozen, State.COMMITTED, counts=counts, positions=seen)
