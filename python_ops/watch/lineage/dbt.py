"""Events of dbt's nodes, sent while dbt runs or afterwards from its artifacts, with the same run identifiers."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from python_ops.lake.artifacts import GREEN, Manifest, Model
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, JobRun, current_run
from python_ops.lake.lineage.sink import Sink
from python_ops.watch.lineage.columns import ColumnLineage

_NAMESPACE = uuid.UUID("6f1d3c1e-6d0c-5b62-9d3c-0e5b1f6f7a11")
_KINDS = ("model.", "test.", "unit_test.", "seed.", "snapshot.")


@dataclass
class NodeEvents:
    """START and COMPLETE or FAIL of each node of one dbt invocation."""

    lake: Lake
    parent: JobRun | None = field(default_factory=current_run)
    _manifest: Manifest | None = None
    _columns: ColumnLineage | None = None
    _began: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sink = self.parent.sink if self.parent else Sink(self.lake)

    def __call__(self, event: Any) -> None:
        """Takes one of dbt's structured events; only the beginning and end of a node matter."""
        if event.info.name not in ("NodeStart", "NodeFinished"):
            return
        node, invocation = event.data.node_info, event.info.invocation_id
        if event.info.name == "NodeStart":
            self._began[node.unique_id] = datetime.now(UTC)
            self.start(node.unique_id, invocation)
        else:
            began = self._began.pop(node.unique_id, datetime.now(UTC))
            self.finish(node.unique_id, invocation, node.node_status, began)

    def start(self, node: str, invocation: str, at: datetime | None = None) -> None:
        """A node begins. Without a manifest no event is sent."""
        if node.startswith(_KINDS):
            with suppress(OpsError):
                self._run(node, invocation).emit("START", at=at)

    def finish(self, node: str, invocation: str, status: str, began: datetime, ended: datetime | None = None) -> None:
        """A node has ended, with dbt's status."""
        if not node.startswith(_KINDS):
            return
        with suppress(OpsError):
            run = self._run(node, invocation)
            if model := self._project().models.get(node):
                run.outputs = [self._output(model, began)]
            green = status in GREEN
            run.emit("COMPLETE" if green else "FAIL", "" if green else status, ended)

    def _run(self, node: str, invocation: str) -> JobRun:
        run_id = str(uuid.uuid5(_NAMESPACE, f"{invocation}:{node}"))
        inputs = [
            Dataset(table) for parent in sorted(self._project().parents.get(node, ())) if (table := self._table(parent))
        ]
        return JobRun(self.lake, f"dbt.{node.split('.')[2]}", run_id, self.parent, inputs, sink=self.sink)

    def _table(self, node: str) -> str | None:
        if node.startswith("source."):
            name = node.rsplit(".", 1)[1]
            return f"{self.lake.schema_name('bronze')}.{name}" if name in self.lake.contracts.sources else None
        model = self._project().models.get(node)
        return model.table if model else None

    def _output(self, model: Model, began: datetime) -> Dataset:
        uri, rows, size = "", None, None
        if model.storage:
            path = self.lake.table_path(model.layer, model.storage)
            uri = path.as_uri()
            if written := self.lake.log(path).written_since(began):
                rows, size = written.rows, written.bytes
        try:
            origins = tuple(self._lineage().of(model).items())
        except OpsError:
            origins = ()  # its SQL is not there: the event is still worth sending
        types = {column.name: column.data_type or "" for column in model.columns}
        columns = tuple((name, types.get(name, "")) for name, _ in origins)
        return Dataset(model.table, uri, columns, tuple((n, o) for n, o in origins if o), rows, size)

    def _project(self) -> Manifest:
        if self._manifest is None:
            self._manifest = self.lake.manifest()
        return self._manifest

    def _lineage(self) -> ColumnLineage:
        if self._columns is None:
            self._columns = ColumnLineage(self.lake, self._project())
        return self._columns


def emit(lake: Lake) -> int:
    """Sends the events of the last dbt command from its artifacts. Sent twice, they are the same runs.

    Returns:
        Nodes that events were sent for.

    Raises:
        OpsError: there are no artifacts.
    """
    results = lake.run_results()
    events = NodeEvents(lake)
    sent = 0
    for node, result in results.nodes.items():
        if node.startswith(_KINDS) and result.started_at and result.ended_at:
            events.start(node, results.invocation_id, result.started_at)
            events.finish(node, results.invocation_id, result.status, result.started_at, result.ended_at)
            sent += 1
    return sent
