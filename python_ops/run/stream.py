"""The dbt models that read a source, run in the stream's own session."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from python_ops.jobs.build import arguments, failure, invoke
from python_ops.jobs.ingest.streaming import Applied, Models
from python_ops.lake.artifacts import Model
from python_ops.lake.errors import BusyError
from python_ops.lake.lake import Lake
from python_ops.lake.lock import fence, leased
from python_ops.watch.lineage.dbt import NodeEvents


def models_behind(lake: Lake, sources: Sequence[str], every: float) -> Models | None:
    """The models that read the sources, to be run every so many seconds; None if there are none.

    Raises:
        OpsError: the project has not been built yet.
    """
    models = affected(lake, sources)
    return Models(partial(apply, lake, models=models), every) if models else None


def affected(lake: Lake, sources: Sequence[str]) -> tuple[Model, ...]:
    """Models that read one of the sources, directly or through others.

    Raises:
        OpsError: the project has not been built yet.
    """
    manifest = lake.manifest()
    wanted = {f"bronze.{source}" for source in sources}
    roots = {
        parent
        for parents in manifest.parents.values()
        for parent in parents
        if parent.startswith("source.") and parent.split(".", 2)[2] in wanted
    }
    found = manifest.downstream(roots) & manifest.models.keys()
    return tuple(sorted((manifest.models[node] for node in found), key=lambda model: model.name))


def apply(lake: Lake, models: Sequence[Model]) -> Applied:
    """Runs the models once, their tables leased. Their tests are left to `dbt build`: nothing is published before it
    was green.
    """
    began = time.monotonic()
    names = tuple(model.name for model in models)
    tables = [f"{lake.schema_name(model.layer)}.{model.storage}" for model in models if model.storage]
    try:
        with leased(lake, tables, "lakeops stream run") as leases:
            fence(lake.spark, leases)
            result = invoke(lake, ["--quiet", *arguments(["run"], lake, names)], NodeEvents(lake))
        error = None if result.success else failure(result)
    except BusyError as exc:
        error = str(exc)
    return Applied(names, round(time.monotonic() - began, 1), error)
