"""Figures of the last snapshot and the last drill, kept in the state folder, so that the store need not be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.lake.config import Settings
from python_ops.lake.files import write_whole


def keep(settings: Settings, what: str, value: Mapping[str, Any]) -> None:
    """Keeps the figures of a `snapshot` or a `drill`."""
    write_whole(_path(settings, what), json.dumps(value, indent=1))


def last(settings: Settings, what: str) -> dict[str, Any] | None:
    """The last `snapshot` or `drill` that was made from here; None where there was none."""
    try:
        found: dict[str, Any] = json.loads(_path(settings, what).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return None


def snapshot_age(settings: Settings) -> float | None:
    """Age in seconds of the last snapshot's data: what a loss now would cost."""
    found = last(settings, "snapshot")
    return (datetime.now(UTC) - datetime.fromisoformat(found["pinned_at"])).total_seconds() if found else None


def _path(settings: Settings, what: str) -> Path:
    return settings.state / "recovery" / f"last_{what}.json"
