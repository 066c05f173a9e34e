"""About what a small dbt build does, on a Spark Connect server of this machine, which is then warm for one."""

from __future__ import annotations

import sys
import tempfile
import time

STATEMENTS = (
    "create table {table} (id bigint, name string, at timestamp, amount decimal(18, 2)) using delta",
    "insert into {table} select id, to_json(struct(id)), timestamp_micros(id), id from range(1000)",
    "cache lazy table staged as"
    " select id + 950 as id, 'new' as name, timestamp_micros(9) as at, 1.5 as amount from range(99)",
    "describe query select lead(at) over (partition by name order by at, id) from {table}",
    "merge into {table} as stored"
    " using (select *, row_number() over (partition by id order by at) as place from staged) as given"
    " on stored.id <=> given.id and stored.id between 0 and 2000"
    " when matched and not stored.name <=> given.name then update set name = given.name, at = given.at"
    " when not matched then insert (id, name, at, amount) values (given.id, given.name, given.at, given.amount)",
    "alter table {table} set tblproperties ('exercised' = 'yes')",
    "describe history {table} limit 1",
    "select name, count(*), max(struct(at, id)) from {table} left semi join staged using (id) group by name",
    "show views in global_temp",
)


def exercise(port: int, table: str) -> None:
    """Runs the statements on a server of this machine, whose token is in Spark's own variable.

    Args:
        table: A Delta table that is not there yet, by name or by path.
    """
    from pyspark.sql import SparkSession

    session = SparkSession.builder.remote(f"sc://localhost:{port}").create()
    for statement in STATEMENTS:
        session.sql(statement.format(table=table)).collect()
    session.stop()


if __name__ == "__main__":
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="exercise") as folder:
        exercise(int(sys.argv[1]), f"delta.`{folder}/events`")
    print(f"exercised in {time.monotonic() - began:.0f} s", flush=True)
