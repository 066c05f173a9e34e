"""OpenLineage events of every job: START when it begins, COMPLETE or FAIL when it ends.

`job_run` is the one way in. Commands that write hold the home's lock (`python_ops.lake.lock.exclusive`), which opens
the command's run; what happens inside (a source, a dbt node, a published table) opens runs of its own under it.

Names: the namespace is `lakehouse-<environment>`; jobs are `lakeops <command>`, `extract.<source>`, `ingest.<source>`,
`stream.<source>`, `dbt.<node>`, `publish.<target>`, `maintain.<table>`, `restore.<table>`, `snapshot.<verb>`; datasets
are `<schema>.<table>`, their place in the dataSource facet.
Specification: openlineage.io, core model 2-0-2.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from python_ops.lake.lake import Lake
from python_ops.lake.lineage.sink import Sink

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

PRODUCER = "urn:lakehouse:lakeops"

_current: ContextVar[JobRun | None] = ContextVar("current lineage run", default=None)


@dataclass(frozen=True)
class Dataset:
    """A table or a folder of files.

    Attributes:
        name: `schema.table`, or `landing/<source>`.
        uri: Where it is, without credentials.
        columns: Name and type; empty where not known.
        origins: For each column, the columns it is made from, as (dataset, column).
        rows: Rows written; None for an input, or where it is not known.
        bytes: Bytes written.
    """

    name: str
    uri: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    origins: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    rows: int | None = None
    bytes: int | None = None


@dataclass
class JobRun:
    """A run that has begun. Set `inputs` and `outputs` before it ends."""

    lake: Lake
    job: str
    run_id: str
    parent: JobRun | None
    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()
    sink: Sink = field(kw_only=True)

    def emit(self, state: str, error: str = "", at: datetime | None = None) -> None:
        """Sends one event. Never raises, and never delays a run by more than the sink's budget."""
        self.sink.send(event(self, state, error, at))


@contextmanager
def job_run(
    lake: Lake,
    job: str,
    inputs: Sequence[Dataset] = (),
    outputs: Sequence[Dataset] = (),
    parent: JobRun | None = None,
) -> Iterator[JobRun]:
    """A run of a job: START now, COMPLETE at the end, FAIL when an exception passes.

    Args:
        job: Name of the job.
        inputs: What it reads.
        outputs: What it writes; replace `run.outputs` when counts are known.
        parent: The run that this one is part of; the surrounding one when None (threads have none).
    """
    parent = parent or _current.get()
    sink = parent.sink if parent else Sink(lake)
    run = JobRun(lake, job, str(uuid.uuid4()), parent, inputs, outputs, sink=sink)
    token = _current.set(run)
    run.emit("START")
    try:
        yield run
    except BaseException as exc:
        run.emit("FAIL", type(exc).__name__)
        raise
    else:
        run.emit("COMPLETE")
    finally:
        _current.reset(token)


def current_run() -> JobRun | None:
    """The surrounding run, to be handed to threads."""
    return _current.get()


def event(run: JobRun, state: str, error: str = "", at: datetime | None = None) -> RunEvent:
    """An OpenLineage event. `error` is the exception's class: its text may hold values."""
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run, job_type_job, parent_run

    namespace = f"lakehouse-{run.lake.settings.target}"
    run_facets: dict[str, Any] = {}
    if run.parent:
        run_facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=run.parent.run_id), job=parent_run.Job(namespace=namespace, name=run.parent.job)
        )
    if error:
        run_facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, programmingLanguage="python")
    kind = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="DBT" if run.job.startswith("dbt.") else "LAKEOPS",
        jobType="MODEL" if run.job.startswith("dbt.") else "COMMAND",
    )  # fmt: skip
    return RunEvent(
        eventTime=(at or datetime.now(UTC)).isoformat(),
        producer=PRODUCER,
        eventType=RunState[state],
        run=Run(runId=run.run_id, facets=run_facets),
        job=Job(namespace=namespace, name=run.job, facets={"jobType": kind}),
        inputs=[InputDataset(namespace, given.name, facets=_facets(given, namespace)) for given in run.inputs],
        outputs=[
            OutputDataset(namespace, made.name, facets=_facets(made, namespace), outputFacets=_statistics(made))
            for made in run.outputs
        ],
    )


def _facets(dataset: Dataset, namespace: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import column_lineage_dataset, datasource_dataset, schema_dataset

    facets: dict[str, Any] = {}
    if dataset.uri:
        facets["dataSource"] = datasource_dataset.DatasourceDatasetFacet(name="delta", uri=dataset.uri)
    if dataset.columns:
        fields = [schema_dataset.SchemaDatasetFacetFields(name=name, type=type_) for name, type_ in dataset.columns]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
    if dataset.origins:
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            fields={
                column: column_lineage_dataset.Fields(
                    inputFields=[column_lineage_dataset.InputField(namespace, table, name) for table, name in origins]
                )
                for column, origins in dataset.origins
            }
        )
    return facets


def _statistics(dataset: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    if dataset.rows is None and dataset.bytes is None:
        return {}
    return {
        "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=dataset.rows, size=dataset.bytes
        )
    }
