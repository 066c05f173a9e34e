"""One static HTML page of how the lakehouse stands: no network, no JVM, nothing but counts, names and times."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from python_ops.jobs.ingest.dead_letters import count_open
from python_ops.jobs.maintenance import TablePlan, policies
from python_ops.jobs.maintenance import plan as plan_maintenance
from python_ops.jobs.publish import PublishStatus
from python_ops.jobs.publish import status as publish_status
from python_ops.jobs.recovery.last import last
from python_ops.lake.artifacts import Manifest, NodeResult, RunResults
from python_ops.lake.delta import last_change, written_since
from python_ops.lake.errors import OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import history, read, rows_before
from python_ops.lake.run_record import last_run, waits
from python_ops.watch.alerts import Breach, check, span
from python_ops.watch.lineage.columns import ColumnLineage
from python_ops.watch.report.graph import Node, sparkline, svg
from python_ops.watch.status import SourceStatus, source_status


@dataclass(frozen=True)
class Headline:
    """What the page says first. `level` is `good`, `warn` or `bad`."""

    level: str
    text: str


@dataclass(frozen=True)
class Built:
    """What the last build did to one model's table.

    Attributes:
        counts: Rows or events by kind; what a model does not count is not in it.
        rows: In the table now; None for a view.
        before: In the table when the build began; None where that was not recorded.
    """

    name: str
    result: NodeResult
    counts: Mapping[str, int]
    rows: int | None
    before: int | None


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    environment: str
    generated_at: datetime
    verdict: Headline
    last_run: Mapping[str, Any] | None
    sources: list[tuple[SourceStatus, Markup]]
    open_letters: Mapping[str, int]
    build: RunResults
    models: list[Built]
    tests: list[NodeResult]
    breaches: list[Breach]
    limits: Mapping[str, str]
    counts: Mapping[str, Markup]
    columns: Markup
    failed: list[NodeResult]
    tables: list[tuple[TablePlan, datetime | None]]
    published: list[PublishStatus]
    graph: Markup
    snapshot_at: str | None


def gather(lake: Lake) -> Report:
    """Reads ledgers, logs and artifacts.

    Raises:
        OpsError: nothing was ever built, or a table's log cannot be read.
    """
    manifest, results = lake.manifest(), lake.run_results()
    changed = {policy.table: last_change(policy.path) for policy in policies(lake, manifest)}
    tests = [result for node, result in results.nodes.items() if node.startswith(("test.", "unit_test."))]
    failed = results.failed()
    breaches = check(lake)
    record = last_run(lake)
    published = publish_status(lake)
    tables, figures = plan_maintenance(lake), read(lake)
    return Report(
        environment=lake.settings.target,
        generated_at=datetime.now(UTC),
        verdict=_verdict(record, failed, published, breaches),
        last_run=record,
        sources=[(source_status(lake, source), _history(lake, source)) for source in lake.contracts.sources],
        open_letters={source: count_open(lake, source) for source in lake.contracts.sources},
        build=results,
        models=_models(lake, manifest, results, tables, rows_before(figures, results.began(manifest))),
        tests=sorted(tests, key=lambda test: (test.green, test.unique_id)),
        breaches=breaches,
        limits=_limits(manifest),
        counts={
            table: sparkline([int(count) for count in past])
            for table, past in history(figures, "rows", "table").items()
        },
        columns=_columns(lake, manifest),
        failed=failed,
        tables=[(planned, changed.get(planned.table)) for planned in tables],
        published=published,
        graph=svg(_lineage(lake, manifest)),
        snapshot_at=(last(lake, "snapshot") or {}).get("pinned_at"),
    )


def write(report: Report, path: Path) -> Path:
    """Writes the page, whole or not at all."""
    jinja = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    jinja.filters.update({"bytes": _bytes, "minute": _minute})
    return write_whole(path, jinja.get_template("page.html.j2").render(report=report))


def _verdict(
    record: Mapping[str, Any] | None,
    failed: list[NodeResult],
    published: list[PublishStatus],
    breaches: list[Breach],
) -> Headline:
    """What the page says first: the worst fault."""
    if record is None:
        return Headline("bad", "No run has been recorded.")
    if broken := [step for step in record["steps"] if step["outcome"] != "ok"]:
        waiting = waits(record.get("waiting", {}))
        told = f"The last run did not finish: {broken[0]['name']} {broken[0]['outcome']}."
        return Headline("bad", f"{told} {waiting}." if waiting else told)
    if failed:
        names = ", ".join(result.unique_id.split(".")[2] for result in failed[:3])
        return Headline("bad", f"{len(failed)} nodes of the last build are not green: {names}.")
    if breaches:
        more = f", and {len(breaches) - 1} more" if len(breaches) > 1 else ""
        return Headline("warn", f"A service level is breached: {breaches[0].subject} {breaches[0].kind.value}{more}.")
    if silent := sorted({table.target for table in published if table.error}):
        return Headline("warn", f"Not answering: {', '.join(silent)}.")
    if behind := [table.table for table in published if table.state not in ("current", "dropped")]:
        return Headline("warn", f"Not published yet: {', '.join(behind[:5])}.")
    return Headline("good", "The last run is green, and what it built is served.")


def _models(
    lake: Lake, manifest: Manifest, results: RunResults, tables: list[TablePlan], before: Mapping[str, int]
) -> list[Built]:
    """The models of silver and gold that the last build built or was to build, silver first."""
    rows = {planned.table: planned.before.live_rows for planned in tables}
    found = []
    for model in sorted(manifest.models.values(), key=lambda model: (model.layer != "silver", model.name)):
        result = results.nodes.get(model.unique_id)
        if result is None or model.layer not in ("silver", "gold"):
            continue
        counts = {"deleted" if name == "deletes" else name: count for name, count in result.counts.items()}
        if counts:  # a CDC model leaves out what is 0
            counts = (
                dict.fromkeys(("late", "inserted", "updated", "deleted", "opened", "closed", "ties", "clamped"), 0)
                | counts
            )
        elif model.storage and result.green and result.started_at:
            written = written_since(lake.table_path(model.layer, model.storage), result.started_at)
            if written:
                counts = {"inserted": written.inserted, "updated": written.updated, "deleted": written.deleted}
        table = model.stored_table
        found.append(Built(model.name, result, counts, rows.get(table), before.get(table)))
    return found


def _history(lake: Lake, source: str) -> Markup:
    done = lake.ledger(source).committed
    return sparkline([manifest.counts["accepted"] for manifest in done])


def _lineage(lake: Lake, manifest: Manifest) -> dict[str, Node]:
    nodes = {
        f"source.{name}": Node(name, "bronze", lake.contracts.load(name).description, ())
        for name in lake.contracts.sources
    }
    for identifier, model in manifest.models.items():
        parents = [
            f"source.{parent.rsplit('.', 1)[1]}" if parent.startswith("source.") else parent
            for parent in sorted(manifest.parents[identifier])
        ]
        nodes[identifier] = Node(model.name, model.layer, model.description, tuple(parents))
    return nodes


def _limits(manifest: Manifest) -> dict[str, str]:
    """How old each source's last delivery may be."""
    found = {source: meta.get("sla_minutes") for source, meta in manifest.source_meta.items()}
    return {source: span(float(minutes)) for source, minutes in found.items() if minutes is not None}


def _columns(lake: Lake, manifest: Manifest) -> Markup:
    """For each column, the columns it is made from, as JSON for the page's script; empty if nothing is compiled."""
    lineage = ColumnLineage(lake, manifest)
    names = {model.table: model.name for model in manifest.models.values()}
    names |= {table: source for source, table in lineage.by_source.items()}
    found: dict[str, dict[str, list[str]]] = {}
    for model in sorted(manifest.models.values(), key=lambda model: model.name):
        with suppress(OpsError):
            found[model.name] = {
                column: [f"{names.get(table, table)}.{name}" for table, name in origins]
                for column, origins in lineage.of(model).items()
            }
    return htmlsafe_json_dumps(found)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _minute(at: datetime | str | None) -> str:
    """A time as date and minute, because a page that is opened later must not say `5 min ago`."""
    if at is None:
        return "–"
    then = datetime.fromisoformat(at) if isinstance(at, str) else at
    return then.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
