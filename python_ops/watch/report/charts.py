"""Figures over time, as data for the page's charts: few enough points for a phone, however long the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch
from python_ops.lake.metrics import Metric

_POINTS_OF_ALL, _MOST_POINTS, _LEAST_POINTS = 60_000, 240, 30
_REASONS = 4
_MIB = 1024 * 1024

Lines = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Chart:
    """One chart. Its reader chooses the subject, such as a source or a table; the first is shown.

    Attributes:
        subjects: For each, the times in seconds since 1970 (`at`) and the values per line (`lines`).
        each: What a point stands for; of more than fit, the highest of several.
    """

    title: str
    unit: str
    each: str
    subjects: Mapping[str, Mapping[str, Any]]


def charts(lake: Lake, figures: Iterable[Metric], promised: Mapping[str, float]) -> list[Chart]:
    """All charts that have a figure.

    Args:
        figures: Those of past runs, in the order of time.
        promised: Hours between two deliveries of each source, at most.
    """
    done = {source: lake.ledger(source).committed for source in lake.contracts.sources}
    done = {source: batches for source, batches in done.items() if batches}
    runs = _by_run(figures)
    found = [
        _per_batch("Rows taken", "rows", done, _rows),
        _per_batch("Rejected by reason", "records", done, _rejected),
        _per_batch("Time between deliveries", "hours", done, lambda batches: _gaps(batches, promised)),
        _per_run("Run time per step", "seconds", runs, {"run_seconds": ""}, "job", together="all steps"),
        _per_run("Build time per model", "seconds", runs, {"build_seconds": "build"}, "model"),
        _per_run("Late events", "events", runs, {"rows_read": "read", "rows_late": "late"}, "model"),
        _per_run("Tests", "tests", runs, {"tests_passed": "passed", "tests_failed": "not passed"}, "layer"),
        _per_run("Table size", "MiB", runs, {"bytes": "live", "bytes_on_disk": "on disk"}, "table", scale=_MIB),
        _per_run("Rows of a table", "rows", runs, {"rows": "rows"}, "table"),
        _per_run("Maintenance debt", "files", runs, {"files": "files", "files_compactable": "small"}, "table"),
    ]
    return [chart for chart in found if chart.subjects]


def thin(at: Sequence[float], lines: Lines, most: int) -> tuple[list[float], dict[str, list[float | None]]]:
    """At most so many points: of neighbours the last time, and of each line the highest value."""
    step = max(1, -(-len(at) // most))
    places = range(0, len(at), step)
    times = [at[min(place + step, len(at)) - 1] for place in places]
    highest = {
        name: [max((v for v in values[place : place + step] if v is not None), default=None) for place in places]
        for name, values in lines.items()
    }
    return times, highest


def _per_batch(title: str, unit: str, done: Mapping[str, list[Batch]], lines_of: Any) -> Chart:
    most = _points(len(done))
    found: dict[str, dict[str, Any]] = {}
    for source, batches in done.items():
        lines: Lines = lines_of(batches)
        if lines:
            times, values = thin([_seconds(batch.arrived_at) for batch in batches], lines, most)
            found[source] = {"at": times, "lines": values}
    found = dict(sorted(found.items(), key=lambda each: -_total(each[1]["lines"])))
    longest = max(map(len, done.values()), default=0)
    return Chart(title, unit, _stands_for("batch", longest, most), found)


def _rows(batches: Sequence[Batch]) -> Lines:
    return {"accepted": _counts(batches, "accepted"), "rejected": _counts(batches, "quarantined")}


def _counts(batches: Sequence[Batch], name: str) -> list[float | None]:
    return [batch.counts.get(name, 0) for batch in batches]


def _rejected(batches: Sequence[Batch]) -> Lines:
    """Records by reason in words: the commonest reasons, the others together; nothing where none was rejected."""
    total: Counter[str] = Counter()
    for batch in batches:
        for each in batch.rejected:
            total[each.text] += each.records
    shown = [text for text, _ in total.most_common(_REASONS)]
    lines: dict[str, list[float | None]] = {text: [] for text in shown}
    if len(total) > _REASONS:
        lines["other reasons"] = []
    for batch in batches:
        counts: Counter[str] = Counter()
        for each in batch.rejected:
            counts[each.text if each.text in shown else "other reasons"] += each.records
        for text, values in lines.items():
            values.append(counts[text])
    return lines


def _gaps(batches: Sequence[Batch], promised: Mapping[str, float]) -> Lines:
    at = [_seconds(batch.arrived_at) for batch in batches]
    gaps = [round((later - earlier) / 3600, 2) for earlier, later in pairwise(at)]
    lines: dict[str, list[float | None]] = {"since the one before": [None, *gaps]}
    if batches[0].source in promised:
        lines["promised at most"] = [promised[batches[0].source]] * len(at)
    return lines if gaps else {}


# By the time of a run's first figure, and by kind, name and subject of each.
_Runs = Mapping[str, Mapping[tuple[str, str, str], float]]


def _by_run(figures: Iterable[Metric]) -> _Runs:
    found: dict[str, dict[tuple[str, str, str], float]] = {}
    began: dict[str, str] = {}
    for each in figures:
        first = began.setdefault(each.run, each.at)
        found.setdefault(first, {})[each.kind, each.name, each.subject] = each.value
    return dict(sorted(found.items()))


def _per_run(
    title: str, unit: str, runs: _Runs, names: Mapping[str, str], kind: str, together: str = "", scale: float = 1
) -> Chart:
    """A chart of recorded figures: a subject each, or all subjects as lines of one, where it is named."""
    wanted = {key for values in runs.values() for key in values if key[0] == kind and key[1] in names}
    lines: dict[str, dict[str, list[float | None]]] = {}
    for key in sorted(wanted, key=lambda key: (key[2], list(names).index(key[1]))):
        values = [round(run[key] / scale, 2) if key in run else None for run in runs.values()]
        subject, line = (together, key[2]) if together else (key[2], names[key[1]])
        lines.setdefault(subject, {})[line] = values
    most = _points(len(lines))
    at = [_seconds(run) for run in runs]
    found: dict[str, dict[str, Any]] = {}
    for subject, given in lines.items():
        times, thinned = thin(at, given, most)
        found[subject] = {"at": times, "lines": thinned}
    found = dict(sorted(found.items(), key=lambda each: -_last(each[1]["lines"])))
    return Chart(title, unit, _stands_for("run", len(runs), most), found)


def _points(subjects: int) -> int:
    return max(_LEAST_POINTS, min(_MOST_POINTS, _POINTS_OF_ALL // 10 // max(1, subjects)))


def _stands_for(what: str, length: int, most: int) -> str:
    step = -(-length // most)
    return (
        f"one {what}" if step <= 1 else f"the highest of {step} neighbouring {'batches' if what == 'batch' else 'runs'}"
    )


def _total(lines: Lines) -> float:
    return sum(value or 0 for values in lines.values() for value in values)


def _last(lines: Lines) -> float:
    return max((values[-1] or 0 for values in lines.values() if values), default=0)


def _seconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp())
