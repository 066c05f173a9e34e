"""Many micro-merges into one table with `lakeops maintain` and into its twin without, interleaved.

    make bench-maintenance          # 200 merges each; about ten minutes on two cores

Prints the median of the last 20 merges over that of the first 20, for both, and proves that the twins are equal.
The goal is at most 1.2 with maintenance.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import machine, save

from python_ops.jobs.maintenance import Policy, maintain_table
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS, CHANGED, EVERY = 200_000, 200, 10


def main() -> None:
    """Runs the benchmark and writes bench/results/maintenance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--merges", type=int, default=200)
    merges = parser.parse_args().merges
    lake = Lake(Settings(home=Path(tempfile.mkdtemp(prefix="bench", dir=PROJECT_ROOT / "target"))))
    spark = lake.spark
    spark.sql("create schema if not exists gold")
    for name in ("kept", "left"):
        spark.sql(
            f"create table gold.{name} using delta cluster by (id) as "
            f"select id, id % 97 as value, repeat('x', 40) as text from range({ROWS})"
        )
    policy = Policy("gold.kept", lake.table_path("gold", "kept"), optimize_after_files=EVERY, retain_hours=168)
    seconds: dict[str, list[float]] = {"kept": [], "left": []}
    upkeep = []
    for number in range(merges):
        for name in ("kept", "left") if number % 2 else ("left", "kept"):
            seconds[name].append(timed(partial(merge, spark, name, number)))
        if (number + 1) % EVERY == 0:
            upkeep.append(timed(partial(maintain_table, spark, policy)))
            print(f"{number + 1} of {merges} merges", flush=True)
    difference = spark.sql(
        "select count(*) as n from (select * from gold.kept except select * from gold.left)"
    ).collect()[0]["n"]
    if difference:
        raise SystemExit(f"void: the twins differ in {difference} rows")
    result = machine() | {
        "merges": merges,
        "rows": ROWS,
        "changed_rows": CHANGED,
        "locality": "uniform",
        "maintained": ratio(seconds["kept"]),
        "not_maintained": ratio(seconds["left"]),
        "maintenance_seconds": round(sum(upkeep), 1),
    }
    save("maintenance", result, seconds=seconds)


def merge(spark: SparkSession, name: str, number: int) -> None:
    """One micro-merge: scattered updates and a few new rows."""
    spark.sql(
        f"merge into gold.{name} as target using ("
        f"  select distinct pmod(id * 7919 + {number * 104729}, {ROWS + number * 5}) as id, {number} as value,"
        f"  repeat('y', 40) as text from range({CHANGED})"
        f") as source on target.id = source.id "
        "when matched then update set value = source.value, text = source.text "
        "when not matched then insert *"
    )


def timed(do: Any) -> float:
    """Seconds that a call takes."""
    started = time.monotonic()
    do()
    return time.monotonic() - started


def ratio(seconds: list[float]) -> dict[str, float]:
    """Median of the last 20 over the median of the first 20, after a warm-up of 5."""
    first, last = statistics.median(seconds[5:25]), statistics.median(seconds[-20:])
    return {"first": round(first, 2), "last": round(last, 2), "ratio": round(last / first, 2)}


if __name__ == "__main__":
    main()
