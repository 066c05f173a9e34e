"""One incremental CDC model against the MERGE that a team would write by hand: seconds, jobs, statements, rows written.

    make bench-cdc                                  # up to a million rows: about twelve minutes
    make bench-cdc-large                            # 8 and 32 million: first load, full refresh, growth
    python bench/cdc.py --rows 8000000 --trace      # one table, printed only, with every statement of the last round
    python bench/cdc.py --large --scale 0.01        # a trial of the large cases, printed only

Both sides read the same bronze batches in turn (A B, B A, …) and must end in identical rows, or the figures are void.
The engine's side is the whole warm dbt model: validation, marks, tie check, views. The other side is Delta's documented
recipe (scd2: the updates united with themselves under a NULL merge key; scd1: update where newer, else insert). It is
told which batch to read, and it is right only because every batch here is whole and in order. Its first load, a plain
clustered CTAS, is what the engine's first load and full refresh are held to.

One case is compared with what dbt offers besides: `dbt snapshot` (check strategy, hard deletes) of a table that holds
the source's current rows, and the model's own full refresh. The snapshot's versions begin when it runs, so what must be
equal are the values of the current rows and the number of versions.

Every case has its goal, and the statements of its last run: what a missed goal is made of. bench/cdc_table.py writes
the table of docs/cdc.md from the results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import RESULTS, machine, write

from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.spark import session

sys.path.insert(0, str(PROJECT_ROOT / "tests" / "engine"))
sys.path.insert(0, str(PROJECT_ROOT / "tests" / "e2e"))
from cdc_lab import Lab
from cdc_sides import Meter, Recipe, Run, Snapshot, bronze, deliver, model, run_model


@dataclass(frozen=True)
class Table:
    """What is measured on one table. `rows`: its keys. `changed`: updates per batch, one per key."""

    rows: int
    changed: int
    strategy: str = "cdc_scd2"
    localities: tuple[str, ...] = ("local",)
    with_dbt: bool = False  # dbt snapshot, and a full refresh
    with_loads: bool = False  # first load and full refresh beside CTAS
    with_nothing: bool = False  # runs without news


STANDARD = (
    Table(10_000, 100, localities=("uniform",), with_nothing=True),
    Table(1_000_000, 1_000, localities=("local", "uniform"), with_dbt=True),
    Table(1_000_000, 1_000, strategy="cdc_scd1"),
)
LARGE = (
    Table(500_000, 8_000, localities=("local", "uniform")),
    Table(8_000_000, 8_000, localities=("local", "uniform"), with_loads=True),
    Table(32_000_000, 32_000),
)

# (kind, strategy, locality, rows): the other side's seconds divided by the engine's, at least. Kinds without rows are
# the engine's seconds divided by the other's, at most.
GOALS = {
    ("changes", "cdc_scd2", "uniform", 10_000): 0.9,
    ("changes", "cdc_scd2", "local", 1_000_000): 1.2,
    ("changes", "cdc_scd2", "uniform", 1_000_000): 1.2,
    ("changes", "cdc_scd1", "local", 1_000_000): 1.0,
    ("changes", "cdc_scd2", "local", 8_000_000): 2.0,
    ("changes", "cdc_scd2", "uniform", 8_000_000): 2.0,
    ("changes", "cdc_scd2", "local", 32_000_000): 4.0,
    ("snapshot", "cdc_scd2", "local", 1_000_000): 5.0,
    ("rebuild", "cdc_scd2", "local", 1_000_000): 10.0,
}
AT_MOST = {"first load": 2.0, "full refresh": 2.0, "growth, local": 1.5, "growth, uniform": 4.0}


def main() -> None:
    """Runs the standard or the large cases, which are kept in bench/results/cdc.json, or one table, or a trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="the large cases")
    parser.add_argument("--scale", type=float, default=1, help="this share of the rows, printed only")
    parser.add_argument("--rows", type=int, help="rows of one table, printed only")
    parser.add_argument("--changed", type=int, help="changed rows per batch (default: a thousandth)")
    parser.add_argument("--locality", choices=["local", "outlier", "uniform"], nargs="+", default=["local"])
    parser.add_argument("--strategy", choices=["cdc_scd1", "cdc_scd2"], default="cdc_scd2")
    for name in ("with-dbt", "with-loads", "with-nothing"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rounds", type=int, help="counted rounds (5; 4 of the large tables)")
    parser.add_argument("--trace", action="store_true", help="print the statements of each case")
    given = parser.parse_args()
    tables: tuple[Table, ...] = LARGE if given.large else STANDARD
    if given.rows:
        rest = (given.with_dbt, given.with_loads, given.with_nothing)
        changed = given.changed or given.rows // 1000
        tables = (Table(given.rows, changed, given.strategy, tuple(given.locality), *rest),)
    is_kept = not given.rows and given.scale == 1
    (PROJECT_ROOT / "target").mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench", dir=PROJECT_ROOT / "target"))
    found: list[dict[str, Any]] = []
    try:
        spark = session(Settings(home=home))
        for number, table in enumerate(tables):
            lab = Lab(spark, home / f"table_{number}", f"table_{number}")
            made = Bench(lab, table, given.scale, given.rounds or (4 if given.large else 5), 1 if given.large else 2)
            for case in made.cases():
                found.append(case)
                _show(case, given.trace)
            spark.sql(f"drop schema {lab.schema} cascade")
            shutil.rmtree(home / f"table_{number}")
    finally:
        shutil.rmtree(home, ignore_errors=True)
        for case in growth(found, given.scale):
            found.append(case)
            _show(case, given.trace)
        if is_kept:
            keep(found)


def keep(found: list[dict[str, Any]]) -> None:
    """Puts these cases in the place of those of an earlier run; the others stay."""
    path, names = RESULTS / "cdc.json", {case["case"] for case in found}
    before = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else []
    write("cdc", {"cases": [case for case in before if case.get("case") not in names | {None}] + found})


def _show(case: dict[str, Any], with_statements: bool) -> None:
    print(
        json.dumps({name: value for name, value in case.items() if name not in ("statements", "machine")}), flush=True
    )
    if with_statements or case["met"] is False:
        for one in case["statements"]:
            seconds, processor = one["seconds"], one["processor_seconds"]
            print(f"  {seconds:7.2f} s {processor:7.2f} cpu {one['jobs']:3} jobs  {one['sql']}", flush=True)


class Bench:
    """One table, filled on both sides, and rounds of one batch each, of which the first are not counted."""

    def __init__(self, lab: Lab, table: Table, scale: float, rounds: int, warm_up: int) -> None:
        self.lab, self.table, self.rounds, self.warm_up = lab, table, rounds, warm_up
        self.rows, self.changed = int(table.rows * scale), max(1, int(table.changed * scale))
        self.meter, self.recipe = Meter(lab.spark), Recipe(lab, table.strategy)
        self.batch = 1

    def cases(self) -> Iterator[dict[str, Any]]:
        """Measures."""
        bronze(self.lab)
        model(self.lab, self.table.strategy)
        deliver(self.lab, 1, f"range({self.rows})")
        loaded = run_model(self.lab)
        plain = [self._timed(lambda: self.recipe.load(self.rows))]
        if self.table.with_loads:
            refreshed = run_model(self.lab, full_refresh=True)
            plain.append(self._timed(lambda: self.recipe.load(self.rows)))
            self._must_be_equal()
            yield self._case("first load", "CTAS", [loaded], plain)
            yield self._case("full refresh", "CTAS", [refreshed], plain)
        for locality in self.table.localities:
            yield from self._changes(locality)
        if self.table.with_nothing:
            runs = [run_model(self.lab) for _ in range(self.rounds + self.warm_up)]
            case = self._case("nothing new", None, runs[self.warm_up :], [])
            yield case | {
                "goal": "≤ 0.3 s, 3 statements",
                "met": case["engine"] <= 0.3 and case["engine_statements"] <= 3,
            }

    def _changes(self, locality: str) -> Iterator[dict[str, Any]]:
        with_dbt = self.table.with_dbt and locality == "local"
        snapshot, taken = Snapshot(self.lab) if with_dbt else None, list[float]()
        runs, plain, jobs = list[Run](), list[float](), 0
        for number in range(self.rounds + self.warm_up):
            self.batch += 1
            deliver(self.lab, self.batch, self._keys(locality))
            for side in ("engine", "recipe") if number % 2 else ("recipe", "engine"):
                if side == "engine":
                    runs.append(run_model(self.lab))
                else:
                    before = self.meter.read()[1]
                    plain.append(self._timed(lambda: self.recipe.apply(self.batch)))
                    jobs = self.meter.read()[1] - before
            if snapshot:
                taken.append(snapshot.apply(self.batch))
        if snapshot and (difference := snapshot.difference()):
            raise SystemExit(f"void: the snapshot differs in {difference} rows")
        self._must_be_equal()
        counted = runs[self.warm_up :]
        case = self._case("changes", "recipe", counted, plain[self.warm_up :], locality)
        yield case | {"other_jobs": jobs, "rows_written_per_change": self._written()}
        if snapshot:
            yield self._case("snapshot", "dbt snapshot", counted, taken[self.warm_up :], locality)
            again = [run_model(self.lab, full_refresh=True).seconds for _ in range(3)]
            yield self._case("rebuild", "full refresh", counted, again[1:], locality)

    def _timed(self, run: Callable[[], None]) -> float:
        started = time.monotonic()
        run()
        return time.monotonic() - started

    def _must_be_equal(self) -> None:
        if difference := self.recipe.difference():
            raise SystemExit(f"void: the two sides differ in {difference} rows")

    def _keys(self, locality: str) -> str:
        """The keys of one batch: the newest, the newest and one far away, or scattered over all."""
        newest = f"(select id + {self.rows - self.changed} as id from range({self.changed}))"
        scattered = f"pmod(id * 7919 + {self.batch * 104729}, {self.rows})"
        return {
            "local": newest,
            "outlier": f"(select * from {newest} union all select {self.batch} as id)",
            "uniform": f"(select distinct {scattered} as id from range({self.changed}))",
        }[locality]

    def _written(self) -> float:
        history = self.lab.spark.sql(f"describe history {self.lab.schema}.slv_events__cdc limit 1").collect()
        metrics = history[0]["operationMetrics"]
        return round(
            sum(int(metrics[f"numTargetRows{kind}"]) for kind in ("Inserted", "Updated", "Copied")) / self.changed, 2
        )

    def _case(
        self, kind: str, other: str | None, runs: list[Run], plain: list[float], locality: str = ""
    ) -> dict[str, Any]:
        last, ours = runs[-1], statistics.median(run.seconds for run in runs)
        theirs = statistics.median(plain) if plain else None
        at_most = AT_MOST.get(kind)
        goal = at_most or GOALS.get((kind, self.table.strategy, locality, self.table.rows))
        ratio = None if theirs is None else round(ours / theirs if at_most else theirs / ours, 2)
        changed = f", {self.changed} changed" if kind in ("changes", "snapshot", "rebuild") else ""
        return {
            "case": f"{kind}: {self.table.strategy[4:]}, {self.rows} rows{changed}{', ' if locality else ''}{locality}",
            "kind": kind, "strategy": self.table.strategy[4:], "rows": self.rows, "changed": self.changed,
            "locality": locality, "engine": round(ours, 2), "other": None if theirs is None else round(theirs, 2),
            "other_is": other, "ratio": ratio, "goal": goal and f"{'≤' if at_most else '≥'} {goal:g}",
            "met": None if goal is None or ratio is None else ratio <= goal if at_most else ratio >= goal,
            "engine_jobs": last.jobs, "engine_statements": len(last.statements),
            "processor_seconds": round(last.processor_seconds, 2),
            "last_message": last.message,
            "seconds": {"engine": [round(run.seconds, 2) for run in runs], "other": [round(one, 2) for one in plain]},
            "machine": machine(),
            "statements": [
                {"seconds": round(one.seconds, 2), "processor_seconds": round(one.processor_seconds, 2),
                 "jobs": one.jobs, "sql": one.text[:110]}
                for one in last.statements
            ],
        }  # fmt: skip


def growth(found: list[dict[str, Any]], scale: float) -> Iterator[dict[str, Any]]:
    """The same change in sixteen times the rows: the engine's seconds there and here."""
    few, many = (int(table.rows * scale) for table in LARGE[:2])
    by_rows = {(case["rows"], case["locality"]): case for case in found if case["kind"] == "changes"}
    for locality in ("local", "uniform"):
        if (few, locality) in by_rows and (many, locality) in by_rows:
            small, large = by_rows[few, locality], by_rows[many, locality]
            kind, ratio = f"growth, {locality}", round(large["engine"] / small["engine"], 2)
            title = f"{kind}: {large['strategy']}, {few} to {many} rows, {large['changed']} changed"
            yield large | {
                "case": title, "kind": kind, "other": small["engine"], "other_is": f"{few} rows",
                "other_jobs": small["engine_jobs"], "ratio": ratio, "goal": f"≤ {AT_MOST[kind]:g}",
                "met": ratio <= AT_MOST[kind],
            }  # fmt: skip


if __name__ == "__main__":
    main()
