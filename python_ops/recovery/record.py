"""What the last snapshot and the last drill came to: kept in the state folder, so that nobody need ask the store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.config import Settings
from python_ops.metrics import Metric, record
from python_ops.recovery.drill import Drill
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
    _keep(settings, "snapshot", {"id": made.id, "pinned_at": made.pinned_at, **figures})
    _record(settings, "snapshot create", made.id, figures)


def record_drill(settings: Settings, done: Drill) -> None:
    """Keeps a drill's figures, and adds them to the metrics."""
    figures = {"rpo_seconds": done.rpo_seconds, "rto_seconds": done.rto_seconds}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    _keep(settings, "drill", {"snapshot": done.snapshot, "at": at, **figures})
    _record(settings, "snapshot drill", done.snapshot, figures)


def last(settings: Settings, what: str) -> dict[str, Any] | None:
    """The last `snapshot` or `drill` that was made from here; None where there was none."""
    try:
        found: dict[str, Any] = json.loads(_path(settings, what).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return None


def _record(settings: Settings, subject: str, run: str, figures: dict[str, float]) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record(settings, [Metric(name, "job", subject, float(value), at, run) for name, value in figures.items()])


def _keep(settings: Settings, what: str, value: dict[str, Any]) -> None:
    path = _path(settings, what)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(value, indent=1), encoding="utf-8")
    draft.replace(path)


def _path(settings: Settings, what: str) -> Path:
    return settings.state / "recovery" / f"last_{what}.json"
