"""Gold tables to the warehouse of the environment: staged, audited against the lake, and served together or not at all.

A model is published where its `meta` says so: `publish_to: [duckdb]`. The guide, docs/guides/publishing.md, says what
this protects and what it does not.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.artifacts import TARGET_FOLDER, Manifest, Model, RunResults, load_manifest, load_run_results
from python_ops.config import Settings
from python_ops.errors import ConfigError, OpsError
from python_ops.lineage import Dataset, job_run
from python_ops.publish.duckdb_target import DuckDBTarget
from python_ops.publish.fingerprint import ROWS
from python_ops.publish.stage import current_version, stage
from python_ops.publish.target import Served, StagedTable, Target, Version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TARGET_NAME = "duckdb"


class Action(StrEnum):
    """What was done with a table. `staged` is reported on the way and is never a result."""

    STAGED = "staged"
    PUBLISHED = "published"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class PublishResult:
    """What was done with one table.

    Attributes:
        table: Schema and table name.
        version: Delta version that is served now.
        rows: Its row count.
        seconds: Time spent on this table.
    """

    table: str
    version: int
    rows: int
    action: Action
    seconds: float


class State(StrEnum):
    """How what is served compares with the lake. `dropped`: served, but the project publishes it no more."""

    CURRENT = "current"
    BEHIND = "behind"
    NEVER = "never published"
    NOT_BUILT = "not built"
    DROPPED = "dropped"


@dataclass(frozen=True)
class PublishStatus:
    """Where one table stands; a version is None where there is none.

    Attributes:
        published_at: ISO 8601, UTC.
    """

    table: str
    state: State
    lake_version: int | None
    served_version: int | None
    rows: int | None
    published_at: str | None


def publish(
    settings: Settings,
    spark: Callable[[], SparkSession],
    on_event: Callable[[PublishResult], None] | None = None,
    artifacts: Path = TARGET_FOLDER,
) -> list[PublishResult]:
    """Publishes every table whose Delta version is not the served one, as a set.

    Args:
        settings: The environment.
        spark: Gives the session; called only when a table has changed.
        on_event: Told of each table when it is staged, and of each result.
        artifacts: Folder of dbt's artifacts.

    Returns:
        One result per table to publish, by name. Empty where no model has `publish_to`.

    Raises:
        ConfigError: the manifest is of another environment, or a column cannot be published.
        BusyError: the warehouse is in use by another process.
        OpsError: the last dbt run is not green, a table is missing, an audit failed. Nothing was published.
    """
    tell = on_event or (lambda event: None)
    staging = settings.state / "publish" / "stage"
    shutil.rmtree(staging, ignore_errors=True)  # what a killed run left
    manifest = load_manifest(artifacts)
    models = published_models(manifest, settings)
    if not models:
        return []
    last_run = load_run_results(artifacts)
    _refuse_red(manifest, last_run, models)
    target = warehouse(settings)
    ledger = target.served()
    versions = {model.table: current_version(model, _path(model, settings)) for model in models}
    changed = [m for m in models if m.table not in ledger or ledger[m.table].version != versions[m.table]]
    unchanged = [
        PublishResult(m.table, versions[m.table].number, ledger[m.table].rows, Action.UNCHANGED, 0.0)
        for m in models
        if m not in changed
    ]
    published: list[PublishResult] = []
    if changed:
        _refuse_untested(manifest, last_run, changed)
        target.prepare()
        session = spark()
        try:
            staged = []
            for model in changed:
                folder = staging / model.schema / model.alias
                table = stage(session, model, _path(model, settings), versions[model.table], folder)
                tell(_result(table, Action.STAGED, table.seconds))
                staged.append(table)
            inputs = [Dataset(table.model.table, _path(table.model, settings).as_uri()) for table in staged]
            with job_run(settings, f"publish.{TARGET_NAME}", inputs) as run:
                loading = target.replace(staged, ledger)
                run.outputs = [
                    Dataset(f"{TARGET_NAME}/{t.model.table}", columns=tuple((f.name, f.type) for f in t.fields),
                            rows=int(t.fingerprint[ROWS] or 0))
                    for t in staged
                ]  # fmt: skip
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        published = [_result(t, Action.PUBLISHED, t.seconds + loading[t.model.table]) for t in staged]
    results = sorted(unchanged + published, key=lambda result: result.table)
    for result in results:
        tell(result)
    return results


def status(settings: Settings, artifacts: Path = TARGET_FOLDER) -> list[PublishStatus]:
    """How what is served compares with the lake, by table. Starts no JVM.

    Raises:
        OpsError: there is no manifest, or the warehouse cannot be read.
    """
    models = {model.table: model for model in published_models(load_manifest(artifacts), settings)}
    ledger = warehouse(settings).served()
    schemas = {settings.schema_name(layer) for layer in ("gold", *(model.layer for model in models.values()))}
    dropped = {table for table in ledger if table not in models and table.split(".")[0] in schemas}
    found = []
    for table in sorted({*models, *dropped}):
        served = ledger.get(table)
        lake = None
        if model := models.get(table):
            with contextlib.suppress(OpsError):
                lake = current_version(model, _path(model, settings))
        found.append(
            PublishStatus(
                table=table,
                state=_state(table in models, lake, served),
                lake_version=lake.number if lake else None,
                served_version=served.version.number if served else None,
                rows=served.rows if served else None,
                published_at=served.published_at if served else None,
            )
        )
    return found


def published_models(manifest: Manifest, settings: Settings) -> list[Model]:
    """Models that this environment publishes, by name.

    Raises:
        ConfigError: `publish_to` is not a list of names, or the manifest was made for another schema prefix.
    """
    models = []
    for model in manifest.models.values():
        wanted = model.meta.get("publish_to", [])
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            raise ConfigError(f"{model.path}: meta publish_to of {model.name} must be a list, such as [duckdb].")
        if TARGET_NAME not in wanted:
            continue
        if model.schema != settings.schema_name(model.layer):
            raise ConfigError(
                f"The manifest places {model.name} in schema {model.schema}; this environment's is "
                f"{settings.schema_name(model.layer)}. Run `dbt build` with the same LAKEHOUSE_SCHEMA_PREFIX."
            )
        models.append(model)
    return sorted(models, key=lambda model: model.table)


def warehouse(settings: Settings) -> Target:
    """Where the environment publishes to."""
    return DuckDBTarget(settings.home_path / "published" / "lakehouse.duckdb")


def _path(model: Model, settings: Settings) -> Path:
    return settings.table_path(model.layer, model.alias)


def _result(table: StagedTable, action: Action, seconds: float) -> PublishResult:
    rows = int(table.fingerprint[ROWS] or 0)
    return PublishResult(table.model.table, table.version.number, rows, action, round(seconds, 3))


def _refuse_red(manifest: Manifest, last_run: RunResults, models: Sequence[Model]) -> None:
    """Raises OpsError when a node that the models depend on, or a test of one, is not green."""
    nodes = manifest.upstream(model.unique_id for model in models)
    if failed := last_run.failed(nodes | manifest.tests_of(nodes)):
        names = _listed([f"{result.unique_id} ({result.status})" for result in failed])
        raise OpsError(
            f"The last `dbt {last_run.command}` is not green: {names}. "
            "Nothing was published; what was served before is still served. Correct it, run `dbt build`, then publish."
        )


def _refuse_untested(manifest: Manifest, last_run: RunResults, changed: Sequence[Model]) -> None:
    """Raises OpsError when a changed table has a test that the last run did not run."""
    missing = manifest.tests_of(model.unique_id for model in changed) - last_run.green_tests()
    if missing:
        raise OpsError(
            f"The last `dbt {last_run.command}` did not run {len(missing)} tests of tables that changed: "
            f"{_listed(sorted(missing))}. Nothing was published. Run `dbt test`, or `dbt build`, then publish."
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _state(wanted: bool, lake: Version | None, served: Served | None) -> State:
    if not wanted:
        return State.DROPPED
    if lake is None:
        return State.NOT_BUILT
    if served is None:
        return State.NEVER
    return State.CURRENT if served.version == lake else State.BEHIND
