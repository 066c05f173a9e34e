"""What the tests of Spark on S3 run in a process of its own, because Spark reads AWS's variables when it starts.

Usage: s3_lake.py build FOLDER               a CDC model, loaded and merged; prints what is there, as JSON
       s3_lake.py create TABLE               an empty table
       s3_lake.py names                      tables of silver that the session knows by name
       s3_lake.py write TABLE WRITER TIMES   appends and merges in turns; prints how many were acknowledged
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

for folder in ("", "tests/e2e", "tests/engine"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))

from cdc_lab import SMALL, Lab  # noqa: E402
from cdc_scenarios import COLUMNS, SELECT, deleted, event, states  # noqa: E402
from cdc_sets import SCD1  # noqa: E402
from pyspark.errors import PySparkException  # noqa: E402

from python_ops.lake.config import load_settings  # noqa: E402
from python_ops.lake.spark import session  # noqa: E402

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

BATCHES = (
    [event("A", 1, "old"), event("B", 1, "gone")],
    [event("A", 2, "new", 2), deleted("B", 2, 2), event("C", 2, "added", 2)],
)


def build(spark: SparkSession, folder: str) -> dict[str, Any]:
    """Loads and merges a CDC model by dbt; appends to the tables `lost` and `contested`,
    whose commits the server answers as S3 sometimes does."""
    lab = Lab(spark, Path(folder), "silver", SMALL)
    lab.bronze("t", COLUMNS)
    lab.model("m", "t", SELECT, **SCD1)
    for batch in BATCHES:
        lab.deliver("t", batch)
        lab.build()
    for name in ("lost", "contested"):
        spark.sql(f"create table silver.{name} (id int) using delta")
        for id in (1, 2):
            spark.sql(f"insert into silver.{name} values ({id})")
    detail = spark.sql("describe detail silver.m__cdc").first()
    assert detail is not None
    return {
        "states": states(lab, "m"),
        "operations": [commit["operation"] for commit in lab.data_commits("m__cdc")],
        "location": detail["location"],
        **{name: [sorted(row["id"] for row in lab.rows(name)), lab.version(name)] for name in ("lost", "contested")},
    }


def names(spark: SparkSession) -> list[str]:
    """Names of Delta tables."""
    return sorted(row["tableName"] for row in spark.sql("show tables in silver").collect())


def create(spark: SparkSession, table: str) -> None:
    """Rows of `writer`, each in a partition of its own."""
    spark.sql(
        f"create table delta.`{table}` (writer string, turn int, merged boolean) using delta partitioned by (writer) "
        "tblproperties ('delta.enableDeletionVectors' = 'false')"
    )


def write(spark: SparkSession, table: str, writer: str, times: str) -> int:
    """Each turn is a commit to the writer's own partition: two writers have nothing in common but the next number."""
    acknowledged = 0
    for turn in range(int(times)):
        if turn % 2:
            statement = (
                f"merge into delta.`{table}` t using (select '{writer}' as writer, {turn - 1} as turn) s on "
                f"t.writer = '{writer}' and t.turn = s.turn when matched then update set merged = true"
            )
        else:
            statement = f"insert into delta.`{table}` values ('{writer}', {turn}, false)"
        try:
            spark.sql(statement).collect()
            acknowledged += 1
        except PySparkException as exc:
            print(f"{writer} {turn}: {str(exc)[:300]}", file=sys.stderr)
    return acknowledged


def main(command: str, *given: str) -> None:
    """Runs it on the home of LAKEHOUSE_HOME."""
    spark = session(load_settings("local"))
    print(json.dumps({"build": build, "names": names, "create": create, "write": write}[command](spark, *given)))


if __name__ == "__main__":
    main(*sys.argv[1:])
