"""Figures of snapshots and drills: the last ones in the state folder, so that the store need not be asked, all of them
among the metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.jobs.recovery.manifest import Snapshot
from python_ops.lake.files import write_whole
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
    keep(lake, "snapshot", "create", made.id, {"id": made.id, "pinned_at": made.pinned_at}, figures)


def keep(lake: Lake, what: str, verb: str, run: str, told: Mapping[str, Any], figures: Mapping[str, float]) -> None:
    """Keeps the figures of a `snapshot` or a `drill` with what else is told of it, and adds them to the metrics."""
    write_whole(_path(lake, what), json.dumps({**told, **figures}, indent=1))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    subject = f"snapshot {verb}"
    record(lake, [Metric(name, "job", subject, float(value), at, run) for name, value in figures.items()])


def last(lake: Lake, what: str) -> dict[str, Any] | None:
    """The last `snapshot` or `drill` that was made from here; None where there was none."""
    try:
        found: dict[str, Any] = json.loads(_path(lake, what).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return None


def snapshot_age(lake: Lake) -> float | None:
    """Age in seconds of the last snapshot's data: what a loss now would cost."""
    found = last(lake, "snapshot")
    return (datetime.now(UTC) - datetime.fromisoformat(found["pinned_at"])).total_seconds() if found else None


def _path(lake: Lake, what: str) -> Path:
    return lake.state / "recovery" / f"last_{what}.json"
