"""Gold tables to a serving database: staged, audited, then swapped as one set.

Only tables whose rows changed since the last publication are sent. A table of the set that fails its audit leaves every
table as it was: a new fact is never served beside an old dimension.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable

from python_ops.artifacts import Artifacts, Model
from python_ops.config import Settings
from python_ops.errors import OpsError
from python_ops.publish.audit import checksums
from python_ops.publish.duckdb_target import DuckDBTarget, Staged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class PublishResult:
    """What happened to one table. `version` is the Delta version that is served now."""

    table: str
    version: int
    rows: int
    action: str
    seconds: float


def publish(
    settings: Settings,
    spark: Callable[[], SparkSession],
    artifacts: Artifacts | None = None,
    on_event: Callable[[PublishResult], None] | None = None,
) -> list[PublishResult]:
    """Sends the gold models whose meta `publish_to` names `duckdb`.

    Args:
        settings: The environment.
        spark: Gives the session; called only when a table changed.
        artifacts: dbt's artifacts of the last build; those in `target/` when None.
        on_event: Called with each result, after the whole set is served.

    Raises:
        OpsError: the last build was not green, a table is missing, or an audit failed. What was served stays served.
        BusyError: another process has the database open.
    """
    artifacts = artifacts or Artifacts()
    models = artifacts.published_to("duckdb")
    if bad := artifacts.bad_nodes_under(models):
        names = ", ".join(sorted(result.unique_id.split(".")[2] for result in bad))
        raise OpsError(
            f"Nothing was published: {names} did not succeed in the last build, and the published tables rest on it. "
            "The tables of the last publication are still served. Mend it, run `dbt build`, then `lakeops publish run`."
        )
    stage = settings.state / "publish" / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    with DuckDBTarget(settings.home_path / "published" / "lakehouse.duckdb") as target:
        served = target.ledger()
        waiting: list[tuple[Model, str, int]] = []
        results = []
        for model in models:
            table_id, version = data_version(settings.home_path / "warehouse" / f"{model.schema}.db" / model.alias)
            last = served.get(_served_name(model))
            if last and (last.table_id, last.version) == (table_id, version):
                results.append(PublishResult(_served_name(model), version, last.rows, "unchanged", 0.0))
            else:
                waiting.append((model, table_id, version))
        if waiting:
            session = _session_for_stage(spark())
            staged, seconds = [], {}
            for model, table_id, version in waiting:
                started = time.monotonic()
                staged.append(_stage(session, settings, stage, model, table_id, version))
                seconds[staged[-1].table] = time.monotonic() - started
            target.swap(staged)
            results += [
                PublishResult(item.table, item.version, item.rows, "published", seconds[item.table]) for item in staged
            ]
    shutil.rmtree(stage, ignore_errors=True)
    results.sort(key=lambda result: result.table)
    for result in results:
        if on_event:
            on_event(result)
    return results


def data_version(path: Path) -> tuple[str, int]:
    """A Delta table's id and the version that last changed its rows. Starts no JVM.

    Raises:
        OpsError: there is no Delta table.
    """
    if not DeltaTable.is_deltatable(str(path)):
        raise OpsError(f"{path} is not a Delta table. Run `dbt build` first.")
    table = DeltaTable(str(path))
    current = table.version()
    for commit in table.history():
        if _changes_rows(commit):
            return str(table.metadata().id), int(commit.get("version", current))
    return str(table.metadata().id), int(current)


def _changes_rows(commit: dict[str, Any]) -> bool:
    operation = str(commit.get("operation", ""))
    if operation == "MERGE":
        metrics = commit.get("operationMetrics", {})
        counted = ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted")
        return any(int(metrics.get(name, 1)) for name in counted)
    without_rows = (
        "SET TBLPROPERTIES",
        "UNSET TBLPROPERTIES",
        "CHANGE COLUMN",
        "CHANGE COLUMNS",
        "OPTIMIZE",
        "ADD CONSTRAINT",
    )
    return operation not in without_rows and not operation.startswith("VACUUM")


def _served_name(model: Model) -> str:
    """`gold.<table>`, without a developer's prefix: one home has one database."""
    return f"gold.{model.alias}"


def _session_for_stage(spark: SparkSession) -> SparkSession:
    """A session that writes timestamps as exact microseconds, those of the first years included."""
    session = spark.newSession()
    session.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    session.conf.set("spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED")
    return session


def _stage(spark: SparkSession, settings: Settings, folder: Path, model: Model, table_id: str, version: int) -> Staged:
    source = settings.home_path / "warehouse" / f"{model.schema}.db" / model.alias
    rows = spark.read.format("delta").option("versionAsOf", version).load(str(source))
    types = {f.name: f.dataType.simpleString() for f in rows.schema.fields}
    path = folder / model.alias
    # Served timestamps are UTC without a zone: a reader's time zone must not move a day's revenue.
    columns = [f"cast(`{n}` as timestamp_ntz) as `{n}`" if t == "timestamp" else f"`{n}`" for n, t in types.items()]
    rows.selectExpr(*columns).coalesce(1).write.mode("overwrite").parquet(str(path))
    expected = rows.selectExpr(*checksums(types, "spark")).collect()[0].asDict()
    return Staged(
        table=_served_name(model),
        table_id=table_id,
        version=version,
        files=str(path / "*.parquet"),
        types=types,
        checksums={name: None if value is None else int(value) for name, value in expected.items()},
        description=model.description,
        columns=model.columns,
    )
