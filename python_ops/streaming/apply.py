"""dbt models behind a source, run in the stream's own warm session."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.artifacts import TARGET_FOLDER, load_manifest
from python_ops.config import Settings
from python_ops.dbt import arguments, invoke
from python_ops.lineage.dbt import NodeEvents


@dataclass(frozen=True)
class Applied:
    """One run of the models. `error` names what failed; None when all did their work."""

    models: tuple[str, ...]
    seconds: float
    error: str | None = None


def affected(sources: Sequence[str], artifacts: Path = TARGET_FOLDER) -> tuple[str, ...]:
    """Models that read one of the sources, directly or through others, by name.

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
    return tuple(sorted(manifest.models[node].name for node in manifest.downstream(roots) & manifest.models.keys()))


def apply(settings: Settings, models: Sequence[str]) -> Applied:
    """Runs the models once. Their tests are left to `dbt build`: nothing is published before it was green."""
    began = time.monotonic()
    events = _Events(settings)
    result = invoke(settings, ["--quiet", *arguments(["run"], settings, models)], events)
    error = None
    if not result.success:
        nodes = result.result.results if result.result is not None else []
        bad = [node for node in nodes if str(node.status) in ("error", "runtime error")]
        told = "; ".join(f"{node.node.name}: {_first_line(node.message)}" for node in bad[:5])
        error = told or f"dbt: {_first_line(str(result.exception))}"
    return Applied(tuple(models), round(time.monotonic() - began, 1), error)


class _Events:
    """Lineage of the nodes, from dbt's events."""

    def __init__(self, settings: Settings) -> None:
        self.lineage = NodeEvents(settings)
        self.began: dict[str, datetime] = {}

    def __call__(self, event: Any) -> None:
        if event.info.name not in ("NodeStart", "NodeFinished"):
            return
        node, invocation = event.data.node_info, event.info.invocation_id
        if event.info.name == "NodeStart":
            self.began[node.unique_id] = datetime.now(UTC)
            self.lineage.start(node.unique_id, invocation)
        else:
            began = self.began.pop(node.unique_id, datetime.now(UTC))
            self.lineage.finish(node.unique_id, invocation, node.node_status, began)


def _first_line(message: str | None) -> str:
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return " ".join(lines[:3])[:500]
