"""The table of docs/cdc.md is that of the benchmark's results."""

from __future__ import annotations

import json
import sys
from typing import Any

from python_ops.lake.config import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "bench"))
from cdc_table import BEGIN, END, PAGE, RESULTS, table


def test_the_page_has_the_figures_of_the_results() -> None:
    cases = json.loads((RESULTS / "cdc.json").read_text(encoding="utf-8"))["cases"]
    shown = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert shown.strip() == table(cases).strip(), "`python bench/cdc_table.py` writes it anew"


def test_a_missed_goal_is_told_with_its_dearest_statements() -> None:
    machine = {"at": "2026-11-29T12:00:00+00:00", "cores": 2, "processor": "P", "versions": {"pyspark": "4"}}
    statements = [{"sql": f"{word} into t", "seconds": seconds} for word, seconds in (("set", 0.1), ("merge", 2.0))]
    case: dict[str, Any] = {
        "kind": "first load", "strategy": "scd2", "rows": 8_000_000, "changed": 8000, "locality": "", "engine": 90.0,
        "other": 30.0, "other_is": "CTAS", "ratio": 3.0, "goal": "≤ 2", "met": False, "engine_jobs": 9,
        "engine_statements": 2, "machine": machine, "statements": statements,
    }  # fmt: skip
    missed, met = table([case]), table([case | {"met": True}])
    row = "| first load: scd2, 8 000 000 rows |  | 90.0 s, 9 jobs, 2 statements | CTAS: 30.0 s | 3.0 | ≤ 2 | missed |"
    assert row in missed and "- first load: scd2, 8 000 000 rows: `merge into t` 2.0 s, `set into t` 0.1 s." in missed
    assert "Measured on 2026-11-29: 2 cores (P), pyspark 4." in met and "Where the seconds" not in met
