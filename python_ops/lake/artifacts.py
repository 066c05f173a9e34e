"""The one place that reads dbt's artifacts: manifest.json and run_results.json, in `target/` under the home."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from python_ops.lake.errors import OpsError, listed

# Every other status (error, fail, runtime error, partial success, skipped) means that a node did not do its work.
GREEN = frozenset({"success", "pass", "warn", "no-op", "reused"})
# Of the other commands, `compile` and `docs generate` list tests as successes without running them.
RUNS_TESTS = frozenset({"build", "test", "retry"})


def is_test(node: str) -> bool:
    """Whether an identifier is that of a data test or a unit test."""
    return node.startswith(("test.", "unit_test."))


@dataclass(frozen=True)
class ModelColumn:
    """A documented column of a model; `data_type` is what the model's contract declares, or None."""

    name: str
    description: str
    data_type: str | None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A dbt model.

    Attributes:
        layer: The schema as configured, without LAKEHOUSE_SCHEMA_PREFIX ("gold").
        schema: The schema it is built in ("dev_gold").
        alias: The table's name, which is the model's name unless configured.
        strategy: Its incremental strategy, None where it has none.
        path: Its file, relative to the project.
    """

    unique_id: str
    name: str
    layer: str
    schema: str
    alias: str
    materialized: str
    strategy: str | None
    description: str
    meta: Mapping[str, Any]
    columns: tuple[ModelColumn, ...]
    path: str
    group: str | None = None
    unique_key: tuple[str, ...] = ()
    compiled: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> str:
        """Schema and table name."""
        return f"{self.schema}.{self.alias}"

    @property
    def is_cdc(self) -> bool:
        """Whether it applies changes: its table holds their events, and a view shows its rows."""
        return (self.strategy or "").startswith("cdc_scd")

    @property
    def is_view(self) -> bool:
        """Whether a view bears its name: that of a CDC model shows the rows of its table."""
        return self.materialized == "view" or self.is_cdc

    @property
    def storage(self) -> str | None:
        """Name of the Delta table that holds its rows: `<alias>__cdc` of a CDC model; None for a view."""
        if self.materialized == "view":
            return None
        return f"{self.alias}__cdc" if self.is_cdc else self.alias

    @property
    def stored_table(self) -> str:
        """Schema and name of the table that holds its rows, or of the view."""
        return f"{self.schema}.{self.storage or self.alias}"


@dataclass(frozen=True)
class Exposure:
    """What depends on models from outside: a dashboard, an application, the daily run itself. It reads nodes."""

    name: str
    owner: str
    meta: Mapping[str, Any]
    reads: frozenset[str] = frozenset()


@dataclass(frozen=True)
class BusinessMetric:
    """A metric that the project declares; `models` are the nodes that it is computed from."""

    name: str
    label: str
    description: str
    models: frozenset[str]


@dataclass(frozen=True)
class Manifest:
    """What the project consists of.

    Attributes:
        parents: For each node, the nodes that it depends on directly.
        tests: Identifiers of data tests and unit tests.
        source_meta: `meta` of the source tables, by table.
        source_schema: Schema of the source tables, by table.
        owners: Who owns each group, by group.
        exposures: What reads the tables, by name.
        metrics: Business metrics, by name.
    """

    models: Mapping[str, Model]
    parents: Mapping[str, frozenset[str]]
    tests: frozenset[str]
    source_meta: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source_schema: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    exposures: Mapping[str, Exposure] = field(default_factory=dict)
    metrics: Mapping[str, BusinessMetric] = field(default_factory=dict)

    def owner_of(self, model: Model) -> str:
        """Owner of the model's group; where it has none, of the daily run."""
        daily = self.exposures.get("daily_run")
        return self.owners.get(model.group or "") or (daily.owner if daily else "nobody")

    def layer_of(self, test: str) -> str:
        """Layer of what a test tests: the highest of the models that it reads; bronze where it reads sources alone."""
        parents = self.parents.get(test, frozenset())
        layers = {self.models[parent].layer for parent in parents if parent in self.models}
        return next((layer for layer in ("gold", "silver") if layer in layers), min(layers, default="bronze"))

    def upstream(self, nodes: Iterable[str]) -> frozenset[str]:
        """The nodes and everything they depend on."""
        found: set[str] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting.extend(self.parents.get(node, ()))
        return frozenset(found)

    def downstream(self, nodes: Iterable[str]) -> frozenset[str]:
        """The nodes and everything that depends on them."""
        found = set(nodes)
        while more := {node for node, parents in self.parents.items() if parents & found} - found:
            found |= more
        return frozenset(found)

    def readers_of(self, sources: Iterable[str]) -> frozenset[str]:
        """Nodes that read one of these sources, directly or through others; tests among them."""
        wanted = frozenset(sources)
        read = {parent for parents in self.parents.values() for parent in parents if parent.startswith("source.")}
        given = {node for node in read if node.rsplit(".", 1)[1] in wanted}
        return self.downstream(given) - given

    def tests_of(self, nodes: Iterable[str]) -> frozenset[str]:
        """Tests that depend directly on one of the nodes."""
        wanted = frozenset(nodes)
        return frozenset(test for test in self.tests if wanted & self.parents.get(test, frozenset()))


@dataclass(frozen=True)
class NodeResult:
    """How one node ended.

    Attributes:
        seconds: Execution time.
        counts: Of a CDC model, its events: `read`, `late`, `opened` and so on, each that is not 0; `read` always.
        started_at: When it began, UTC; None when it was skipped.
        ended_at: When it ended.
    """

    unique_id: str
    status: str
    message: str
    seconds: float
    started_at: datetime | None = None
    ended_at: datetime | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def green(self) -> bool:
        """Whether the node did its work and no test of it failed."""
        return self.status in GREEN


@dataclass(frozen=True)
class RunResults:
    """What the last dbt command did.

    Attributes:
        command: The dbt command (`build`, `run`, `test`).
        generated_at: When it ended, ISO 8601, UTC.
        nodes: Results by node.
        invocation_id: dbt's identifier of the command.
    """

    command: str
    generated_at: str
    nodes: Mapping[str, NodeResult]
    invocation_id: str = ""

    def failed(self, among: Iterable[str] | None = None) -> list[NodeResult]:
        """Nodes that are not green, of all or of those given: first the failed ones, then those skipped for them."""
        wanted = self.nodes if among is None else frozenset(among)
        red = [result for node, result in self.nodes.items() if node in wanted and not result.green]
        return sorted(red, key=lambda result: (result.status == "skipped", result.unique_id))

    def began(self, manifest: Manifest) -> dict[str, datetime]:
        """When the build of each model began, by the table that holds its rows; those that were skipped left out."""
        return {
            model.stored_table: result.started_at
            for node, result in self.nodes.items()
            if result.started_at and (model := manifest.models.get(node))
        }

    def green_tests(self) -> frozenset[str]:
        """Tests that ran and passed."""
        if self.command not in RUNS_TESTS:
            return frozenset()
        return frozenset(node for node, r in self.nodes.items() if r.green and is_test(node))


def refuse_red(manifest: Manifest, last_run: RunResults, models: Sequence[Model], then: str) -> None:
    """Refuses to go on from a build that failed somewhere below these models.

    Args:
        then: What that means, and the next step.

    Raises:
        OpsError: a node that they depend on, or a test of one, is not green.
    """
    nodes = manifest.upstream(model.unique_id for model in models)
    if failed := last_run.failed(nodes | manifest.tests_of(nodes)):
        names = listed([f"{result.unique_id} ({result.status})" for result in failed])
        raise OpsError(f"The last `dbt {last_run.command}` is not green: {names}. {then}")


def load_manifest(folder: Path) -> Manifest:
    """Reads manifest.json.

    Raises:
        OpsError: there is none, or it is not one.
    """
    data = _read(folder / "manifest.json")
    try:
        nodes: dict[str, Any] = {**data["nodes"], **data.get("unit_tests", {})}
        sources, exposures = data.get("sources", {}).values(), data.get("exposures", {}).values()
        return Manifest(
            models={key: _model(node) for key, node in nodes.items() if node["resource_type"] == "model"},
            parents={key: _reads(node) for key, node in nodes.items()},
            tests=frozenset(key for key, node in nodes.items() if node["resource_type"] in ("test", "unit_test")),
            source_meta={source["name"]: _meta(source) for source in sources},
            source_schema={source["name"]: source["schema"] for source in sources if "schema" in source},
            owners={group["name"]: _owner(group) for group in data.get("groups", {}).values()},
            exposures={
                each["name"]: Exposure(each["name"], _owner(each), _meta(each), _reads(each)) for each in exposures
            },
            metrics={metric["name"]: _metric(metric, data) for metric in data.get("metrics", {}).values()},
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise _unreadable(folder / "manifest.json", exc) from exc


def load_run_results(folder: Path) -> RunResults:
    """Reads run_results.json.

    Raises:
        OpsError: there is none, or it is not one.
    """
    data = _read(folder / "run_results.json")
    try:
        results = [
            NodeResult(
                unique_id=result["unique_id"],
                status=str(result["status"]),
                message=str(result.get("message") or ""),
                seconds=float(result["execution_time"]),
                started_at=_moment(min((t["started_at"] for t in timing if t.get("started_at")), default=None)),
                ended_at=_moment(max((t["completed_at"] for t in timing if t.get("completed_at")), default=None)),
                counts=_counts(result.get("adapter_response") or {}),
            )
            for result in data["results"]
            for timing in [result.get("timing") or []]
        ]
        return RunResults(
            command=data["args"]["which"],
            generated_at=data["metadata"]["generated_at"],
            nodes={result.unique_id: result for result in results},
            invocation_id=data["metadata"].get("invocation_id") or "",
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _unreadable(folder / "run_results.json", exc) from exc


def _metric(metric: Mapping[str, Any], data: Mapping[str, Any]) -> BusinessMetric:
    declared = {**data["metrics"], **data.get("semantic_models", {})}
    models, waiting = set(), [*metric["depends_on"]["nodes"]]
    while waiting:
        node = waiting.pop()
        if node in declared:
            waiting += declared[node]["depends_on"]["nodes"]
        else:
            models.add(node)
    return BusinessMetric(metric["name"], metric["label"], metric["description"], frozenset(models))


def _model(node: Mapping[str, Any]) -> Model:
    config = node["config"]
    return Model(
        unique_id=node["unique_id"],
        name=node["name"],
        layer=config.get("schema") or "ops",  # as macros/generate_schema_name.sql
        schema=node["schema"],
        alias=node["alias"],
        materialized=config["materialized"],
        strategy=config.get("incremental_strategy"),
        description=node["description"],
        meta=config.get("meta") or {},
        columns=tuple(
            ModelColumn(
                column["name"], column.get("description") or "", column.get("data_type"), column.get("meta") or {}
            )
            for column in node["columns"].values()
        ),
        path=node["original_file_path"],
        group=config.get("group"),
        compiled=node.get("compiled_code") or "",
        config=config,
        unique_key=(key,) if isinstance(key := config.get("unique_key") or (), str) else tuple(key),
    )


def _counts(response: Mapping[str, Any]) -> dict[str, int]:
    """What packages/delta_cdc put into dbt's response of a CDC model."""
    code = response.get("code")
    if not isinstance(code, str) or not code.startswith("{"):
        return {}
    return {str(name): int(count) for name, count in json.loads(code).items()}


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _meta(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return node.get("config", {}).get("meta") or {}


def _reads(node: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(node.get("depends_on", {}).get("nodes", ()))


def _owner(node: Mapping[str, Any]) -> str:
    owner = node.get("owner") or {}
    return str(owner.get("name") or owner.get("email") or "nobody")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise OpsError(f"{path} does not exist: run `dbt build` first.") from exc
    except (OSError, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    if not isinstance(data, dict):
        raise _unreadable(path, TypeError("not an object"))
    return data


def _unreadable(path: Path, cause: Exception) -> OpsError:
    return OpsError(f"{path} is not an artifact of dbt-core 1.11 ({cause!r}). Delete it and run `dbt build` again.")
