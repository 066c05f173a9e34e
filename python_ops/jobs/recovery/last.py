"""Figures of the last snapshot and the last drill, kept in the state folder, so that the store need not be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake


def keep(lake: Lake, what: str, value: Mapping[str, Any]) -> None:
    """Keeps the figures of a `snapshot` or a `drill`."""
    write_whole(_path(lake, what), json.dumps(value, indent=1))


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
