"""Publishing a changed table against overwriting it directly, to DuckDB and PostgreSQL, under a polling reader.

    make bench-publish          # 200 000 rows, 1 % changed, 4 rounds; about three minutes on two cores

Both load the same staged parquet files. Spark's staging, which both need, is left out: the ratio is that of the part
that differs, and larger than that of the whole. Direct is what a script does: CREATE OR REPLACE TABLE, or TRUNCATE and
COPY, each statement by itself, without audit.
The reader polls a two-table query: a count that is not whole, or two tables of different versions, is a partial read.
The goals: at most 1.25 times the seconds of the direct overwrite, and no partial read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from figures import machine, save

from python_ops.jobs.publish.duckdb_target import DuckDBTarget
from python_ops.jobs.publish.fingerprint import Field
from python_ops.jobs.publish.staged import CONFIG, SESSION, open_staged, staged_rows
from python_ops.jobs.publish.target import StagedTable, Warehouse
from python_ops.lake.config import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "tests" / "ops"))
from postgres_server import postgres_server
from servers import Server, secret_of, stage_rows

FIELDS = (
    Field("order_id", "bigint"), Field("customer_id", "bigint"), Field("status", "string"), Field("note", "string"),
    Field("amount", "decimal(18,2)"), Field("tax", "decimal(18,2)"), Field("is_paid", "boolean"),
    Field("order_date", "date"), Field("changed_at", "timestamp"), Field("version", "int"),
)  # fmt: skip
TABLES = ("fct_orders", "fct_returns")


def main() -> None:
    """Runs the benchmark and writes bench/results/publish.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", choices=["duckdb", "postgres"])
    given = parser.parse_args()
    (PROJECT_ROOT / "target").mkdir(exist_ok=True)
    result: dict[str, Any] = machine() | {
        "rows": given.rows,
        "changed_rows": given.rows // 100,
        "rounds": given.rounds,
    }
    with tempfile.TemporaryDirectory(prefix="bench", dir=PROJECT_ROOT / "target") as name, postgres_server() as dsn:
        folder = Path(name)
        sets = [staged_set(folder, number, given.rows) for number in range(given.rounds + 1)]
        published, direct = folder / "published.duckdb", folder / "direct.duckdb"
        if given.only != "postgres":
            result["duckdb"] = compare(
                sets,
                DuckDBTarget(published),
                lambda tables: overwrite_duckdb(direct, tables),
                str(published),
                str(direct),
            )
        target = Server("postgres", secret_of(dsn, sslmode="disable")).target()
        if given.only != "duckdb":
            result["postgres"] = compare(
                sets, target, lambda tables: overwrite_postgres(dsn, tables), f"{dsn}#gold", f"{dsn}#direct"
            )
    save("publish", result)


def staged_set(folder: Path, version: int, rows: int) -> list[StagedTable]:
    """Two tables of one version; from one version to the next a hundredth of the rows differs."""
    query = (
        "select range as order_id, range % 9973 as customer_id, 'status ' || range % 7 as status, "
        f"md5((range + if(range % 100 = {version}, {version}, 0))::varchar) as note, "
        "(range % 100000 / 100)::decimal(18,2) as amount, (range % 1000 / 100)::decimal(18,2) as tax, "
        "range % 3 = 0 as is_paid, date '2020-01-01' + (range % 2000)::int as order_date, "
        "timestamptz '2024-01-01 00:00:00+00' + to_seconds(range) as changed_at, "
        f"if(range % 100 = {version} or range = 0, {version}, -1)::int as version from range({rows})"
    )
    return [stage_rows(folder, name, version, query, FIELDS) for name in TABLES]


def compare(
    sets: list[list[StagedTable]],
    target: Warehouse,
    overwrite: Callable[[list[StagedTable]], None],
    published: str,
    direct: str,
) -> dict[str, Any]:
    """Rounds of both ways in turn, the first of each not counted; then the unchanged set once more."""
    rows = int(sets[0][0].fingerprint["rows"] or 0)
    target.prepare()
    target.replace(sets[0], target.served())
    overwrite(sets[0])
    seconds: dict[str, list[float]] = {"publish": [], "direct": []}
    reads: dict[str, list[dict[str, int]]] = {"publish": [], "direct": []}
    sent = 0
    for number, tables in enumerate(sets[1:]):
        for way in ("publish", "direct") if number % 2 else ("direct", "publish"):
            with Reader(published if way == "publish" else direct, rows) as reader:
                started = time.monotonic()
                if way == "publish":
                    sent = sum(took.sent for took in target.replace(tables, target.served()).values())
                else:
                    overwrite(tables)
                seconds[way].append(time.monotonic() - started)
            reads[way].append(reader.counts)
    middle = {way: statistics.median(took) for way, took in seconds.items()}
    return {
        "publish_seconds": round(middle["publish"], 2),
        "direct_seconds": round(middle["direct"], 2),
        "ratio": round(middle["publish"] / middle["direct"], 2),
        "rows_sent": sent,
        "reads": {
            way: {key: sum(count[key] for count in counts) for key in counts[0]} for way, counts in reads.items()
        },
        "seconds": {way: [round(took, 2) for took in listed] for way, listed in seconds.items()},
    }


def overwrite_duckdb(path: Path, tables: list[StagedTable]) -> None:
    """Each table replaced by a statement of its own."""
    with duckdb.connect(path, config=CONFIG) as connection:
        connection.execute(SESSION)
        connection.execute("create schema if not exists gold")
        for table in tables:
            connection.execute(f"create or replace table gold.{table.model.alias} as {staged_rows(table)}")


def overwrite_postgres(dsn: str, tables: list[StagedTable]) -> None:
    """Each table emptied, then filled, by statements of their own."""
    from python_ops.jobs.publish.postgres_target import PostgresTarget
    from python_ops.lake.secrets import Secrets

    target = PostgresTarget(Secrets([]), "ops", "local")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema if not exists direct")
        for table in tables:
            columns = ", ".join(f"{field.name} {target.type_of(field)}" for field in table.fields)
            connection.execute(f"create table if not exists direct.{table.model.alias} ({columns})")
            connection.execute(f"truncate direct.{table.model.alias}")
            with open_staged(table) as rows:
                target.send(connection.cursor(), "direct", table.model.alias, table.fields, rows, rows.every)


READER = """
import sys, json, time
place, rows = sys.argv[1], int(sys.argv[2])
schema = place.rsplit("#", 1)[1] if "#" in place else "gold"
query = (
    "select (select count(*) from {0}.fct_orders), (select count(*) from {0}.fct_returns), "
    "(select max(version) from {0}.fct_orders), (select max(version) from {0}.fct_returns)"
).format(schema)
counts = {"reads": 0, "locked_out": 0, "partial": 0}
if "#" in place:
    import psycopg
    connection = psycopg.connect(place.rsplit("#", 1)[0], autocommit=True)
    read = lambda: connection.execute(query).fetchone()
else:
    import duckdb
    def read():
        with duckdb.connect(place, read_only=True) as connection:
            return connection.execute(query).fetchone()
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0.02)[0]:
    try:
        one, two, version, other = read()
    except Exception:
        counts["locked_out"] += 1
        continue
    counts["reads"] += 1
    counts["partial"] += one != rows or two != rows or version != other
print(json.dumps(counts))
"""


class Reader:
    """Another process that polls while tables change."""

    def __init__(self, place: str, rows: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER, place, str(rows)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.counts: dict[str, int] = {}

    def __enter__(self) -> Reader:
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        told, _ = self.process.communicate("stop\n", timeout=60)
        self.counts = json.loads(told)


if __name__ == "__main__":
    main()
