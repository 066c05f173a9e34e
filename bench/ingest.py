"""Rows per second of parse + contract + dead-letter routing against a plain `from_json` append, interleaved.

    make bench-ingest          # 5 rounds after a warm-up; a few minutes on two cores

Both sides read the same Debezium lines, 1 % of them bad, and append to Delta; the accepted rows must be equal, or the
run is void. The plain side checks nothing: what does not parse becomes NULL. It has a session as users have, in which
Spark splits the file over the cores. The goal is 70 % of its rows per second. Processor seconds, of Python and the JVM,
say the same on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyspark
from figures import jvm_seconds, machine, save

from python_ops.jobs.ingest.batch import BatchWriter
from python_ops.jobs.ingest.reading import session_for_files
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.contracts import load
from python_ops.lake.lake import Lake
from python_ops.lake.spark import separate_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SOURCE = "shop_orders"
KEPT = "order_id, customer_id, ordered_at, status, currency, total_amount, updated_at"


def main() -> None:
    """Runs the benchmark and writes bench/results/ingest.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    (PROJECT_ROOT / "target").mkdir(exist_ok=True)
    lake = Lake(Settings(home=Path(tempfile.mkdtemp(prefix="bench", dir=PROJECT_ROOT / "target"))))
    sessions = {"ingest": session_for_files(lake), "plain": separate_session(lake.spark)}
    spark = sessions["plain"]
    spark.sql("create schema plain")
    seconds: dict[str, list[float]] = {"ingest": [], "plain": []}
    processor: dict[str, list[float]] = {"ingest": [], "plain": []}
    for number in range(asked.rounds + 1):
        path = deliver(lake, number, asked.rows)
        sides = ("ingest", "plain") if number % 2 else ("plain", "ingest")
        for side in sides:
            started, used = time.monotonic(), processor_seconds(spark)
            take(side, lake, sessions[side], path)
            seconds[side].append(time.monotonic() - started)
            processor[side].append(processor_seconds(spark) - used)
        print(
            f"round {number} of {asked.rounds}: "
            + ", ".join(f"{s} {seconds[s][-1]:.1f} s, processor {processor[s][-1]:.1f} s" for s in sides),
            flush=True,
        )
    difference = spark.sql(
        f"select count(*) as n from (select {KEPT}, count(*) from bronze.{SOURCE} group by all"
        f" except select {KEPT}, count(*) from plain.{SOURCE} where order_id is not null group by all)"
    ).collect()[0]["n"]
    dead = spark.sql(f"select count(*) as n from dlq.{SOURCE}").collect()[0]["n"]
    if difference or dead != (asked.rounds + 1) * len(range(0, asked.rows, 100)):
        raise SystemExit(f"void: {difference} accepted rows differ, {dead} dead letters")
    rates = {side: round(asked.rows / statistics.median(seconds[side][1:])) for side in seconds}
    result = machine() | {
        "spark": pyspark.__version__,
        "rows": asked.rows,
        "bad_share": 0.01,
        "rows_per_second": rates,
        "share_of_plain": round(rates["ingest"] / rates["plain"], 2),
        "processor_seconds": {side: round(statistics.median(processor[side][1:]), 2) for side in processor},
        "goal": 0.7,
    }
    save("ingest", result, seconds=seconds, processor=processor)


def deliver(lake: Lake, number: int, rows: int) -> Path:
    """Writes a landing file whose every hundredth line is bad."""
    folder = lake.landing / SOURCE
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for line in range(rows):
            order = number * rows + line
            after: dict[str, Any] = {
                "order_id": 9_007_199_254_740_993 + order, "customer_id": f"C{order % 5000:06d}",
                "ordered_at": "2025-03-03T06:00:00.123456Z", "status": "paid", "currency": "EUR",
                "total_amount": f"{order % 100000}.50", "updated_at": "2025-03-03T06:00:00.123456Z",
            }  # fmt: skip
            if line % 100 == 0:
                after["order_id"] = "not a number"
            source = {"table": "orders", "lsn": 26_000_000 + order, "ts_us": 1741000000000001, "txId": order}
            value = {"before": None, "after": after, "source": source, "op": "c", "ts_ms": 1741000000000}
            file.write(json.dumps({"topic": "orders", "key": {"order_id": after["order_id"]}, "value": value}) + "\n")
    return path


def processor_seconds(spark: SparkSession) -> float:
    """What this process and its JVM have used so far."""
    own = os.times()
    return own.user + own.system + jvm_seconds(spark)


def take(side: str, lake: Lake, spark: SparkSession, path: Path) -> None:
    """One append of one file."""
    if side == "ingest":
        writer = BatchWriter(lake, spark, load(SOURCE))
        writer.prepare()
        result = writer.run()
        if result.error:
            raise SystemExit(result.error)
        return
    after = ", ".join(f"{c.name}: {c.type if c.type != 'timestamp' else 'string'}" for c in load(SOURCE).columns)
    event = f"struct<value: struct<after: struct<{after}>, source: struct<lsn: bigint, ts_us: bigint>, op: string>>"
    columns = [
        f"event.value.after.{c.name}"
        if c.type != "timestamp"
        else f"try_cast(event.value.after.{c.name} as timestamp) as {c.name}"
        for c in load(SOURCE).columns
    ]
    spark.read.text(str(path)).selectExpr(f"from_json(value, '{event}') as event").selectExpr(
        *columns, "event.value.op as _op", "event.value.source.lsn as _source_lsn",
        "timestamp_micros(event.value.source.ts_us) as _source_ts",
    ).write.format("delta").mode("append").saveAsTable(f"plain.{SOURCE}")  # fmt: skip


if __name__ == "__main__":
    main()
