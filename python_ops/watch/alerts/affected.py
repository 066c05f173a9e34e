"""What a breach reaches, by dbt's lineage: the tables that are made from what is broken, and who reads them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from python_ops.lake.artifacts import Manifest, RunResults
from python_ops.watch.alerts import Breach, Cause


def with_affected(manifest: Manifest, results: RunResults | None, waiting: Collection[str], breach: Breach) -> Breach:
    """The breach with `affects` (gold first, then by name) and `readers` (exposures but the daily run).

    Args:
        waiting: Names of models that the last run left out.
    """
    nodes = _reached(manifest, results, waiting, breach)
    models = [model for node, model in manifest.models.items() if node in nodes and model.name != breach.subject]
    models.sort(key=lambda model: (model.layer != "gold", model.name))
    readers = [name for name, exposure in manifest.exposures.items() if exposure.reads & nodes and name != "daily_run"]
    return replace(breach, affects=tuple(model.name for model in models), readers=tuple(sorted(readers)))


def _reached(
    manifest: Manifest, results: RunResults | None, waiting: Collection[str], breach: Breach
) -> frozenset[str]:
    """Nodes whose rows are late, missing or doubtful because of the breach."""
    if breach.kind is Cause.SERVING:
        return frozenset(node for node, model in manifest.models.items() if model.meta.get("publish_to"))
    if breach.kind is Cause.LAST_RUN:
        undone = (
            {result.unique_id for result in results.failed() if result.unique_id in manifest.models}
            if results
            else set()
        )
        undone |= {node for node, model in manifest.models.items() if model.name in waiting}
        return manifest.downstream(undone)
    if breach.subject in manifest.source_meta:
        return manifest.readers_of([breach.subject])
    if breach.kind is Cause.TESTS and results:
        tests = {node for node in results.nodes if node in manifest.tests and node.split(".")[2] == breach.subject}
        tested = {parent for test in tests for parent in manifest.parents[test]}
        return manifest.downstream(tested or _models_of(manifest, breach.subject))
    return manifest.downstream(_models_of(manifest, breach.subject))


def _models_of(manifest: Manifest, name: str) -> frozenset[str]:
    return frozenset(node for node, model in manifest.models.items() if model.name == name)
