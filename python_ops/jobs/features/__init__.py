"""Features of entities, as dbt models `feat_*` keep them, and what they are told about in the models' YAML.

A feature table has a row for each key, moment (`valid_at`) and time from which it was known so (`known_at`). Its
model's `meta` names the entity (`feature_entity`); a column's `meta` may say how long a value holds
(`feature_ttl_hours`) and which column it is made from (`feature_from`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from python_ops.lake.artifacts import Manifest, Model, ModelColumn
from python_ops.lake.delta import TableLog, exists, query
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake

VALID_AT, KNOWN_AT = "valid_at", "known_at"


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        ttl_hours: How long after `valid_at` a value holds; None for ever.
        source: The column that it is made from; None where the YAML does not say.
    """

    name: str
    type: str | None
    description: str
    ttl_hours: int | None
    source: str | None


@dataclass(frozen=True)
class FeatureTable:
    """The features of one entity.

    Attributes:
        name: Name of the model.
        table: Schema and table.
        key: Column that identifies the entity.
        freshness_minutes: How old the last green build may be; None where nothing is said.
    """

    name: str
    table: str
    path: Path
    entity: str
    key: str
    owner: str
    description: str
    freshness_minutes: int | None
    features: tuple[Feature, ...]


def feature_tables(lake: Lake) -> list[FeatureTable]:
    """All feature tables of the project, by name. Starts no JVM.

    Raises:
        ConfigError: a model's keys or `meta` are not those of a feature table.
        OpsError: there is no manifest.
    """
    manifest = lake.manifest()
    models = sorted(manifest.models.values(), key=lambda model: model.name)
    return [_table(lake, manifest, model) for model in models if "feature_entity" in model.meta]


def changed_at(table: FeatureTable) -> str | None:
    """When rows last may have changed, ISO 8601, UTC; None where there is no table, or its history no longer says."""
    log = TableLog(table.path)
    found = log.last_change() if log.exists else None
    return found.isoformat(timespec="seconds") if found else None


def chosen(lake: Lake, names: Sequence[str]) -> list[FeatureTable]:
    """Feature tables by names such as `feat_customer` or `feat_customer.order_count`; all when there is none.

    Raises:
        ConfigError: there is no such table or feature.
        OpsError: a table is not built yet.
    """
    known = {table.name: table for table in feature_tables(lake)}
    wanted: dict[str, list[str]] = {}
    for name in names or known:
        table, _, feature = name.partition(".")
        if table not in known:
            raise ConfigError(f"No such feature table: {table}. There are {', '.join(known) or 'none'}.")
        there = [each.name for each in known[table].features]
        if feature and feature not in there:
            raise ConfigError(f"{table} has no feature {feature}. It has {', '.join(there)}.")
        wanted.setdefault(table, []).extend([feature] if feature else there)
    for table in wanted:
        if not exists(known[table].path):
            raise OpsError(f"{known[table].table} is not built yet. Run `dbt build --select +{table}` first.")
    return [
        replace(known[table], features=tuple(f for f in known[table].features if f.name in features))
        for table, features in wanted.items()
    ]


def export(lake: Lake, name: str, latest: bool = False) -> Any:
    """Rows of a feature table as an Arrow table, by key and time. Starts no JVM.

    Args:
        name: Name of its model.
        latest: Only each key's newest row, as it is known today.

    Raises:
        ConfigError: there is no such table.
        OpsError: it is not built yet, or only Spark reads it.
    """
    (table,) = chosen(lake, [name])
    columns = ", ".join([table.key, VALID_AT, KNOWN_AT, *(feature.name for feature in table.features)])
    order = f"{VALID_AT} desc, {KNOWN_AT} desc"
    rows = f"(select *, row_number() over (partition by {table.key} order by {order}) as place from t) as ranked"
    where = "where place = 1" if latest else ""
    return query(table.path, f"select {columns} from {rows} {where} order by {table.key}, {VALID_AT}, {KNOWN_AT}")


def _table(lake: Lake, manifest: Manifest, model: Model) -> FeatureTable:
    keys = [column for column in model.unique_key if column not in (VALID_AT, KNOWN_AT)]
    if len(keys) != 1 or len(model.unique_key) != 3:
        raise ConfigError(
            f"{model.path}: a feature table's unique_key is one column, {VALID_AT} and {KNOWN_AT}, not "
            f"{', '.join(model.unique_key) or 'nothing'}."
        )
    minutes = model.meta.get("sla_minutes")
    return FeatureTable(
        name=model.name,
        table=model.table,
        path=lake.table_path(model.layer, model.alias),
        entity=str(model.meta["feature_entity"]),
        key=keys[0],
        owner=manifest.owners.get(model.group or "", "nobody"),
        description=" ".join(model.description.split()),
        freshness_minutes=None if minutes is None else int(minutes),
        features=tuple(_feature(model, column) for column in model.columns if column.name not in model.unique_key),
    )


def _feature(model: Model, column: ModelColumn) -> Feature:
    ttl = column.meta.get("feature_ttl_hours")
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int) or ttl < 1):
        raise ConfigError(
            f"{model.path}: meta feature_ttl_hours of {column.name} must be a whole number from 1, not {ttl!r}."
        )
    return Feature(column.name, column.data_type, column.description, ttl, column.meta.get("feature_from"))
