"""One incremental CDC model against the MERGE that a team would write by hand: seconds, jobs, statements, rows written.

    make bench-cdc                                  # the standard cases, up to a million rows: about eleven minutes
    python bench/cdc.py --rows 8000000 --trace      # one case, printed only, with every statement of the last round

Both sides read the same bronze batches in turn (A B, B A, …) and must end in identical rows, or the figures are void.
The engine's side is the whole warm dbt model: validation, marks, tie check, views. The other side is Delta's documented
recipe (scd2: the updates united with themselves under a NULL merge key; scd1: update where newer, else insert). It is
told which batch to read, and it is right only because every batch here is whole and in order.
The goals: no slower than the recipe on a small table; with a thousandth of 8 million rows changed, three times as fast
for the newest keys and 1.5 times for scattered ones; scd1 twice as fast; at most two rows written for each one changed.

One case is compared with what dbt offers besides: `dbt snapshot` (check strategy, hard deletes) of a table that holds
the source's current rows, and the model's own full refresh. Goals: five and ten times as fast. The snapshot's versions
begin when it runs, so what must be equal are the values of the current rows and the number of versions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import machine, save

from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.spark import session

sys.path.insert(0, str(PROJECT_ROOT / "tests" / "engine"))
sys.path.insert(0, str(PROJECT_ROOT / "tests" / "e2e"))
from cdc_lab import Lab

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VALUES = ("name", "email", "city", "status", "note")
COLUMNS = (*VALUES, "amount")
LISTED = ", ".join(("id", *COLUMNS, "seq", "ts"))
WARM_UP = 2


@dataclass(frozen=True)
class Case:
    """What is measured. `rows`: keys of the table. `changed`: updates per batch, one per key."""

    rows: int
    changed: int
    locality: str
    strategy: str
    with_dbt: bool = False


STANDARD = (
    Case(10_000, 100, "uniform", "cdc_scd2"),
    Case(1_000_000, 1_000, "local", "cdc_scd2", with_dbt=True),
    Case(1_000_000, 1_000, "uniform", "cdc_scd2"),
    Case(1_000_000, 1_000, "local", "cdc_scd1"),
)


def main() -> None:
    """Runs one case, or the standard ones, which are written to bench/results/cdc.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="rows of one case's table")
    parser.add_argument("--changed", type=int, help="changed rows per batch (default: a thousandth)")
    parser.add_argument("--locality", choices=["local", "outlier", "uniform"], default="local")
    parser.add_argument("--strategy", choices=["cdc_scd1", "cdc_scd2"], default="cdc_scd2")
    parser.add_argument("--with-dbt", action="store_true", help="compare with dbt snapshot and a full refresh too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trace", action="store_true", help="print the statements of the last round")
    given = parser.parse_args()
    changed = given.changed or (given.rows or 0) // 1000
    cases = [Case(given.rows, changed, given.locality, given.strategy, given.with_dbt)] if given.rows else STANDARD
    (PROJECT_ROOT / "target").mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench", dir=PROJECT_ROOT / "target"))
    found = []
    try:
        spark = session(Settings(home=home))
        for number, case in enumerate(cases):
            lab = Lab(spark, home / f"case_{number}", f"case_{number}")
            found.append(compare(lab, case, given.rounds, given.trace))
            print(json.dumps(found[-1]), flush=True)
            spark.sql(f"drop schema {lab.schema} cascade")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if given.rows:
        return
    result = machine() | {
        "rounds": given.rounds,
        "cases": found,
    }
    save("cdc", result)


def compare(lab: Lab, case: Case, rounds: int, trace: bool) -> dict[str, Any]:
    """A first load on both sides, then rounds of one batch each, the first two not counted."""
    lab.bronze("events", "id bigint, " + ", ".join(f"{name} string" for name in VALUES) + ", amount decimal(18,2)")
    lab.model(
        "slv_events", "events", f"{LISTED}, _op, _arrived_at, _batch_id",
        incremental_strategy=case.strategy, unique_key="id", sequence_by="seq", effective_at="ts",
        delete_when="_op = 'd'", except_columns=["_op", "_arrived_at"],
    )  # fmt: skip
    deliver(lab, 1, f"range({case.rows})")
    lab.build()
    recipe = Recipe(lab, case)
    snapshot = Snapshot(lab) if case.with_dbt else None
    seconds: dict[str, list[float]] = {"engine": [], "recipe": [], "snapshot": [], "full_refresh": []}
    jobs = {"engine": 0, "recipe": 0}
    statements, message = list[Statement](), ""
    for number in range(rounds + WARM_UP):
        batch = number + 2
        deliver(lab, batch, changed_keys(case, batch))
        for side in ("engine", "recipe") if number % 2 else ("recipe", "engine"):
            before, started = jobs_so_far(lab.spark), time.monotonic()
            if side == "engine":
                took, statements = traced_build(lab)
                message = lab.messages["slv_events"]
            else:
                recipe.apply(batch)
                took = time.monotonic() - started
            seconds[side].append(took)
            jobs[side] = jobs_so_far(lab.spark) - before
        if snapshot:
            seconds["snapshot"].append(snapshot.apply(batch))
    if snapshot and (difference := snapshot.difference()):
        raise SystemExit(f"void: the snapshot differs in {difference} rows")
    if difference := recipe.difference():
        raise SystemExit(f"void: the two sides differ in {difference} rows")
    if trace:
        for one in statements:
            print(f"{one.seconds:6.2f} s {one.jobs:3} jobs  {' '.join(one.text.split())[:130]}")
    merge = lab.spark.sql(f"describe history {lab.schema}.slv_events__cdc limit 1").collect()[0]["operationMetrics"]
    written = sum(int(merge[f"numTargetRows{kind}"]) for kind in ("Inserted", "Updated", "Copied"))
    for _ in range(rounds + WARM_UP if case.with_dbt else 0):
        seconds["full_refresh"].append(float(lab.build(full_refresh=True)[0].execution_time))
    counted = {side: took[WARM_UP:] for side, took in seconds.items() if took}
    middle = {side: statistics.median(took) for side, took in counted.items()}
    return vars(case) | {
        **{f"{side}_seconds": round(took, 2) for side, took in middle.items()},
        **{f"{side}_over_engine": round(took / middle["engine"], 2) for side, took in [*middle.items()][1:]},
        "engine_statements": len(statements),
        "engine_jobs": jobs["engine"],
        "recipe_jobs": jobs["recipe"],
        "rows_written_per_change": round(written / case.changed, 2),
        "seconds": {side: [round(one, 2) for one in took] for side, took in counted.items()},
        "last_message": message,
    }


def changed_keys(case: Case, batch: int) -> str:
    """The keys of one batch: the newest, the newest and one far away, or scattered over all."""
    newest = f"(select id + {case.rows - case.changed} as id from range({case.changed}))"
    scattered = f"pmod(id * 7919 + {batch * 104729}, {case.rows})"
    return {
        "local": newest,
        "outlier": f"(select * from {newest} union all select {batch} as id)",
        "uniform": f"(select distinct {scattered} as id from range({case.changed}))",
    }[case.locality]


def deliver(lab: Lab, batch: int, keys: str) -> None:
    """Appends one batch: one event for each key."""
    texts = ", ".join(f"concat('{name} ', id % 9973, ' ', {batch}) as {name}" for name in VALUES)
    at = f"timestamp '2026-01-01' + make_dt_interval({batch})"
    lab.spark.sql(
        f"insert into {lab.schema}.events select id, {texts}, cast(id % 1000 + {batch} as decimal(18,2)) as amount,"
        f" '{'c' if batch == 1 else 'u'}' as _op, {batch} as seq, {at} as ts, cast(null as array<string>) as _unsent,"
        f" cast(null as bigint) as move, {at} as _arrived_at, {batch} as _batch_id from {keys}"
    )


class Recipe:
    """The other side: https://docs.delta.io/delta-update/, section on SCD type 2, and its upsert."""

    def __init__(self, lab: Lab, case: Case) -> None:
        self.spark, self.history = lab.spark, case.strategy == "cdc_scd2"
        self.target, self.events, self.view = (f"{lab.schema}.{name}" for name in ("recipe", "events", "slv_events"))
        versions = ", ts as valid_from, cast(null as timestamp) as valid_to, true as is_current" if self.history else ""
        self.spark.sql(
            f"create table {self.target} using delta cluster by (id) as"
            f" select /*+ repartition_by_range({max(1, case.rows // 500_000)}, id) */ {LISTED}{versions}"
            f" from {self.events} where _batch_id = 1 sort by id"
        )

    def apply(self, batch: int) -> None:
        """One batch."""
        updates = f"(select {LISTED} from {self.events} where _batch_id = {batch})"
        if not self.history:
            self.spark.sql(
                f"merge into {self.target} as target using {updates} as changed on target.id = changed.id"
                " when matched and changed.seq > target.seq then update set * when not matched then insert *"
            ).collect()
            return
        differs = "(" + " or ".join(f"changed.{name} <> target.{name}" for name in COLUMNS) + ")"
        self.spark.sql(
            f"merge into {self.target} as target using ("
            f" select changed.id as merge_key, changed.* from {updates} as changed"
            f" union all select null as merge_key, changed.* from {updates} as changed"
            f"  join {self.target} as target on changed.id = target.id where target.is_current and {differs}"
            ") as changed on target.id = changed.merge_key"
            f" when matched and target.is_current and {differs}"
            " then update set is_current = false, valid_to = changed.ts"
            f" when not matched then insert ({LISTED}, valid_from, valid_to, is_current)"
            f" values ({', '.join(f'changed.{name}' for name in LISTED.split(', '))}, changed.ts, null, true)"
        ).collect()

    def difference(self) -> int:
        """Rows that only one side shows."""
        shown = LISTED + (", valid_from, valid_to, is_current" if self.history else "")
        one, other = (f"select {shown} from {name}" for name in (self.view, self.target))
        found = self.spark.sql(
            f"select (select count(*) from ({one} except all {other}))"
            f" + (select count(*) from ({other} except all {one})) as n"
        ).collect()
        return int(found[0]["n"])


SNAPSHOT = """
snapshots:
  - name: snapshot_of_events
    relation: source('bronze', 'current_events')
    config: {strategy: check, unique_key: id, check_cols: [CHECKED], hard_deletes: invalidate, file_format: delta,
      schema: SCHEMA}
"""


class Snapshot:
    """`dbt snapshot` of the source's current rows, which are kept apart; keeping them is not counted."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.current, self.events = lab, f"{lab.schema}.current_events", f"{lab.schema}.events"
        lab.bronze("current_events", "id bigint")
        lab.spark.sql(
            f"create or replace table {self.current} using delta as select {LISTED} from {self.events}"
            " where _batch_id = 1"
        )
        (lab.folder / "snapshots").mkdir()
        (lab.folder / "snapshots" / "snapshots.yml").write_text(
            SNAPSHOT.replace("CHECKED", ", ".join(COLUMNS)).replace("SCHEMA", lab.schema)
        )
        self._run()

    def apply(self, batch: int) -> float:
        """One batch: its seconds as dbt tells them."""
        self.lab.spark.sql(
            f"merge into {self.current} as t using (select {LISTED} from {self.events} where _batch_id = {batch}) as s"
            " on t.id = s.id when matched then update set * when not matched then insert *"
        ).collect()
        return self._run()

    def _run(self) -> float:
        return float(self.lab.build(command="snapshot")[0].execution_time)

    def difference(self) -> int:
        """Rows that only one side shows, and versions that it has more or less."""
        values = ", ".join(("id", *COLUMNS))
        view, taken = f"{self.lab.schema}.slv_events", f"{self.lab.schema}.snapshot_of_events"
        one = f"select {values} from {view} where is_current"
        other = f"select {values} from {taken} where dbt_valid_to is null"
        found = self.lab.spark.sql(
            f"select (select count(*) from ({one} except all {other})) + (select count(*) from ({other} except all"
            f" {one})) + abs((select count(*) from {view}) - (select count(*) from {taken})) as n"
        ).collect()
        return int(found[0]["n"])


@dataclass(frozen=True)
class Statement:
    """A statement of the model; seconds and Spark jobs until the next one."""

    text: str
    seconds: float
    jobs: int


def traced_build(lab: Lab) -> tuple[float, list[Statement]]:
    """A `dbt run`: the model's seconds as dbt tells them, and its statements."""
    sent: list[tuple[str, float, int]] = []

    def listen(event: Any) -> None:
        if event.info.name == "SQLQuery" and event.data.conn_name.startswith("model."):
            sent.append((event.data.sql.split("*/", 1)[-1], time.monotonic(), jobs_so_far(lab.spark)))

    models = lab.build(callbacks=[listen])
    ends = [*sent[1:], ("", time.monotonic(), jobs_so_far(lab.spark))]
    return float(models[0].execution_time), [
        Statement(text, end - at, last - first) for (text, at, first), (_, end, last) in zip(sent, ends, strict=True)
    ]


def jobs_so_far(spark: SparkSession) -> int:
    """Jobs that this Spark has started."""
    return int(spark._jsc.sc().dagScheduler().numTotalJobs())


if __name__ == "__main__":
    main()
