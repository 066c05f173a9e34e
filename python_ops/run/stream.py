"""The dbt models that read a source, run in the stream's own session."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.jobs.build import arguments, failure, invoke
from python_ops.jobs.ingest.streaming import Applied, Models, checked
from python_ops.lake.artifacts import Model, load_manifest
from python_ops.lake.config import Settings
from python_ops.lake.errors import BusyError
from python_ops.lake.lock import fence, leased
from python_ops.watch.lineage.dbt import NodeEvents

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def models_behind(settings: Settings, sources: Sequence[str], every: float) -> Models | None:
    """The models that read the sources, to be run every so many seconds; None if there are none.

    Raises:
        ConfigError: a source is unknown or has no topic.
        OpsError: the project has not been built yet.
    """
    models = affected(checked(settings, sources), settings.artifacts)
    return Models(partial(apply, settings, models=models), every) if models else None


def affected(sources: Sequence[str], artifacts: Path) -> tuple[Model, ...]:
    """Models that read one of the sources, directly or through others.

    Raises:
        OpsError: the project has not been built yet.
    """
    manifest = load_manifest(artifacts)
    wanted = {f"bronze.{source}" for source in sources}
    roots = {
        parent
        for parents in manifest.parents.values()
        for parent in parents
        if parent.startswith("source.") and parent.split(".", 2)[2] in wanted
    }
    found = manifest.downstream(roots) & manifest.models.keys()
    return tuple(sorted((manifest.models[node] for node in found), key=lambda model: model.name))


def apply(settings: Settings, spark: SparkSession, models: Sequence[Model]) -> Applied:
    """Runs the models once, their tables leased. Their tests are left to `dbt build`: nothing is published before it
    was green.
    """
    began = time.monotonic()
    names = tuple(model.name for model in models)
    tables = [f"{settings.schema_name(model.layer)}.{model.storage}" for model in models if model.storage]
    try:
        with leased(settings, tables, "lakeops stream run") as leases:
            fence(spark, leases)
            result = invoke(settings, ["--quiet", *arguments(["run"], settings, names)], NodeEvents(settings))
        error = None if result.success else failure(result)
    except BusyError as exc:
        error = str(exc)
    return Applied(names, round(time.monotonic() - began, 1), error)
