"""The one place that reads dbt's artifacts: manifest.json and run_results.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_ops.config import PROJECT_ROOT
from python_ops.errors import OpsError

TARGET = PROJECT_ROOT / "target"


@dataclass(frozen=True)
class Model:
    """A model of the manifest.

    Attributes:
        schema: The schema it is built in, prefix included.
        columns: Descriptions by column name.
        meta: Policy, as dbt merged it.
    """

    unique_id: str
    name: str
    schema: str
    alias: str
    description: str
    materialized: str
    meta: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeResult:
    """What became of a node in dbt's last invocation. `seconds` is wall time."""

    unique_id: str
    status: str
    message: str
    seconds: float

    @property
    def is_bad(self) -> bool:
        """Whether it failed, or was not run because something before it failed."""
        return self.status in ("error", "fail", "runtime error", "skipped", "partial success")


class Artifacts:
    """dbt's artifacts in one target folder.

    Args:
        folder: The target folder; `target/` of the project when None.

    Raises:
        OpsError: manifest.json is missing or not JSON.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or TARGET
        self._manifest = self._read("manifest.json")
        self.models: dict[str, Model] = {
            unique_id: Model(
                unique_id=unique_id,
                name=node["name"],
                schema=node["schema"],
                alias=node["alias"],
                description=node["description"],
                materialized=node["config"]["materialized"],
                meta=node["config"].get("meta", {}),
                columns={name: column["description"] for name, column in node["columns"].items()},
                depends_on=tuple(node["depends_on"]["nodes"]),
            )
            for unique_id, node in self._manifest["nodes"].items()
            if node["resource_type"] == "model"
        }

    def results(self) -> dict[str, NodeResult]:
        """Results of the last invocation that ran nodes, by unique id.

        Raises:
            OpsError: run_results.json is missing or not JSON.
        """
        return {
            result["unique_id"]: NodeResult(
                result["unique_id"], str(result["status"]), result["message"] or "", float(result["execution_time"])
            )
            for result in self._read("run_results.json")["results"]
        }

    def published_to(self, target: str) -> list[Model]:
        """Models whose meta `publish_to` names the target, by name."""
        chosen = [model for model in self.models.values() if target in model.meta.get("publish_to", [])]
        return sorted(chosen, key=lambda model: model.name)

    def bad_nodes_under(self, models: list[Model]) -> list[NodeResult]:
        """Bad results of the models, of everything they are made from, and of tests on any of these."""
        wanted = self._with_ancestors([model.unique_id for model in models])
        tests = {
            unique_id
            for unique_id, node in self._manifest["nodes"].items()
            if node["resource_type"] == "test" and wanted.intersection(node["depends_on"]["nodes"])
        }
        return [result for name, result in self.results().items() if result.is_bad and name in wanted | tests]

    def _with_ancestors(self, names: list[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            node = self._manifest["nodes"].get(name)
            waiting += node["depends_on"]["nodes"] if node else []
        return found

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as exc:
            raise OpsError(f"{path} is missing. Run `dbt build` or `lakeops run` first.") from exc
        except ValueError as exc:
            raise OpsError(f"{path} is not JSON ({exc}). Run `dbt build` again.") from exc
        return data
