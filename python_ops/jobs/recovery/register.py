"""Telling Spark's catalog of restored tables, where it does not know them: a new home has an empty one."""

from __future__ import annotations

from collections.abc import Sequence

from python_ops.jobs.recovery.manifest import StoredTable
from python_ops.jobs.recovery.tables import table_folder
from python_ops.lake.lake import Lake
from python_ops.lake.sql import escaped


def register(lake: Lake, tables: Sequence[StoredTable]) -> int:
    """Creates the schemas, and the tables on the folders that hold them; views come with the next `dbt build`.

    Returns:
        Tables that the catalog did not know.
    """
    spark, made = lake.spark, 0
    for layer in sorted({table.layer for table in tables}):
        spark.sql(f"create schema if not exists {lake.schema_name(layer)}")
    for table in tables:
        name = f"{lake.schema_name(table.layer)}.{table.table}"
        if not spark.catalog.tableExists(name):
            place = escaped(table_folder(lake, table.layer, table.table).url)
            spark.sql(f"create table {name} using delta location '{place}'")
            made += 1
    return made
