"""The point-in-time join: for each row of an entity file, the features as they were known, or were so, at its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from python_ops.jobs.features import KNOWN_AT, VALID_AT, FeatureTable, chosen, feature_tables
from python_ops.jobs.features.entities import OWN, read_entities
from python_ops.lake.delta import query
from python_ops.lake.deltalog import read_version
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.lock import exclusive
from python_ops.lake.storage import folder_at

_DUCKDB_ENTITIES, _DUCKDB_ROWS = 200_000, 5_000_000


class Engine(StrEnum):
    """What joins. `auto` is DuckDB up to 200 000 rows and feature tables of 5 million, else Spark."""

    AUTO = "auto"
    DUCKDB = "duckdb"
    SPARK = "spark"


@dataclass(frozen=True)
class Joined:
    """What a join gave.

    Attributes:
        rows: The rows of the entity file, in its order and with its columns, then the features, as an Arrow table.
        found: For each feature, how many rows have a value.
        unknown: For each feature table, how many rows found no row of it at their time.
    """

    rows: Any
    engine: Engine
    found: dict[str, int]
    unknown: dict[str, int]


def asof(
    lake: Lake,
    entities: Path,
    features: Sequence[str] = (),
    time_column: str = "event_at",
    time_zone: str | None = None,
    valid_time: bool = False,
    engine: Engine = Engine.AUTO,
) -> Joined:
    """Joins features to rows of keys and times.

    As known: of the rows of a key with `valid_at` and `known_at` up to the row's time, the newest moment, as it was
    known last by then. By valid time: the same without the limit on `known_at`. A value older than its feature's time
    to live is NULL, as is everything of a key that has no row by then.

    Args:
        entities: A parquet or csv file.
        features: Such as `feat_customer` or `feat_customer.order_count`; when empty, all whose key the file has.
        time_column: The column of the time.
        time_zone: Zone of times that do not say theirs.
        valid_time: Use what is known today of each moment.
        engine: What joins.

    Raises:
        ConfigError: a feature, or the file, is not as it must be; the text says which row.
        OpsError: a table is not built yet, or cannot be read.
        BusyError: Spark is to join, and another process has the home.
    """
    tables = chosen(lake, features)
    if not tables:
        raise ConfigError("The project has no feature table: a model says so by meta feature_entity.")
    types = _key_types(lake)
    rows = read_entities(entities, {table.key: types.get(table.key) for table in tables}, time_column, time_zone)
    missing = [table for table in tables if table.key not in rows.column_names]
    if features and missing:
        raise ConfigError(f"{entities} lacks the column {missing[0].key}, the key of {missing[0].name}.")
    tables = [table for table in tables if table not in missing]
    _refuse_clashes(entities, rows, tables)
    if engine is Engine.AUTO:
        engine = _fitting(rows, tables)
    sql = _sql(tables, valid_time, "`" if engine is Engine.SPARK else '"')
    joined = (_by_spark if engine is Engine.SPARK else _by_duckdb)(lake, sql, rows, tables)
    joined = joined.sort_by(f"{OWN}row")
    unknown = {table.name: joined[f"{OWN}{table.name}"].null_count for table in tables}
    joined = joined.drop_columns([name for name in joined.column_names if name.startswith(OWN)])
    found = {f.name: len(joined) - joined[f.name].null_count for table in tables for f in table.features}
    return Joined(joined, engine, found, unknown)


def _key_types(lake: Lake) -> dict[str, str | None]:
    keys = {table.key for table in feature_tables(lake)}
    models = [m for m in lake.manifest().models.values() if "feature_entity" in m.meta]
    return {column.name: column.data_type for model in models for column in model.columns if column.name in keys}


def _refuse_clashes(path: Path, rows: Any, tables: Sequence[FeatureTable]) -> None:
    names = list(rows.column_names)
    for table in tables:
        for feature in table.features:
            if feature.name in names:
                raise ConfigError(
                    f"{path}: there would be two columns {feature.name}, one of them {table.name}.{feature.name}. "
                    "Rename the one of the file, or choose features with --features."
                )
            names.append(feature.name)


def _fitting(rows: Any, tables: Sequence[FeatureTable]) -> Engine:
    sizes = [read_version(folder_at(table.path)).rows or 0 for table in tables]
    return Engine.DUCKDB if len(rows) <= _DUCKDB_ENTITIES and sum(sizes) <= _DUCKDB_ROWS else Engine.SPARK


def _sql(tables: Sequence[FeatureTable], valid_time: bool, quote: str) -> str:
    """One query for both engines: names aside, they share this much of SQL."""
    steps, columns, joins = [], [], []
    for table in tables:
        names = [feature.name for feature in table.features]
        known = "" if valid_time else f" and f.{KNOWN_AT} <= e.{OWN}at"
        listed = ", ".join(f"f.{quote}{name}{quote}" for name in names)
        steps.append(
            f"{table.name}_then as (select * from (select e.{OWN}row, f.{VALID_AT}, {listed}, row_number() over ("
            f"partition by e.{OWN}row order by f.{VALID_AT} desc, f.{KNOWN_AT} desc) as place "
            f"from {OWN}entities as e inner join {OWN}{table.name} as f "
            f"on f.{table.key} = e.{table.key} and f.{VALID_AT} <= e.{OWN}at{known}) as ranked where place = 1)"
        )
        for feature in table.features:
            value = f"{table.name}_then.{quote}{feature.name}{quote}"
            if feature.ttl_hours is not None:
                oldest = f"e.{OWN}at - interval {feature.ttl_hours} hours"
                value = f"case when {table.name}_then.{VALID_AT} >= {oldest} then {value} end"
            columns.append(f"{value} as {quote}{feature.name}{quote}")
        columns.append(f"{table.name}_then.{VALID_AT} as {OWN}{table.name}")
        joins.append(f"left join {table.name}_then on {table.name}_then.{OWN}row = e.{OWN}row")
    return f"with {', '.join(steps)} select e.*, {', '.join(columns)} from {OWN}entities as e {' '.join(joins)}"


def _by_duckdb(lake: Lake, sql: str, rows: Any, tables: Sequence[FeatureTable]) -> Any:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register(f"{OWN}entities", rows)
        for table in tables:
            names = [table.key, VALID_AT, KNOWN_AT, *(feature.name for feature in table.features)]
            connection.register(f"{OWN}{table.name}", query(table.path, f"select {', '.join(names)} from t"))
        return connection.sql(sql).to_arrow_table()


def _by_spark(lake: Lake, sql: str, rows: Any, tables: Sequence[FeatureTable]) -> Any:
    views = [f"{OWN}entities", *(f"{OWN}{table.name}" for table in tables)]
    with exclusive(lake, "features asof", names=()):  # it writes no table; Spark's metastore admits one process
        session = lake.spark
        try:
            session.createDataFrame(rows).createOrReplaceTempView(views[0])
            for view, table in zip(views[1:], tables, strict=True):
                session.table(table.table).createOrReplaceTempView(view)
            return session.sql(sql).toArrow()
        finally:
            for view in views:
                session.catalog.dropTempView(view)
