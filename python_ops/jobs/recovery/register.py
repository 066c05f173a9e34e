"""Telling Spark's catalog of restored tables, where it does not know them: a new home has an empty one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from python_ops.jobs.recovery.manifest import StoredTable
from python_ops.jobs.recovery.tables import table_folder
from python_ops.lake.config import Settings
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def register(spark: SparkSession, settings: Settings, tables: Sequence[StoredTable]) -> int:
    """Creates the schemas, and the tables on the folders that hold them; views come with the next `dbt build`.

    Returns:
        Tables that the catalog did not know.
    """
    made = 0
    for layer in sorted({table.layer for table in tables}):
        spark.sql(f"create schema if not exists {settings.schema_name(layer)}")
    for table in tables:
        name = f"{settings.schema_name(table.layer)}.{table.table}"
        if not spark.catalog.tableExists(name):
            place = escaped(table_folder(settings, table.layer, table.table).url)
            spark.sql(f"create table {name} using delta location '{place}'")
            made += 1
    return made
