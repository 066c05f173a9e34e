"""Writes the artifacts of dbt that a test needs, with only the keys that python_ops reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def model(
    name: str,
    *,
    parents: Sequence[str] = (),
    publish_to: Any = None,
    prefix: str = "",
    layer: str = "gold",
    strategy: str | None = None,
    description: str = "",
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A model's node; `columns` maps names to descriptions."""
    return {
        "unique_id": f"model.lakehouse.{name}",
        "resource_type": "model",
        "name": name,
        "alias": name,
        "schema": f"{prefix}_{layer}" if prefix else layer,
        "description": description,
        "original_file_path": f"dbt_project/models/{layer}/{name}.sql",
        "config": {
            "schema": layer,
            "materialized": "incremental",
            "incremental_strategy": strategy,
            "meta": {} if publish_to is None else {"publish_to": publish_to},
        },
        "columns": {
            column: {"name": column, "description": text, "data_type": None} for column, text in (columns or {}).items()
        },
        "depends_on": {"nodes": [f"model.lakehouse.{parent}" for parent in parents]},
    }


def test(name: str, *models: str, kind: str = "test") -> dict[str, Any]:
    """The node of a test of these models."""
    return {
        "unique_id": f"{kind}.lakehouse.{name}",
        "resource_type": kind,
        "depends_on": {"nodes": [f"model.lakehouse.{model}" for model in models]},
    }


def write_manifest(folder: Path, *nodes: Mapping[str, Any]) -> None:
    """manifest.json of these nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    unit = {n["unique_id"]: n for n in nodes if n["resource_type"] == "unit_test"}
    rest = {n["unique_id"]: n for n in nodes if n["resource_type"] != "unit_test"}
    (folder / "manifest.json").write_text(json.dumps({"nodes": rest, "unit_tests": unit}))


def add_to_manifest(folder: Path, **sections: Any) -> None:
    """Adds sections such as `groups` to a manifest.json."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **sections}))


def write_run_results(
    folder: Path, statuses: Mapping[str, str], command: str = "build", seconds: float = 0.5, at: str = "",
    invocation: str = "", began: str = "", counts: Mapping[str, Mapping[str, int]] | None = None,
) -> None:  # fmt: skip
    """run_results.json with one result per node; `at` is now when empty. `counts` are those of CDC models."""
    folder.mkdir(parents=True, exist_ok=True)
    results = [
        {
            "unique_id": node,
            "status": status,
            "message": f"{node} {status}",
            "execution_time": seconds,
            "timing": [{"name": "execute", "started_at": began, "completed_at": began}] if began else [],
            "adapter_response": {"_message": "", "code": json.dumps(found)}
            if (found := (counts or {}).get(node))
            else {},
        }
        for node, status in statuses.items()
    ]
    ended = at or datetime.now(UTC).isoformat().replace("+00:00", "Z")
    metadata = {"generated_at": ended, "invocation_id": invocation}
    (folder / "run_results.json").write_text(
        json.dumps({"metadata": metadata, "args": {"which": command}, "results": results})
    )
