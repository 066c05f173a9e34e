"""The warehouses of an environment. A driver is imported when its warehouse is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from python_ops.jobs.publish.target import Warehouse
from python_ops.lake import config
from python_ops.lake.artifacts import Manifest, Model
from python_ops.lake.buckets import on_bucket
from python_ops.lake.errors import ConfigError, missing_extra
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from python_ops.jobs.publish.server_target import ServerTarget

KNOWN: tuple[str, ...] = get_args(config.Warehouse)
_DRIVERS = {"postgres": "PostgresTarget", "redshift": "RedshiftTarget", "snowflake": "SnowflakeTarget"}


def warehouse(lake: Lake, name: str) -> Warehouse:
    """A warehouse that the environment publishes to.

    Raises:
        ConfigError: its driver is not installed.
    """
    if name == "duckdb":
        from python_ops.jobs.publish.duckdb_target import DuckDBTarget

        file = Path("published", "lakehouse.duckdb")
        return DuckDBTarget(lake.workspace / file, lake.home / file if on_bucket(lake.home) else None)
    return driver(name)(lake.secrets, lake.schema_name("ops"), lake.settings.target)


def driver(name: str) -> type[ServerTarget]:
    """The class of a database server.

    Raises:
        ConfigError: its driver is not installed.
    """
    try:
        module = import_module(f"python_ops.jobs.publish.{name}_target")
    except ModuleNotFoundError as exc:
        raise missing_extra(f"{exc.name}, which publishing to {name} needs,", name) from exc
    found: type[ServerTarget] = getattr(module, _DRIVERS[name])
    return found


def published_models(manifest: Manifest, lake: Lake) -> dict[str, list[Model]]:
    """For each warehouse of the environment the models whose `publish_to` names it, by name of the table.

    Raises:
        ConfigError: `publish_to` is not a list of known names, or the manifest was made for another schema prefix.
    """
    found: dict[str, list[Model]] = {name: [] for name in lake.settings.publish}
    for model in sorted(manifest.models.values(), key=lambda model: model.table):
        wanted = model.meta.get("publish_to", [])
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            raise ConfigError(f"{model.path}: meta publish_to of {model.name} must be a list, such as [duckdb].")
        if unknown := sorted(set(wanted) - set(KNOWN)):
            raise ConfigError(
                f"{model.path}: meta publish_to of {model.name} names {', '.join(unknown)}. Known: {', '.join(KNOWN)}."
            )
        chosen = [name for name in found if name in wanted]
        if chosen and model.schema != lake.schema_name(model.layer):
            raise ConfigError(
                f"The manifest places {model.name} in schema {model.schema}; this environment's is "
                f"{lake.schema_name(model.layer)}. Run `dbt build` with the same LAKEHOUSE_SCHEMA_PREFIX."
            )
        for name in chosen:
            found[name].append(model)
    return found
