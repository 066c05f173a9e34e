"""Figures of a snapshot, for the metrics and for those who ask how old the last one is."""

from __future__ import annotations

from datetime import UTC, datetime

from python_ops.jobs.recovery.last import keep
from python_ops.jobs.recovery.manifest import Snapshot
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import Metric, record


def record_snapshot(lake: Lake, made: Snapshot) -> None:
    """Keeps a snapshot's figures, and adds them to the metrics."""
    figures = {
        "run_seconds": made.seconds,
        "rows": sum(table.rows or 0 for table in made.tables),
        "bytes": made.bytes,
        "bytes_copied": made.copied_bytes + made.copied_log_bytes,
        "files_copied": made.copied_files,
    }
    keep(lake, "snapshot", {"id": made.id, "pinned_at": made.pinned_at, **figures})
    add_metrics(lake, "snapshot create", made.id, figures)


def add_metrics(lake: Lake, subject: str, run: str, figures: dict[str, float]) -> None:
    """Adds figures of a command to the metrics."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record(lake, [Metric(name, "job", subject, float(value), at, run) for name, value in figures.items()])
