"""The report: what it says first, where the graph's nodes stand, and that nothing in it can act."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import artifact_files as files
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from python_ops.lake.artifacts import NodeResult
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import Metric
from python_ops.lake.metrics import record as record_figures
from python_ops.run.daily import Job, Step
from python_ops.watch.report import gather, write
from python_ops.watch.report.graph import Node, layout, sparkline, svg


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


def test_a_sparkline_shows_the_last_thirty() -> None:
    assert sparkline(list(range(50))).count("<rect") == 30
    assert sparkline([]).count("<rect") == 0


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


def test_the_page_needs_no_network_and_shows_no_message_of_a_failed_test(lake: Lake, artifacts: Path) -> None:
    """Messages of failed tests may hold row values."""
    record(lake, Step("ingest", "ok"))
    files.write_run_results(artifacts, {"test.lakehouse.key_of_x": "fail"})
    found = gather(lake)
    found.failed[:] = [NodeResult("test.lakehouse.key_of_x", "fail", "ann@example.com is there twice", 1.0)]
    text = write(found, lake.home / "report.html").read_text(encoding="utf-8")
    assert "ann@example.com" not in text
    assert not any(word in text for word in ("http:", "https:", "<script src", "<link", "@import", "url(", "fetch("))


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


def cells(page: str, first: str) -> list[str]:
    """Texts of the last row that begins so: of a model, that of the section on models."""
    row = re.findall(rf"<tr><td>{first}</td>.*?</tr>", page, re.DOTALL)[-1]
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
    assert cells(shown, "slv_x") == [
        "slv_x", "success", "114", "3", "110", "0", "7", "9", "110 ↓", "0", "2", "–", "304", "0.5",
    ]  # fmt: skip
    assert cells(shown, "dim_a")[-3:] == ["500", "10 ↓", "0.5"]
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
    assert cells(page(lake, artifacts), "shop_orders")[4] == "2"
