"""Figures of runs, sources, models and tables, one record per figure, in a local file.

A record's subject is a job's step, a source, a model, a table or a layer: names from the project, no values of rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from python_ops.lake.files import append_lines


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        name: With its unit, such as `run_seconds` or `rows_accepted`.
        subject: What was measured.
        kind: `job`, `source`, `model`, `table` or `layer`.
        at: ISO 8601, UTC.
        run: When the run began that it belongs to; tells runs apart.
    """

    name: str
    kind: str
    subject: str
    value: float
    at: str
    run: str


class HasState(Protocol):
    """What has a folder of records, as a lake has."""

    @property
    def state(self) -> Path:
        """Folder of its records."""


def record(lake: HasState, metrics: Iterable[Metric]) -> Path:
    """Appends figures to the local file; the oldest go when it is full."""
    path = metrics_file(lake)
    append_lines(path, (json.dumps(asdict(metric)) for metric in metrics))
    return path


def history(figures: Iterable[Metric], name: str, kind: str) -> dict[str, list[float]]:
    """Past values by subject, oldest first, one per run (a run's last)."""
    found: dict[str, dict[str, float]] = {}
    for metric in figures:
        if metric.name == name and metric.kind == kind:
            found.setdefault(metric.subject, {})[metric.run] = metric.value
    return {subject: list(runs.values()) for subject, runs in found.items()}


def rows_before(figures: Iterable[Metric], builds: Mapping[str, datetime]) -> dict[str, int]:
    """Rows of each table as last recorded before a time, such as that of its last build, where they were.

    Args:
        figures: In the order of time, as `read` gives them.
        builds: The time of each table.
    """
    found: dict[str, int] = {}
    for metric in figures:
        if metric.name != "rows" or metric.kind != "table" or metric.subject not in builds:
            continue
        if datetime.fromisoformat(metric.at) < builds[metric.subject]:
            found[metric.subject] = int(metric.value)
    return found


def read(lake: HasState) -> list[Metric]:
    """Everything in the local file; a line that a killed process left half-written is skipped."""
    found = []
    path = metrics_file(lake)
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            found.append(Metric(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def metrics_file(lake: HasState) -> Path:
    """The local file."""
    return lake.state / "metrics" / "metrics.jsonl"
