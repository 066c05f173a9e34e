"""A snapshot of an unchanged lake, and of one with 1 % of its rows changed, beside a full copy.

    make bench-recovery             # five rounds after a warm-up; about a minute, no Spark

A table of 100 files and two million rows; each round updates 1 % of them, all in one file (local keys; without deletion
vectors scattered keys would rewrite, and so copy, every file). It fails when the unchanged lake costs data bytes, or
the changed one more than 1.2 % of the table's; seconds are printed.
"""

from __future__ import annotations

import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from figures import machine, save

from python_ops.jobs.recovery.create import create
from python_ops.jobs.recovery.restore import restore
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.lake import Lake

FILES, ROWS, ROUNDS = 100, 20_000, 6


def main() -> None:
    """Runs the benchmark and writes bench/results/recovery.json."""
    (PROJECT_ROOT / "target").mkdir(exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="bench", dir=PROJECT_ROOT / "target"))
    lake = Lake(Settings(home=root / "lake"), artifacts=root / "artifacts")
    lake.artifacts.mkdir(parents=True)
    (lake.artifacts / "manifest.json").write_text(json.dumps({"nodes": {}}))
    place = lake.table_path("bronze", "shop_orders")
    for number in range(FILES):
        write_deltalake(str(place), rows(number, number), mode="append")
    DeltaTable(str(place)).create_checkpoint()
    first = create(lake)
    figures: dict[str, list[float]] = {"unchanged": [], "changed": [], "full": []}
    counters: dict[str, list[int]] = {"unchanged_bytes": [], "changed_bytes": [], "log_bytes": [], "table_bytes": []}
    for number in range(ROUNDS):
        for name in ("unchanged", "changed"):
            if name == "changed":
                change(place, number)
            started = time.monotonic()
            made = create(lake)
            figures[name].append(time.monotonic() - started)
            keep(counters, f"{name}_bytes", made)
        figures["full"].append(timed(lambda: shutil.copytree(place, root / "full")))
        shutil.rmtree(root / "full")
    took = timed(lambda: restore(lake, Lake(Settings(home=root / "restored")), execute=True))
    back = Lake(Settings(home=root / "restored")).table_path("bronze", "shop_orders")
    if DeltaTable(str(back)).to_pyarrow_table().sort_by("id") != DeltaTable(str(place)).to_pyarrow_table().sort_by(
        "id"
    ):
        raise SystemExit("void: the restored table differs from its source")
    share = max(b / t for b, t in zip(counters["changed_bytes"], counters["table_bytes"][1::2], strict=True))
    result = machine() | {
        "versions": {
            "python": platform.python_version(),
            "deltalake": deltalake.__version__,
            "pyarrow": pa.__version__,
        },
        "files": FILES,
        "table_bytes": first.bytes,
        "changed_rows_share": 0.01,
        "locality": "local",
        "unchanged_data_bytes": max(counters["unchanged_bytes"]),
        "changed_bytes_share": round(share, 4),
        "log_bytes": statistics.median(counters["log_bytes"]),
        "seconds": {name: spread(values[1:]) for name, values in figures.items()},
        "restore_seconds": round(took, 2),
    }
    save("recovery", result, raw=figures | counters)
    shutil.rmtree(root)
    if result["unchanged_data_bytes"] or share > 0.012:
        raise SystemExit("the goal is missed: 0 data bytes for an unchanged table, 1.2 % for one with 1 % changed")


def rows(number: int, seed: int) -> pa.Table:
    """One file's rows."""
    ids = range(number * ROWS, (number + 1) * ROWS)
    return pa.table({
        "id": pa.array(ids, pa.int64()),
        "amount": pa.array([(i * 7919 + seed * 104729) % 1_000_003 for i in ids], pa.int64()),
        "text": [f"{(i * 31 + seed) % 997:03} customer" for i in ids],
    })  # fmt: skip


def change(place: Path, number: int) -> None:
    """Updates the rows of one file: 1 % of the table."""
    source = rows(number, 1000 + number)
    low, high = number * ROWS, (number + 1) * ROWS
    (
        DeltaTable(str(place))
        .merge(source, f"target.id = source.id and target.id >= {low} and target.id < {high}", "source", "target")
        .when_matched_update_all()
        .execute()
    )


def keep(counters: dict[str, list[int]], name: str, made: Any) -> None:
    """Notes what a snapshot copied."""
    counters[name].append(made.copied_bytes)
    counters["log_bytes"].append(made.copied_log_bytes)
    counters["table_bytes"].append(sum(file.bytes for table in made.tables for file in table.files))


def timed(do: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.monotonic()
    do()
    return time.monotonic() - started


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, least and interquartile range."""
    quarters = statistics.quantiles(seconds, n=4)
    return {
        "median": round(statistics.median(seconds), 3),
        "min": round(min(seconds), 3),
        "iqr": round(quarters[2] - quarters[0], 3),
    }


if __name__ == "__main__":
    main()
