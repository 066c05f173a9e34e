"""Telling Spark's catalog of restored tables, where it does not know them: a new home has an empty one."""

from __future__ import annotations

from collections.abc import Sequence

from python_ops.jobs.recovery.manifest import StoredTable
from python_ops.lake.home import register_table
from python_ops.lake.lake import Lake


def register(lake: Lake, tables: Sequence[StoredTable]) -> int:
    """Registers tables on the folders that hold them; views come with the next `dbt build`.

    Returns:
        Tables that the catalog did not know.
    """
    spark, made = lake.spark, 0
    for table in tables:
        schema = lake.schema_name(table.layer)
        if not spark.catalog.tableExists(f"{schema}.{table.table}"):
            register_table(spark, schema, table.table, lake.table_path(table.layer, table.table))
            made += 1
    return made
