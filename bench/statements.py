"""What a node costs: every statement of each kind of node, with its Spark jobs. Counters only; seconds are in cdc.py.

    python bench/statements.py      # about three minutes

A small dbt project has one node of each kind: a seed, two CDC models, a view, a merge model and a test. It is built
five times: first load, a second batch, one in order, one with a late event, and with nothing new. A job is counted for
the statement before it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.spark import session

sys.path.insert(0, str(PROJECT_ROOT / "tests" / "engine"))
sys.path.insert(0, str(PROJECT_ROOT / "tests" / "e2e"))
from cdc_lab import Lab
from cdc_scenarios import COLUMNS, SELECT, event
from cdc_sets import SCD1, SCD2

MERGED = """
{% if is_incremental() -%}
with touched as (
    select * from {{ delta_cdc.touched_keys('select k from (' ~ delta_cdc.changed_keys('state') ~ ')') }}
)
{% endif %}
select state.k, state.a from {{ ref('state') }} as state
{% if is_incremental() %}left semi join touched on state.k = touched.k{% endif %}
"""
YAML = """
models:
  - name: state
    columns: [{name: k, data_tests: [not_null]}]
"""
BATCHES = (
    ("first load", [event("a", 10, "x"), event("b", 20, "x")]),
    ("a second batch", [event("a", 30, "y", 2)]),
    ("in order", [event("a", 40, "y", 3), event("c", 50, "z", 3)]),
    ("a late event", [event("a", 35, "w", 4)]),
    ("nothing new", []),
)


def main() -> None:
    """Builds the project and prints what each node of each build took."""
    (PROJECT_ROOT / "target").mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench", dir=PROJECT_ROOT / "target"))
    try:
        lab = Lab(session(Settings(home=home)), home / "lab", "statements")
        _write_project(lab)
        for title, rows in BATCHES:
            if rows:
                lab.deliver("t", rows)
            _show(title, _counted_build(lab))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _write_project(lab: Lab) -> None:
    lab.bronze("t", COLUMNS)
    lab.model("history", "t", SELECT, **SCD2)
    lab.model("state", "t", SELECT.replace(" ts,", ""), **SCD1)
    lab.sql("shown", "select * from {{ ref('history') }}", materialized="view")
    lab.sql("merged", MERGED, incremental_strategy="merge", unique_key="k", replace_by="k")
    (lab.folder / "models" / "models.yml").write_text(YAML)
    (lab.folder / "seeds").mkdir()
    (lab.folder / "seeds" / "countries.csv").write_text("code,name\nDE,Germany\n")


def _counted_build(lab: Lab) -> dict[str, list[tuple[str, int]]]:
    """A `dbt build`: its statements by node, each with the jobs that it started."""
    sent: list[tuple[str, str, int]] = []

    def count() -> int:
        return int(lab.spark._jsc.sc().dagScheduler().numTotalJobs())

    def watch(_: Any, sql: str) -> None:
        node = re.search(r'"node_id": "([^"]+)"', sql)
        sent.append((node[1] if node else "dbt itself", re.sub(r"/\*.*?\*/", "", sql, count=1, flags=re.S), count()))

    lab.watchers.append(watch)
    lab.build(command="build", arguments=["--threads", "1"])
    lab.watchers.clear()
    found: dict[str, list[tuple[str, int]]] = {}
    for (node, text, before), after in zip(sent, [*(one[2] for one in sent[1:]), count()], strict=True):
        found.setdefault(node, []).append((" ".join(text.split()), after - before))
    return found


def _show(title: str, nodes: dict[str, list[tuple[str, int]]]) -> None:
    counted = [one for statements in nodes.values() for one in statements]
    print(f"== {title}: {len(counted)} statements, {sum(jobs for _, jobs in counted)} jobs")
    for node, statements in nodes.items():
        print(f"   {node}: {len(statements)} statements, {sum(jobs for _, jobs in statements)} jobs")
        for text, jobs in statements:
            print(f"      {jobs:3}  {text[:110]}")


if __name__ == "__main__":
    main()
