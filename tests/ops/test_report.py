"""The report: what it says first, where the graph's nodes stand, and that nothing in it can act."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import artifact_files as files
import pytest

from python_ops.artifacts import NodeResult
from python_ops.config import Settings
from python_ops.report import gather, write
from python_ops.report.graph import Node, layout, sparkline, svg
from python_ops.run import Job, Step


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
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "lake")


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    files.write_manifest(folder, files.model("slv_x", layer="silver"), files.test("key_of_x", "slv_x"))
    files.write_run_results(folder, {"model.lakehouse.slv_x": "success", "test.lakehouse.key_of_x": "pass"})
    return folder


def record(settings: Settings, *steps: Step) -> None:
    job = Job(settings, lambda what, value: None)
    job.steps = list(steps)
    job.save()


def page(settings: Settings, artifacts: Path) -> str:
    return write(gather(settings, artifacts), settings.home_path / "report.html").read_text(encoding="utf-8")


def test_the_worst_is_said_first(settings: Settings, artifacts: Path) -> None:
    assert "No run has been recorded." in page(settings, artifacts)
    record(settings, Step("ingest", "ok"), Step("dbt build", "failed"))
    assert "The last run did not finish: dbt build failed." in page(settings, artifacts)
    record(settings, Step("ingest", "ok", summary={"rejected_files": 2}))
    files.write_run_results(artifacts, {"model.lakehouse.slv_x": "success", "test.lakehouse.key_of_x": "pass"})
    green = page(settings, artifacts)
    assert "The last run is green" in green and "rejected files 2" in green and "1 of 1" in green
    files.write_run_results(artifacts, {"test.lakehouse.key_of_x": "fail"})
    red = page(settings, artifacts)
    assert "1 nodes of the last build are not green: key_of_x." in red and "0 of 1" in red


def test_the_page_needs_no_network_and_shows_no_message_of_a_failed_test(settings: Settings, artifacts: Path) -> None:
    """Messages of failed tests may hold row values."""
    record(settings, Step("ingest", "ok"))
    files.write_run_results(artifacts, {"test.lakehouse.key_of_x": "fail"})
    found = gather(settings, artifacts)
    found.failed[:] = [NodeResult("test.lakehouse.key_of_x", "fail", "ann@example.com is there twice", 1.0)]
    text = write(found, settings.home_path / "report.html").read_text(encoding="utf-8")
    assert "ann@example.com" not in text
    assert not any(word in text for word in ("http:", "https:", "<script src", "<link", "@import", "url(", "fetch("))


def test_times_are_absolute_and_the_page_tells_its_own_age(settings: Settings, artifacts: Path) -> None:
    """A page that was written three days ago must not say `5 min ago`; how old it is, its reader's clock says."""
    job = Job(settings, lambda what, value: None)
    job.started_at = datetime(2026, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    job.save()
    shown = page(settings, artifacts)
    assert "2026-03-02 01:30 UTC" in shown and " ago<" not in shown
    assert f'As of <time id="as-of" datetime="{datetime.now(UTC):%Y-%m-%d}' in shown


def test_a_run_without_anything_new_leaves_the_last_ones_steps_on_the_page(settings: Settings, artifacts: Path) -> None:
    record(settings, Step("ingest", "ok", summary={"accepted": 4711}))
    for _ in range(2):
        job = Job(settings, lambda what, value: None)
        job.unchanged_since = "2026-03-01T00:00:00+00:00"
        job.save()
    shown = page(settings, artifacts)
    assert "Nothing new since the green run of 2026-03-01 00:00 UTC." in shown and "accepted 4711" in shown
