"""What runs and tables measured, one record per figure: kept in a local file, sent to CloudWatch from there.

A record's subject is a job's step, a source, a model or a table: names from the project, never values from rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from python_ops.artifacts import load_manifest, load_run_results
from python_ops.config import Settings
from python_ops.contracts import sources
from python_ops.delta import written_since
from python_ops.errors import OpsError
from python_ops.extract.journal import Journal
from python_ops.files import append_lines
from python_ops.ingest.ledger import Ledger, State
from python_ops.maintenance import policies
from python_ops.maintenance.state import read_state
from python_ops.publish import status as publish_status
from python_ops.recovery.last import snapshot_age
from python_ops.run_record import last_run


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        name: With its unit, such as `run_seconds` or `rows_accepted`.
        subject: What was measured.
        kind: `job`, `source`, `model` or `table`.
        at: ISO 8601, UTC.
        run: When the run began that it belongs to; tells runs apart.
    """

    name: str
    kind: str
    subject: str
    value: float
    at: str
    run: str


def collect(settings: Settings, artifacts: Path | None = None) -> list[Metric]:
    """Figures of the last run and of the tables as they are now. Starts no JVM.

    Raises:
        OpsError: nothing was ever run or built.
    """
    record = last_run(settings)
    if record is None:
        raise OpsError("No run has been recorded. `lakeops run` or `lakeops demo` makes the first.")
    now, run = datetime.now(UTC), str(record["started_at"])
    found: list[Metric] = []

    def add(kind: str, subject: str, **values: float | None) -> None:
        at = now.isoformat(timespec="seconds")
        found.extend(Metric(n, kind, subject, float(v), at, run) for n, v in values.items() if v is not None)

    steps: dict[str, float] = {}
    for step in record["steps"]:
        steps[step["name"]] = steps.get(step["name"], 0.0) + step["seconds"]
    for name, seconds in steps.items():
        add("job", name, run_seconds=seconds)
    add("job", str(record["command"]), run_seconds=sum(steps.values()),
        failed_steps=sum(step["outcome"] != "ok" for step in record["steps"]))  # fmt: skip
    add("job", "snapshot", snapshot_age_seconds=snapshot_age(settings))
    for source in sources():
        done = [m for m in Ledger(settings.state / "ingest", source).manifests if m.state is State.COMMITTED]
        if done:
            counts = {f"rows_{name}": float(count) for name, count in done[-1].counts.items()}
            lag = (now - datetime.fromisoformat(done[-1].arrived_at)).total_seconds()
            add("source", source, watermark_lag_seconds=lag, batch_id=done[-1].batch_id, **counts)
        add("source", source, **Journal(settings.state / "extract", source).figures(now))
    artifacts = artifacts or settings.artifacts
    manifest, results = load_manifest(artifacts), load_run_results(artifacts)
    for node, result in results.nodes.items():
        if model := manifest.models.get(node):
            counts = {f"rows_{name}": float(count) for name, count in result.counts.items()}
            add("model", model.name, build_seconds=result.seconds, **counts)
            path = settings.table_path(model.layer, model.storage) if model.storage else None
            if path and result.started_at and (written := written_since(path, result.started_at)):
                add("model", model.name, rows_applied=written.rows, rows_copied=written.rows_copied,
                    files_touched=written.files, bytes_written=written.bytes)  # fmt: skip
    for policy in policies(settings, manifest):
        state = read_state(policy.path, policy.retain_hours)
        add("table", policy.table, rows=state.live_rows, files=state.files, bytes=state.bytes,
            bytes_on_disk=state.bytes_on_disk)  # fmt: skip
    lags: dict[str, float] = {}  # of the warehouse that is furthest behind
    for table in publish_status(settings, artifacts):
        if table.published_at and table.lake_version is not None and table.served_version is not None:
            age = (now - datetime.fromisoformat(table.published_at)).total_seconds()
            lag = age if table.state == "behind" else 0.0
            lags[table.table] = max(lag, lags.get(table.table, 0.0))
    for name, lag in lags.items():
        add("table", name, publish_lag_seconds=lag)
    return found


def record(settings: Settings, metrics: Iterable[Metric]) -> Path:
    """Appends figures to the local file; the oldest go when it is full."""
    path = metrics_file(settings)
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


def read(settings: Settings) -> list[Metric]:
    """Everything in the local file; a line that a killed process left half-written is skipped."""
    found = []
    path = metrics_file(settings)
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            found.append(Metric(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def metrics_file(settings: Settings) -> Path:
    """The local file."""
    return settings.state / "metrics" / "metrics.jsonl"
