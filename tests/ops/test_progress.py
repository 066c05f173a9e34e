"""What a command shows while it works: a moving line on a terminal, one aligned line for each event elsewhere."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from python_ops.cli.live import Live
from python_ops.cli.progress import Progress
from python_ops.jobs.extract import ExtractResult
from python_ops.jobs.ingest import IngestResult
from python_ops.jobs.publish import Action, PublishResult
from python_ops.run.daily import Step


def node(event: str, name: str, status: str = "success", message: str = "merged 3 rows", kind: str = "model") -> Any:
    info = SimpleNamespace(node_name=name, resource_type=kind, materialized="incremental", node_status=status)
    result = SimpleNamespace(message=message, execution_time=1.5)
    return SimpleNamespace(info=SimpleNamespace(name=event), data=SimpleNamespace(node_info=info, run_result=result))


def play(told: Progress) -> None:
    """A run with every kind of event, as `Job` reports them."""
    told("reason", "new files")
    told("step", Step("ingest"))
    told("starts", "shop_orders")
    late = "batch 3: its positions end behind what was taken"
    told("ingest", IngestResult("shop_orders", 3, 1, 10, 9, 1, warnings=(late,), seconds=2.5))
    told("ingest", IngestResult("shop_orders", 3, 1, 10, 9, 1, warnings=(late,), seconds=2.5))
    told("extract", ExtractResult("fx_rates", "fx", rows=2, bytes=99, files=("a",), seconds=1.0))
    told("step", Step("ingest", "ok", 3.0, {"sources": 2}))
    told("step", Step("dbt build"))
    told("nodes", 3)
    for event in ("NodeStart", "NodeFinished"):
        told("node", node(event, "slv_shop_orders_history"))
    told("node", node("NodeFinished", "key_of_x", "fail", "Got 2 results, configured to fail if != 0", "test"))
    told("publish", PublishResult("duckdb", "gold.fct_orders", 4, 10, Action.STAGED, 1.0))
    told("publish", PublishResult("duckdb", "gold.fct_orders", 4, 10, Action.PUBLISHED, 1.0, 10))


def test_each_event_is_one_aligned_line_and_a_warning_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as told:
        play(told)
    out = capsys.readouterr().out
    lines = out.splitlines()
    subjects = [
        "shop_orders",
        "shop_orders",
        "fx_rates",
        "ingest",
        "slv_shop_orders_history",
        "key_of_x",
        "gold.fct_orders",
    ]
    told_of = [line for line in lines if not line.startswith(("run ", " "))]
    assert [line[8:37].strip() for line in told_of] == subjects
    assert all(re.fullmatch(r"\w+ +", line[:8]) and line[37] == " " and line[38] != " " for line in told_of)
    assert out.count("its positions end behind") == 1
    assert "(2.5 s)" in told_of[0] and "(1.5 s)" in told_of[4]
    assert "2 rows break the test. Fix: " in told_of[5]


def test_a_terminal_shows_what_is_done_and_what_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Live() as live:
        live.begin("dbt build", 8)
        for name in "abcdef":
            live.start(f"slv_{name}")
        live.end("slv_b")
    shown = re.sub(r"\x1b\[[0-9;?]*\w", "", capsys.readouterr().out)
    assert "dbt build: 1 of 8 done, now slv_a, slv_c, slv_d, slv_e and 1 more 0:00:0" in shown
    monkeypatch.delenv("FORCE_COLOR")
    with Live() as live:
        live.start("x")
    assert capsys.readouterr().out == "", "nothing moves in a file"
