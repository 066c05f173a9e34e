"""Figures of snapshots and drills, for the metrics and for those who ask how old the last one is."""

from __future__ import annotations

from datetime import UTC, datetime

from python_ops.config import Settings
from python_ops.metrics import Metric, record
from python_ops.recovery.drill import Drill
from python_ops.recovery.last import keep
from python_ops.recovery.manifest import Snapshot


def record_snapshot(settings: Settings, made: Snapshot) -> None:
    """Keeps a snapshot's figures, and adds them to the metrics."""
    figures = {
        "run_seconds": made.seconds,
        "rows": sum(table.rows or 0 for table in made.tables),
        "bytes": made.bytes,
        "bytes_copied": made.copied_bytes + made.copied_log_bytes,
        "files_copied": made.copied_files,
    }
    keep(settings, "snapshot", {"id": made.id, "pinned_at": made.pinned_at, **figures})
    _record(settings, "snapshot create", made.id, figures)


def record_drill(settings: Settings, done: Drill) -> None:
    """Keeps a drill's figures, and adds them to the metrics."""
    figures = {"rpo_seconds": done.rpo_seconds, "rto_seconds": done.rto_seconds}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    keep(settings, "drill", {"snapshot": done.snapshot, "at": at, **figures})
    _record(settings, "snapshot drill", done.snapshot, figures)


def _record(settings: Settings, subject: str, run: str, figures: dict[str, float]) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record(settings, [Metric(name, "job", subject, float(value), at, run) for name, value in figures.items()])
