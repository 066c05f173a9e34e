"""Figures of the last run and the tables. They are kept in a local file, and sent to CloudWatch from there."""

from __future__ import annotations

from datetime import UTC, datetime

from python_ops.jobs.extract.pull_state import PullState
from python_ops.jobs.maintenance import policies
from python_ops.jobs.maintenance.state import read_state
from python_ops.jobs.publish import status as publish_status
from python_ops.jobs.recovery.last import snapshot_age
from python_ops.lake.artifacts import is_test
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import Metric
from python_ops.lake.run_record import last_run


def collect(lake: Lake) -> list[Metric]:
    """Figures of the last run and of the tables as they are now. Starts no JVM.

    Raises:
        OpsError: nothing was ever run or built.
    """
    record = last_run(lake)
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
    add("job", "snapshot", snapshot_age_seconds=snapshot_age(lake))
    for source in lake.contracts.sources:
        done = lake.ledger(source).committed
        if done:
            counts = {f"rows_{name}": float(count) for name, count in done[-1].counts.items()}
            lag = (now - datetime.fromisoformat(done[-1].arrived_at)).total_seconds()
            add("source", source, watermark_lag_seconds=lag, batch_id=done[-1].batch_id, **counts)
        add("source", source, **PullState(lake.state / "extract", source).figures(now))
    manifest, results = lake.manifest(), lake.run_results()
    for node, result in results.nodes.items():
        if model := manifest.models.get(node):
            counts = {f"rows_{name}": float(count) for name, count in result.counts.items()}
            add("model", model.name, build_seconds=result.seconds, **counts)
            log = lake.log(lake.table_path(model.layer, model.storage)) if model.storage else None
            if log and result.started_at and (written := log.written_since(result.started_at)):
                add("model", model.name, rows_applied=written.rows, rows_copied=written.rows_copied,
                    files_touched=written.files, bytes_written=written.bytes)  # fmt: skip
    tested: dict[str, list[bool]] = {}
    for node, result in results.nodes.items():
        if is_test(node):
            tested.setdefault(manifest.layer_of(node), []).append(result.green)
    for layer, greens in tested.items():
        add("layer", layer, tests_passed=sum(greens), tests_failed=greens.count(False))
    for policy in policies(lake, manifest):
        state = read_state(lake.log(policy.path), policy.kept_hours)
        add("table", policy.table, rows=state.live_rows, files=state.files, files_compactable=state.compactable_files,
            bytes=state.bytes, bytes_on_disk=state.bytes_on_disk)  # fmt: skip
    lags: dict[str, float] = {}  # of the warehouse that is furthest behind
    for table in publish_status(lake):
        if table.published_at and table.lake_version is not None and table.served_version is not None:
            age = (now - datetime.fromisoformat(table.published_at)).total_seconds()
            lag = age if table.state == "behind" else 0.0
            lags[table.table] = max(lag, lags.get(table.table, 0.0))
    for name, lag in lags.items():
        add("table", name, publish_lag_seconds=lag)
    return found
