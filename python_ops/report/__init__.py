"""One static HTML page of how the lakehouse stands: no network, no JVM, nothing but counts, names and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from python_ops.artifacts import TARGET_FOLDER, Manifest, NodeResult, load_manifest, load_run_results
from python_ops.config import Settings
from python_ops.contracts import load as load_contract
from python_ops.contracts import sources
from python_ops.delta import last_change
from python_ops.ingest.ledger import Ledger, State
from python_ops.maintenance import TablePlan, policies
from python_ops.maintenance import plan as plan_maintenance
from python_ops.publish import PublishStatus
from python_ops.publish import status as publish_status
from python_ops.report.graph import Node, sparkline, svg
from python_ops.run_record import last_run
from python_ops.status import SourceStatus, source_status


@dataclass(frozen=True)
class Verdict:
    """What the page says first. `level` is `good`, `warn` or `bad`."""

    level: str
    text: str


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    environment: str
    generated_at: datetime
    verdict: Verdict
    last_run: Mapping[str, Any] | None
    sources: list[tuple[SourceStatus, Markup]]
    tests: Mapping[str, int]
    failed: list[NodeResult]
    tables: list[tuple[TablePlan, datetime | None]]
    published: list[PublishStatus]
    graph: Markup


def gather(settings: Settings, artifacts: Path = TARGET_FOLDER) -> Report:
    """Reads ledgers, logs and artifacts.

    Raises:
        OpsError: nothing was ever built, or a table's log cannot be read.
    """
    manifest, results = load_manifest(artifacts), load_run_results(artifacts)
    changed = {policy.table: last_change(policy.path) for policy in policies(settings, manifest)}
    tests = [result for node, result in results.nodes.items() if node.startswith(("test.", "unit_test."))]
    failed = results.failed()
    record = last_run(settings)
    published = publish_status(settings, artifacts)
    return Report(
        environment=settings.target,
        generated_at=datetime.now(UTC),
        verdict=_verdict(record, failed, published),
        last_run=record,
        sources=[(source_status(settings, source), _history(settings, source)) for source in sources()],
        tests={"passed": sum(test.green for test in tests), "all": len(tests)},
        failed=failed,
        tables=[(planned, changed.get(planned.table)) for planned in plan_maintenance(settings, (), artifacts)],
        published=published,
        graph=svg(_lineage(manifest)),
    )


def write(report: Report, path: Path) -> Path:
    """Writes the page, whole or not at all."""
    jinja = Environment(
        loader=PackageLoader("python_ops.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    jinja.filters.update({"bytes": _bytes, "ago": lambda at: _ago(at, report.generated_at)})
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(jinja.get_template("page.html.j2").render(report=report), encoding="utf-8")
    return draft.replace(path)


def _verdict(record: Mapping[str, Any] | None, failed: list[NodeResult], published: list[PublishStatus]) -> Verdict:
    """The worst thing first."""
    if record is None:
        return Verdict("bad", "No run has been recorded.")
    if broken := [step for step in record["steps"] if step["outcome"] != "ok"]:
        return Verdict("bad", f"The last run did not finish: {broken[0]['name']} {broken[0]['outcome']}.")
    if failed:
        names = ", ".join(result.unique_id.split(".")[2] for result in failed[:3])
        return Verdict("bad", f"{len(failed)} nodes of the last build are not green: {names}.")
    if silent := sorted({table.target for table in published if table.error}):
        return Verdict("warn", f"Not answering: {', '.join(silent)}.")
    if behind := [table.table for table in published if table.state not in ("current", "dropped")]:
        return Verdict("warn", f"Not published yet: {', '.join(behind[:5])}.")
    return Verdict("good", "The last run is green, and what it built is served.")


def _history(settings: Settings, source: str) -> Markup:
    done = [m for m in Ledger(settings.state / "ingest", source).manifests if m.state is State.COMMITTED]
    return sparkline([manifest.counts["accepted"] for manifest in done])


def _lineage(manifest: Manifest) -> dict[str, Node]:
    nodes = {f"source.{name}": Node(name, "bronze", load_contract(name).description, ()) for name in sources()}
    for identifier, model in manifest.models.items():
        parents = [
            f"source.{parent.rsplit('.', 1)[1]}" if parent.startswith("source.") else parent
            for parent in sorted(manifest.parents[identifier])
        ]
        nodes[identifier] = Node(model.name, model.layer, model.description, tuple(parents))
    return nodes


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _ago(at: datetime | str | None, now: datetime) -> str:
    if at is None:
        return "–"
    then = datetime.fromisoformat(at) if isinstance(at, str) else at
    minutes = int((now - then).total_seconds() // 60)
    if minutes < 120:
        return f"{max(0, minutes)} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // 1440} days ago"
