"""The report: what it says first, where the graph's nodes stand, and that nothing in it can act."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from typing import Any

import artifact_files as files
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from python_ops.lake import delta
from python_ops.lake import lake as lake_module
from python_ops.lake.artifacts import NodeResult
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import Metric
from python_ops.lake.metrics import record as record_figures
from python_ops.run.daily import Job, Step
from python_ops.watch.cost import estimate
from python_ops.watch.cost.prices import load as load_prices
from python_ops.watch.report import gather, write
from python_ops.watch.report.charts import charts, thin
from python_ops.watch.report.graph import Node, layout, svg


def node(name: str, *parents: str, description: str = "") -> Node:
    return Node(name, "gold", description, parents)


def test_a_node_stands_right_of_all_it_is_made_from() -> None:
    nodes = {"a": node("a"), "b": node("b"), "x": node("x", "a"), "y": node("y", "x", "b", "elsewhere")}
    placed = layout(nodes)
    assert {name: column for name, (column, _) in placed.items()} == {"a": 0, "b": 0, "x": 1, "y": 2}
    assert len(set(placed.values())) == 4


def test_names_and_descriptions_are_text() -> None:
    drawn = svg({"a": node("<script>alert(1)</script>", description='"><img src=x onerror=alert(1)>')})
    assert "<script" not in drawn and "<img" not in drawn
    assert "&lt;script&gt;" in drawn


def test_a_long_history_keeps_its_peaks_in_few_points() -> None:
    at, lines = thin(list(range(10_000)), {"seconds": [9.0 if n == 777 else 1.0 for n in range(10_000)]}, 240)
    assert len(at) == len(lines["seconds"]) <= 240 and at[-1] == 9999
    assert max(value or 0 for value in lines["seconds"]) == 9.0
    assert thin([1, 2], {"a": [None, 3.0]}, 240) == ([1, 2], {"a": [None, 3.0]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Settings(home=tmp_path / "lake"), artifacts=tmp_path / "target")


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    files.write_manifest(folder, files.model("slv_x", layer="silver"), files.test("key_of_x", "slv_x"))
    files.write_run_results(folder, {"model.lakehouse.slv_x": "success", "test.lakehouse.key_of_x": "pass"})
    return folder


def record(lake: Lake, *steps: Step) -> None:
    job = Job(lake, lambda what, value: None)
    job.steps = list(steps)
    job.save()


def page(lake: Lake, artifacts: Path) -> str:
    return write(gather(lake), lake.home / "report.html").read_text(encoding="utf-8")


def test_a_month_is_priced_as_lakeops_cost_does(lake: Lake, artifacts: Path) -> None:
    record_figures(lake, [Metric("run_seconds", "job", "run", 3600.0, at="2026-03-01T06:00:00+00:00", run="a")])
    known = load_prices()
    total = estimate(lake, known).total
    assert total > known.runs_per_month * known.compute.hour * 0.99, "an hour for each run"
    figure = r"a month, at list prices</span>\s*<b>([^<]*)</b>"
    assert re.findall(figure, page(lake, artifacts)) == [f"{total:.2f} USD"]


def test_each_log_ledger_and_file_is_read_once(lake: Lake, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of 500 tables took 17 s, because each log was opened five times."""
    models = files.model("slv_x", layer="silver"), files.model("fct_x", publish_to=["duckdb"])
    for model in models:
        model["config"]["meta"] |= {"sla_min_rows": 1, "sla_max_shrink": 0.5}
    files.write_manifest(artifacts, *models)
    began = datetime.now(UTC).isoformat()
    files.write_run_results(artifacts, {model["unique_id"]: "success" for model in models}, began=began)
    for layer, table in (("silver", "slv_x"), ("gold", "fct_x"), ("dlq", "fx_rates")):
        rows = pa.table({"reason": ["a"], "replayed_batch": pa.array([None], pa.int64())})
        write_deltalake(str(lake.table_path(layer, table)), rows)
    record_figures(lake, [Metric("rows", "table", "gold.fct_x", 1.0, at="2026-03-01T06:00:00+00:00", run="a")])
    read: Counter[str] = Counter()

    def count(module: Any, name: str, asked: Callable[..., str]) -> None:
        stock = getattr(module, name)

        def reading(*given: Any, **others: Any) -> Any:
            read[asked(*given)] += 1
            return stock(*given, **others)

        monkeypatch.setattr(module, name, reading)

    count(delta, "DeltaTable", lambda path, *_: Path(path).name)
    count(lake_module, "Ledger", lambda _, source: f"ledger of {source}")
    for name in ("read", "load_manifest", "load_run_results"):
        count(lake_module, name, lambda _, name=name: name)
    gather(Lake(lake.settings.model_copy(update={"publish": ("duckdb",)}), artifacts=artifacts))
    once = ["slv_x", "fct_x", "fx_rates", "read", "load_manifest", "load_run_results"]
    assert read == Counter(once + [f"ledger of {source}" for source in lake.contracts.sources])


def test_readers_find_marks_engines_and_metrics_of_each_gold_table(lake: Lake, artifacts: Path) -> None:
    orders, gone = files.model("fct_orders", publish_to=["duckdb"], columns={"email": "Who."}), files.model("dim_x")
    orders["columns"]["email"]["meta"] = {"pii": True}
    orders["config"] |= {"group": "sales"}
    orders["config"]["meta"] |= {"readers": ["athena", "spark"], "sensitivity": "internal"}
    files.write_manifest(artifacts, orders, gone, files.model("slv_x", layer="silver"))
    nodes = {"semantic_model.lakehouse.orders": ["model.lakehouse.fct_orders"],
             "metric.lakehouse.revenue": ["semantic_model.lakehouse.orders"],
             "metric.lakehouse.average": ["metric.lakehouse.revenue"]}  # fmt: skip
    declared = {
        name: {"name": name.split(".")[2], "label": name.split(".")[2].title(), "description": "In EUR.",
               "depends_on": {"nodes": depends}}
        for name, depends in nodes.items()
    }  # fmt: skip
    metrics = {name: each for name, each in declared.items() if name.startswith("metric")}
    files.add_to_manifest(
        artifacts, metrics=metrics, semantic_models={name: declared[name] for name in declared.keys() - metrics.keys()}
    )
    text = page(lake, artifacts)
    part = text[text.index('id="offered"') : text.index('id="tables"')]
    rows = [re.sub(r"<[^>]*>|\s+", " ", row).split() for row in part.split("<tr>")[2:]]
    assert rows[0][:6] == ["gold.dim_x", "–", "internal", "–", "–", "–"]
    told = "gold.fct_orders sales internal email athena, spark duckdb Revenue , Average"
    assert " ".join(rows[1]).startswith(told), rows[1]


def test_the_worst_is_said_first(lake: Lake, artifacts: Path) -> None:
    assert "No run has been recorded." in page(lake, artifacts)
    record(lake, Step("ingest", "ok"), Step("dbt build", "failed"))
    assert "The last run did not finish: dbt build failed." in page(lake, artifacts)
    record(lake, Step("ingest", "ok", summary={"rejected_files": 2}))
    files.write_run_results(artifacts, {"model.lakehouse.slv_x": "success", "test.lakehouse.key_of_x": "pass"})
    green = page(lake, artifacts)
    assert "The last run is green" in green and "rejected files 2" in green and "1 of 1" in green
    files.write_run_results(artifacts, {"test.lakehouse.key_of_x": "fail"})
    red = page(lake, artifacts)
    assert "1 nodes of the last build are not green: key_of_x." in red and "0 of 1" in red


def test_a_layer_of_which_nothing_was_built_is_neither_good_nor_bad(lake: Lake, artifacts: Path) -> None:
    """An analyst builds one model of gold by hand; the page said `0 of 0 models` of silver, in green."""
    files.write_manifest(artifacts, files.model("dim_x"), files.model("slv_x", layer="silver"))
    files.write_run_results(artifacts, {"model.lakehouse.dim_x": "success"})
    told = {stage.name: (stage.figure, stage.level) for stage in gather(lake).stages}
    assert (told["Silver"], told["Gold"]) == (("not built", ""), ("1 of 1 models", "good"))


def test_the_page_needs_no_network_and_shows_no_message_of_a_failed_test(lake: Lake, artifacts: Path) -> None:
    """Messages of failed tests may hold row values."""
    record(lake, Step("ingest", "ok"))
    files.write_run_results(artifacts, {"test.lakehouse.key_of_x": "fail"})
    found = gather(lake)
    found.failed[:] = [NodeResult("test.lakehouse.key_of_x", "fail", "ann@example.com is there twice", 1.0)]
    text = write(found, lake.home / "report.html").read_text(encoding="utf-8")
    assert "ann@example.com" not in text
    assert not any(word in text for word in ("<script src", "<link", "@import", "url(", "fetch(", "XMLHttpRequest"))
    assert not re.search(r"""(src|href)=["'](https?:|//)""", text)
    assert "default-src 'none'" in text, "the browser itself refuses every address"


def test_a_failed_model_says_what_is_wrong(lake: Lake, artifacts: Path) -> None:
    record(lake, Step("ingest", "ok"))
    files.write_run_results(artifacts, {"model.lakehouse.slv_x": "error"})
    found = gather(lake)
    message = "Runtime Error in model slv_x (m.sql)\n  [DIVIDE_BY_ZERO] Division by zero. SQLSTATE: 22012"
    found.failed[:] = [NodeResult("model.lakehouse.slv_x", "error", message, 1.0)]
    text = write(found, lake.home / "report.html").read_text(encoding="utf-8")
    assert "m.sql: something is divided by zero. Fix: use try_divide(a, b), which gives NULL." in text


TABLES = 500


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a project with 500 tables of ten columns, and figures of the runs that their file holds."""
    folder = tmp_path_factory.mktemp("large")
    lake = Lake(Settings(home=folder / "lake"), artifacts=folder / "target")
    names, listed = [f"column_{n}" for n in range(10)], []
    for n in range(TABLES):
        of = f"slv_{n % 20}" if n >= 20 else ""
        model = files.model(
            f"fct_{n:03}" if of else f"slv_{n}", layer="gold" if of else "silver", parents=[of] if of else [],
            description="Rows of a subject. One row per subject.", columns=dict.fromkeys(names, "A column."),
        )  # fmt: skip
        read = f"silver.{of}" if of else "bronze.crm_accounts"
        model["compiled_code"] = f"with a as (select * from {read}) select {', '.join(names)} from a"
        listed += [model, files.test(f"key_of_{n}", model["name"])]
    files.write_manifest(lake.artifacts, *listed)
    files.write_run_results(lake.artifacts, {node["unique_id"]: "success" for node in listed})
    began, figures = datetime(2026, 1, 1, tzinfo=UTC), []
    for run in range(100):
        at = (began + timedelta(hours=run)).isoformat()
        figures += [Metric("build_seconds", "model", node["name"], run % 7, at, at) for node in listed[::2]]
        figures += [Metric("rows", "table", f"gold.{node['name']}", 10_000 + run, at, at) for node in listed[::2]]
    record_figures(lake, figures)
    record(lake, Step("dbt build", "ok", 300.0))
    return write(gather(lake), folder / "report.html")


@pytest.mark.slow
def test_a_large_project_has_a_page_that_opens(large: Path) -> None:
    """1.75 MB took 0.9 s to open in Chromium, 0.2 s to sort (2026-11-29, two busy cores)."""
    assert large.stat().st_size < 2_000_000


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_its_tables_sort_and_filter_and_its_lineage_is_drawn_in_part(large: Path) -> None:
    """In a browser, by what a reader does: sorts, filters, asks for all rows, follows a table."""
    acts = """
    const rows = () => [...document.querySelector("#models table").tBodies[0].rows].filter(row => !row.hidden);
    const told = [rows().length, document.getElementById("drawn").textContent];
    const field = document.querySelector("#models input"), more = document.querySelector("#models .wide + button");
    document.querySelector("#models th").click();
    setTimeout(() => {
      told.push(rows()[0].cells[0].textContent, rows().length);
      field.value = "fct_04"; field.dispatchEvent(new Event("input")); told.push(rows().length);
      field.value = ""; field.dispatchEvent(new Event("input")); more.click(); told.push(rows().length);
      choose("slv_7");
      const drawn = [...document.querySelectorAll(".graph .node")].filter(node => node.style.display !== "none");
      told.push(drawn.length, document.querySelectorAll("#trail button").length);
      choose("fct_027.column_3"); told.push(document.getElementById("trail").textContent);
      document.title = JSON.stringify(told);
    }, 100);
    """
    page = large.with_name("acted.html")
    page.write_text(
        large.read_text(encoding="utf-8").replace("</body>", f"<script>{acts}</script></body>"), encoding="utf-8"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.findall(r"<title>(.*?)</title>", done.stdout)[0]
    told = json.loads(unescape(title))
    assert told[:2] == [25, "510 tables: choose one, and its neighbours are drawn."]
    assert told[2:6] == ["slv_9", 25, 10, TABLES], "sorted, filtered, all"
    assert told[6:8] == [25, 25], "itself and what is made of it; each is a button"
    assert "slv_7.column_3" in told[8]


def test_times_are_absolute_and_the_page_tells_its_own_age(lake: Lake, artifacts: Path) -> None:
    """A page that was written three days ago must not say `5 min ago`; how old it is, its reader's clock says."""
    job = Job(lake, lambda what, value: None)
    job.started_at = datetime(2026, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    job.save()
    shown = page(lake, artifacts)
    assert "2026-03-02 01:30 UTC" in shown and " ago<" not in shown
    assert f'As of <time id="as-of" datetime="{datetime.now(UTC):%Y-%m-%d}' in shown


def test_a_run_without_anything_new_leaves_the_last_ones_steps_on_the_page(lake: Lake, artifacts: Path) -> None:
    record(lake, Step("ingest", "ok", summary={"accepted": 4711}))
    for _ in range(2):
        job = Job(lake, lambda what, value: None)
        job.unchanged_since = "2026-03-01T00:00:00+00:00"
        job.save()
    shown = page(lake, artifacts)
    assert "Nothing new since the green run of 2026-03-01 00:00 UTC." in shown and "accepted 4711" in shown


def cells(page: str, section: str, first: str) -> list[str]:
    """Texts of the section's row that begins so."""
    (body,) = re.findall(rf'<section id="{section}">.*?</section>', page, re.DOTALL)
    (row,) = re.findall(rf"<tr><td>{first}</td>.*?</tr>", body, re.DOTALL)
    return [" ".join(re.sub("<[^>]+>", "", cell).split()) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]


def test_models_have_their_counts_and_a_table_that_shrank_is_told(lake: Lake, artifacts: Path) -> None:
    """Given a build of a CDC model and of a gold table that lost 98 % of its rows, Then the page says so of both."""
    record(lake, Step("ingest", "ok"))
    gold, silver = files.model("dim_a"), files.model("slv_x", layer="silver", strategy="cdc_scd2")
    for model in (gold, silver):
        model["config"]["meta"] = {"sla_max_shrink": 0.5}
    files.write_manifest(artifacts, silver, gold)
    began = datetime.now(UTC) - timedelta(minutes=5)
    counts = {"read": 114, "inserted": 110, "late": 3, "opened": 9, "closed": 110, "deletes": 7, "clamped": 2}
    files.write_run_results(
        artifacts, {"model.lakehouse.slv_x": "success", "model.lakehouse.dim_a": "success"},
        began=began.isoformat(), counts={"model.lakehouse.slv_x": counts},
    )  # fmt: skip
    write_deltalake(str(lake.table_path("gold", "dim_a")), pa.table({"id": pa.array(range(10), pa.int64())}))
    events = {"_cdc_visible": [True] * 4 + [False] * 300, "_cdc_valid_to": pa.nulls(304, pa.timestamp("us", "UTC"))}
    write_deltalake(str(lake.table_path("silver", "slv_x__cdc")), pa.table(events))
    before = (began - timedelta(days=1)).isoformat()
    record_figures(lake, [Metric("rows", "table", "gold.dim_a", 500, before, "the run before")])
    shown = page(lake, artifacts)
    assert cells(shown, "models", "slv_x") == [
        "slv_x", "success", "114", "3", "110", "0", "7", "9", "110 ↓", "0", "2", "–", "304", "0.5", "nobody",
    ]  # fmt: skip
    assert cells(shown, "models", "dim_a")[-4:] == ["500", "10 ↓", "0.5", "nobody"]
    assert "A service level is breached: dim_a shrank, and 1 more." in shown and "96% gone: 4 of 105 are left" in shown
    assert "98% gone: 10 of 500 are left" in shown
    files.write_run_results(artifacts, {"test.lakehouse.key_of_x": "pass"}, command="test")
    assert "It built no model." in page(lake, artifacts)


def test_rejected_records_are_those_still_open(lake: Lake, artifacts: Path) -> None:
    record(lake, Step("ingest", "ok"))
    letters = pa.table({"reason": ["a", "b", "c"], "replayed_batch": pa.array([None, 9, None], pa.int64())})
    write_deltalake(str(lake.table_path("dlq", "shop_orders")), letters)
    found = gather(lake)
    assert {source: count for source, count in found.open_letters.items() if count} == {"shop_orders": 2}
    assert cells(page(lake, artifacts), "sources", "shop_orders")[3] == "2"


def test_figures_of_runs_are_charts_with_their_unit_the_slowest_model_first(lake: Lake) -> None:
    def figure(name: str, kind: str, subject: str, value: float, day: int) -> Metric:
        return Metric(name, kind, subject, value, f"2026-03-0{day}T01:00:00+00:00", f"2026-03-0{day}T00:00:00+00:00")

    figures = [
        figure("run_seconds", "job", "ingest", 5, 1), figure("run_seconds", "job", "ingest", 6, 2),
        figure("build_seconds", "model", "slv_x", 3, 1), figure("build_seconds", "model", "dim_a", 40, 2),
        figure("bytes", "table", "gold.dim_a", 3 * 1024 * 1024, 2), figure("tests_failed", "layer", "gold", 1, 2),
    ]  # fmt: skip
    found = {chart.title: chart for chart in charts(lake, figures, {})}
    assert list(found) == ["Run time per step", "Build time per model", "Tests", "Table size"]
    assert found["Run time per step"].unit == "seconds"
    assert found["Run time per step"].subjects["all steps"]["lines"] == {"ingest": [5, 6]}
    assert list(found["Build time per model"].subjects) == ["dim_a", "slv_x"]
    assert found["Build time per model"].subjects["slv_x"]["lines"] == {"build": [3, None]}
    assert found["Table size"].subjects["gold.dim_a"]["lines"] == {"live": [None, 3]}
    assert found["Tests"].subjects["gold"]["lines"] == {"not passed": [None, 1]}


def test_owners_contracts_and_what_happened_are_on_the_page(lake: Lake, artifacts: Path) -> None:
    summary = {"read": 12, "quarantined": 2, "accepted": 10}
    record(lake, Step("ingest", "ok", 4.0, summary), Step("dbt build", "ok", 61.0))
    shown = page(lake, artifacts)
    assert "12 records read, 2 rejected" in shown and "Slowest step: dbt build, 1 min 1 s." in shown
    assert "Slowest model of the last build: slv_x, 0.5 s." in shown
    assert cells(shown, "contracts", "shop_products")[-2:] == ["data-platform", "none since the first"]
    assert "column customer_id: subject None" in cells(shown, "contracts", "shop_orders")[-1]
    assert cells(shown, "tests", "silver")[:3] == ["silver", "1", "0"]
    assert "shop_orders" in cells(shown, "owners", "data-platform")[1]
