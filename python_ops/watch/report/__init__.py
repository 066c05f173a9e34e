"""One static HTML page of how the lakehouse stands: no network, no JVM, nothing but counts, names and times.

uPlot draws the charts, sortable-tablesort sorts the tables; both are in `vendor/`, with their licences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from python_ops.jobs.build.mistakes import explained
from python_ops.jobs.ingest.dead_letters import count_open
from python_ops.jobs.maintenance import TablePlan, policies
from python_ops.jobs.maintenance import plan as plan_maintenance
from python_ops.jobs.publish import PublishStatus
from python_ops.jobs.publish import status as publish_status
from python_ops.jobs.recovery.last import last
from python_ops.lake.artifacts import Manifest, NodeResult, RunResults, is_test
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake, LakeAtRest
from python_ops.lake.metrics import rows_before
from python_ops.lake.run_record import last_run
from python_ops.watch.alerts import Breach, check, span
from python_ops.watch.cost import Estimate, estimate
from python_ops.watch.cost.prices import load as load_prices
from python_ops.watch.report import graph
from python_ops.watch.report.agreed import Agreed, Offered, agreed, offered, owners
from python_ops.watch.report.charts import Chart, charts
from python_ops.watch.report.summary import Headline, Stage, happened, stages, verdict
from python_ops.watch.status import SourceStatus, source_status


@dataclass(frozen=True)
class Built:
    """What the last build did to one model's table.

    Attributes:
        counts: Rows or events by kind; what a model does not count is not in it.
        rows: In the table now; None for a view.
        before: In the table when the build began; None where that was not recorded.
    """

    name: str
    layer: str
    owner: str
    result: NodeResult
    counts: Mapping[str, int]
    rows: int | None
    before: int | None


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        happened: What the last run did, in a sentence or two.
        limits: How old each source's last delivery may be.
        tests: Those of the last build with their layers, those that failed first.
        columns: By model and column, the columns that it is made from.
        owners: What each owns, by kind.
        cost: Of a month, at the list prices that come with `lakeops cost`.
        docs: Address of the dbt docs site beside the page; empty where there is none.
        runbooks: Where this repository can be read; empty where that is not set.
    """

    environment: str
    generated_at: datetime
    verdict: Headline
    happened: str
    stages: list[Stage]
    last_run: Mapping[str, Any] | None
    sources: list[SourceStatus]
    open_letters: Mapping[str, int]
    build: RunResults
    models: list[Built]
    tests: list[tuple[str, NodeResult]]
    breaches: list[Breach]
    limits: Mapping[str, str]
    charts: list[Chart]
    nodes: Mapping[str, graph.Node]
    columns: Mapping[str, Mapping[str, list[str]]]
    failed: list[NodeResult]
    tables: list[tuple[TablePlan, datetime | None]]
    published: list[PublishStatus]
    contracts: list[Agreed]
    offered: list[Offered]
    owners: Mapping[str, Mapping[str, list[str]]]
    cost: Estimate
    snapshot_at: str | None
    docs: str
    runbooks: str


def gather(lake: Lake) -> Report:
    """Reads ledgers, logs and artifacts.

    Raises:
        OpsError: nothing was ever built, or a table's log cannot be read.
    """
    lake = LakeAtRest(lake)
    manifest, results, figures = lake.manifest(), lake.run_results(), lake.figures()
    changed = {policy.table: lake.log(policy.path).last_change() for policy in policies(lake, manifest)}
    tests = [(manifest.layer_of(node), result) for node, result in results.nodes.items() if is_test(node)]
    failed, breaches, record, published = results.failed(), check(lake), last_run(lake), publish_status(lake)
    sources = [source_status(lake, source) for source in lake.contracts.sources]
    open_letters = {source: count_open(lake, source) for source in lake.contracts.sources}
    tables, contracts = plan_maintenance(lake), agreed(lake)
    minutes = _promised_minutes(manifest)
    docs, beside = lake.artifacts / "static_index.html", lake.workspace
    return Report(
        environment=lake.settings.target,
        generated_at=datetime.now(UTC),
        verdict=verdict(record, failed, published, breaches),
        happened=happened(record, results, manifest),
        stages=stages(record, sources, sum(open_letters.values()), results, manifest, published),
        last_run=record,
        sources=sources,
        open_letters=open_letters,
        build=results,
        models=_models(lake, manifest, results, tables, rows_before(figures, results.began(manifest))),
        tests=sorted(tests, key=lambda test: (test[1].green, test[0], test[1].unique_id)),
        breaches=breaches,
        limits={source: span(limit) for source, limit in minutes.items()},
        charts=charts(lake, figures, {source: limit / 60 for source, limit in minutes.items()}),
        nodes=graph.nodes(lake, manifest),
        columns=graph.columns(lake, manifest),
        failed=failed,
        tables=[(planned, changed.get(planned.table)) for planned in tables],
        published=published,
        contracts=contracts,
        offered=offered(manifest),
        owners=owners(manifest, contracts),
        cost=estimate(lake, load_prices()),
        snapshot_at=(last(lake, "snapshot") or {}).get("pinned_at"),
        docs=docs.relative_to(beside).as_posix() if docs.exists() and docs.is_relative_to(beside) else "",
        runbooks=lake.settings.runbooks_url.rstrip("/"),
    )


def write(report: Report, path: Path) -> Path:
    """Writes the page, whole or not at all."""
    jinja = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters.update({"bytes": _bytes, "minute": _minute})
    jinja.globals.update({"inline": _inline, "draw": graph.svg, "explained": explained})
    data = {
        "charts": [asdict(chart) for chart in report.charts],
        "columns": report.columns,
        "tables": {
            node.name: {
                "layer": node.layer, "owner": node.owner,
                "from": [report.nodes[parent].name for parent in node.parents if parent in report.nodes],
            }
            for node in report.nodes.values()
        },
    }  # fmt: skip
    compact = htmlsafe_json_dumps(data, separators=(",", ":"))
    return write_whole(path, jinja.get_template("page.html.j2").render(report=report, data=compact))


def _inline(*names: str) -> Markup:
    """Files of this package as they are: scripts and styles are no templates."""
    return Markup("\n".join(files(__package__).joinpath(name).read_text(encoding="utf-8") for name in names))


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
            written = lake.log(lake.table_path(model.layer, model.storage)).written_since(result.started_at)
            if written:
                counts = {"inserted": written.inserted, "updated": written.updated, "deleted": written.deleted}
        table, owner = model.stored_table, manifest.owner_of(model)
        found.append(Built(model.name, model.layer, owner, result, counts, rows.get(table), before.get(table)))
    return found


def _promised_minutes(manifest: Manifest) -> dict[str, float]:
    """How old each source's last delivery may be; `check` has refused what is no number."""
    found = {source: meta.get("sla_minutes") for source, meta in manifest.source_meta.items()}
    return {source: float(minutes) for source, minutes in found.items() if minutes is not None}


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
