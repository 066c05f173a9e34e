"""The lake's side of publishing: which version a table has, and that version as parquet files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.jobs.publish.fingerprint import SPARK, Field
from python_ops.jobs.publish.target import StagedTable, Version
from python_ops.lake.artifacts import Model
from python_ops.lake.delta import TableLog
from python_ops.lake.errors import OpsError, first_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TIMESTAMPS = "spark.sql.parquet.outputTimestampType"  # Spark's default, INT96, is deprecated and has no time zone


def current_version(model: Model, log: TableLog) -> Version:
    """Version of a model's Delta table, read from its log without a JVM.

    Raises:
        OpsError: there is no table, or its log cannot be read.
    """
    if not log.exists:
        raise OpsError(
            f"{model.table} ({model.path}) has no Delta table in {log.path.parent}: run `dbt build --select "
            f"{model.name}`. Views are not published."
        )
    return Version(table_id=str(log.table.metadata().id), number=log.table.version())


def stage(spark: SparkSession, model: Model, path: Path, version: Version, folder: Path) -> StagedTable:
    """Writes one version of a table to parquet files, and fingerprints the rows in the same pass.

    Args:
        spark: The session; only Spark reads tables with deletion vectors.
        folder: Where the files go; must not exist.

    Raises:
        ConfigError: a column has a nested type.
        OpsError: Spark could not read the table or write the files.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from pyspark.sql import Observation
    from pyspark.sql.functions import expr

    started = time.monotonic()
    try:
        frame = spark.read.format("delta").option("versionAsOf", version.number).load(str(path))
        fields = tuple(Field(name, type_) for name, type_ in frame.dtypes)
        parts = SPARK.aggregates(fields)
        seen = Observation()
        # Observed under positions: a column's name may hold what an observation's name may not.
        observed = frame.observe(seen, *(expr(part).alias(f"p{i}") for i, part in enumerate(parts.values())))
        with _timestamps_with_zone(spark):
            observed.write.parquet(str(folder))
        fingerprint = {part: seen.get[f"p{i}"] for i, part in enumerate(parts)}
    except (PySparkException, Py4JJavaError) as exc:
        raise _failure(model, version, folder, str(exc)) from exc
    return StagedTable(model, version, fields, folder, fingerprint, time.monotonic() - started)


@contextmanager
def _timestamps_with_zone(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get(_TIMESTAMPS)
    spark.conf.set(_TIMESTAMPS, "TIMESTAMP_MICROS")
    try:
        yield
    finally:
        spark.conf.set(_TIMESTAMPS, before)


def _failure(model: Model, version: Version, folder: Path, text: str) -> OpsError:
    served = "What was served before is still served."
    if "No space left on device" in text:
        return OpsError(
            f"Staging {model.table}: the disk under {folder.parent} is full. {served} "
            "Free space, then run `lakeops publish run` again."
        )
    return OpsError(
        f"Staging {model.table} at Delta version {version.number} failed: {first_line(text)} {served} "
        "If a file of the table is missing, restore the table, then run `lakeops publish run` again."
    )
