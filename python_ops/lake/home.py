"""Which environment a home belongs to: `home.json` in it says its environment and its path.

Spark's metastore lies under the home and has absolute paths. In a copy of it, or after a move, ingestion writes by path
to the new place while dbt reads by name from the old one, so a home that is not where it was registered is refused
before anything is read or written. The file needs no JVM. Where it is missing, Spark is asked where its schemas lie;
a Spark Connect server always is.

A home in a bucket outlives the machines that work on it, and each may have a metastore of its own: `register` tells a
session of the tables that others made.

Several schema prefixes may share a home: each has tables, ledgers and artifacts of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from python_ops.lake.buckets import on_bucket
from python_ops.lake.config import Settings, bucket_address
from python_ops.lake.errors import BusyError, ConfigError
from python_ops.lake.files import names, swap, write_whole
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STAMP = "home.json"
LAYERS = ("bronze", "dlq", "silver", "gold", "ops")


def require(settings: Settings) -> bool:
    """Makes sure that the home belongs to this environment and lies where it was registered.

    Returns:
        Whether `home.json` says so; False if there is none yet.

    Raises:
        ConfigError: it is another's, or was copied or moved.
    """
    path = settings.place / STAMP
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        place, environment = str(said["path"]), str(said["environment"])
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{path} cannot be read ({exc!r}). `lakeops home adopt --execute` writes it anew.") from exc
    is_there = place == str(path.parent) if on_bucket(path) else Path(place).resolve() == path.parent.resolve()
    if not is_there:
        raise _split(settings, place)
    if environment != settings.target:
        raise ConfigError(
            f"{settings.place} is the home of environment {environment}, and this is {settings.target}. Point "
            f"LAKEHOUSE_HOME to a home of {settings.target}'s own, or say `--env {environment}` (dbt: `--target`)."
        )
    return True


def claim(settings: Settings) -> None:
    """Called before anything is written: refuses a home as `require` does; a home without an owner becomes this one's.

    If the home has a metastore but no `home.json`, the session that compares the two writes it.

    Raises:
        ConfigError: it is another's, or was copied or moved.
    """
    if require(settings):
        return
    if on_bucket(settings.place) or not metastore(settings).exists():
        record(settings)


def record(settings: Settings) -> None:
    """Writes `home.json`: this environment, this path. In a bucket, the word of a process that was first counts.

    Raises:
        ConfigError: that process made the home another's.
    """
    with suppress(BusyError):
        swap(settings.place / STAMP, _stamp(settings), None)
    require(settings)


def _stamp(settings: Settings) -> str:
    place = settings.place
    return json.dumps({"path": str(place if on_bucket(place) else place.resolve()), "environment": settings.target})


def compare(settings: Settings, spark: SparkSession) -> None:
    """Asks a session where its schemas lie, and compares that with the home.

    Raises:
        ConfigError: not under the home.
    """
    own = {settings.schema_name(layer) for layer in LAYERS}
    if not settings.metastore:
        own.add("default")  # a shared metastore has its own elsewhere, and nothing is written there
    warehouse = settings.place / "warehouse"
    for database in spark.catalog.listDatabases():
        place = located(database.locationUri)
        if database.name in own and not is_under(place, warehouse):
            raise _split(settings, f"{place} (schema {database.name})")


def located(uri: str) -> str:
    """Where a location of Spark's is: a path of this machine, or an address as this project writes it."""
    return bucket_address(uri) or unquote(urlsplit(uri).path)


def is_at(place: str, folder: Path) -> bool:
    """Whether what `located` gave is a folder of ours."""
    return place == str(folder) if on_bucket(folder) else Path(place).resolve() == folder.resolve()


def is_under(place: str, folder: Path) -> bool:
    """Whether what `located` gave is a folder of ours, or in it."""
    if on_bucket(folder):
        return f"{place}/".startswith(f"{folder}/")
    return folder.resolve() in (Path(place).resolve(), *Path(place).resolve().parents)


def tables(settings: Settings) -> Iterator[tuple[str, str, Path]]:
    """Delta tables under the home, of whatever prefix: schema, name, folder."""
    warehouse = settings.place / "warehouse"
    if not on_bucket(warehouse):
        for log in sorted(warehouse.glob("*.db/*/_delta_log")):
            yield log.parent.parent.name.removesuffix(".db"), log.parent.name, log.parent
        return
    for schema in names(warehouse):
        for table in names(warehouse / schema):
            yield schema.removesuffix(".db"), table, warehouse / schema / table


def register(settings: Settings, spark: SparkSession, only: Set[str] | None = None) -> int:
    """Makes known to the session's metastore what lies under a home and was made by another one.

    Args:
        only: Names of tables, with their schemas; every table of a layer otherwise.

    Returns:
        Tables that were registered.
    """
    own = {settings.schema_name(layer) for layer in LAYERS}
    known: dict[str, set[str]] = {}
    made = 0
    for schema, name, folder in tables(settings):
        is_asked = schema in own if only is None else f"{schema}.{name}" in only
        if not is_asked:
            continue
        if schema not in known:
            spark.sql(f"create schema if not exists `{schema}`")
            known[schema] = {row["tableName"] for row in spark.sql(f"show tables in `{schema}`").collect()}
        if name not in known[schema] and any(entry.endswith(".json") for entry in names(folder / "_delta_log")):
            register_table(spark, schema, name, folder)
            made += 1
    return made


def register_table(spark: SparkSession, schema: str, name: str, folder: Path) -> None:
    """Makes a Delta table known to the session's metastore, which does not know it."""
    spark.sql(f"create schema if not exists `{schema}`")
    spark.sql(f"create table `{schema}`.`{name}` using delta location '{escaped(str(folder))}'")


def adopt(settings: Settings, start: Callable[[Settings], SparkSession]) -> int:
    """Registers the home at its place: a new metastore, with every Delta table that lies under the home.

    No table is changed, neither here nor at the old place.

    Args:
        start: Starts the session on the home, once its old metastore is gone.

    Returns:
        Tables that were registered.
    """
    shutil.rmtree(settings.workspace_path / "derby", ignore_errors=True)
    spark, made = start(settings), 0
    for schema, name, folder in tables(settings):
        register_table(spark, schema, name, folder)
        made += 1
    write_whole(settings.place / STAMP, _stamp(settings))
    return made


def metastore(settings: Settings) -> Path:
    """Folder of Derby's database, where the metastore is Derby's."""
    return settings.workspace_path / "derby" / "metastore_db"


def _split(settings: Settings, there: str) -> ConfigError:
    return ConfigError(
        f"The lake in {settings.place} is registered at {there}: it was copied or moved, and would be read there "
        f"and written here. Move it back, or point LAKEHOUSE_HOME there. To work on it here, register "
        "its tables here: `lakeops home adopt --execute`."
    )
