"""Kafka to bronze in micro-batches: the projection, dead letters and batch numbers of ingestion, exactly once; on
request with the dbt models behind it, in the same session.

A micro-batch is a batch like one of landing files: the source's ledger fixes its offsets, it is appended under its
number, and closed when its rows are in the tables (topic.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from python_ops.jobs.ingest import IngestResult
from python_ops.jobs.ingest.streaming.broker import Broker
from python_ops.jobs.ingest.streaming.records import FORMATS
from python_ops.jobs.ingest.streaming.topic import Options, StreamResult, TopicStream
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, current_run, job_run
from python_ops.lake.lock import check_held, leased
from python_ops.lake.offsets import next_offsets

__all__ = ["Applied", "Lag", "Models", "Options", "Report", "StreamResult", "checked", "lag", "stream"]

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Applied:
    """One run of the models, by name. `error` names what failed; None when all did their work."""

    models: tuple[str, ...]
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Models:
    """The dbt models that read the sources: how they are run, and how many seconds lie between two runs."""

    apply: Callable[[], Applied]
    every: float


Report = Callable[[IngestResult | Applied | StreamResult], None]
"""Called with each batch, each run of the models, and each source's result at its end; from more than one thread."""


@dataclass(frozen=True)
class Lag:
    """A partition of a source's topic: what was taken, what it holds, and how many records wait."""

    source: str
    topic: str
    partition: int
    taken: int | None
    end: int
    waiting: int


def stream(
    lake: Lake,
    sources: Sequence[str],
    options: Options,
    report: Report,
    stop: threading.Event,
    seconds: float | None = None,
    models: Models | None = None,
) -> tuple[list[StreamResult], Applied | None]:
    """Takes topics into bronze until it is told to stop, until `seconds` are over, or with `once` until all is taken.

    Args:
        sources: Which, as `checked` gives them.
        options: How.
        report: Called as things happen.
        stop: Set it to end the streams at the next safe point.
        seconds: How long to run; without end when None.
        models: What is run behind the streams, in their session; nothing when None.

    Returns:
        A result per source, in the order asked for, and the last run of the models.

    Raises:
        ConfigError: no brokers are set.
        OpsError: Spark did not start, or a jar is missing.
    """
    if options.approve is not None:
        _check_halted(lake, sources, options.approve)
    broker = Broker(lake)
    for source in sources:
        broker.offsets(lake.settings.kafka_topics[source])  # before a JVM is started for nothing
    streams = [TopicStream(lake, lake.contracts.load(source), broker, options, report) for source in sources]
    pacer = _Pacer(models, report)
    tables = [f"{lake.schema_name(layer)}.{source}" for source in sources for layer in ("bronze", "dlq")]
    with leased(lake, tables, "lakeops stream run"), ExitStack() as stack:
        parent = current_run()
        runs = {
            topic.contract.source: stack.enter_context(job_run(lake, f"stream.{topic.contract.source}", parent=parent))
            for topic in streams
        }
        try:
            for topic in streams:
                topic.begin()
            deadline = None if seconds is None else time.monotonic() + seconds
            while any(topic.is_active for topic in streams) and not stop.is_set():
                if deadline is not None and time.monotonic() >= deadline:
                    break
                pacer.tick(sum(topic.result.batches for topic in streams))
                stop.wait(_POLL_SECONDS)
        finally:
            for topic in streams:
                topic.stop()
        results = [topic.end() for topic in streams]
        for topic, result in zip(streams, results, strict=True):
            table = topic.batch.bronze
            run = runs[result.source]
            run.inputs = [Dataset(f"kafka/{topic.topic}", f"kafka://{broker.servers}/{topic.topic}")]
            run.outputs = [
                Dataset(
                    table.name,
                    table.path.as_uri(),
                    tuple((column.name, column.type) for column in table.columns),
                    rows=result.accepted,
                )
            ]
            report(result)
        check_held()  # a lost lease stops the streams as a signal does, and is no success
        if not stop.is_set():
            pacer.finish(sum(result.batches for result in results))
    return results, pacer.last


def lag(lake: Lake, sources: Sequence[str]) -> list[Lag]:
    """How far the sources' streams are behind their topics. Starts no JVM.

    Raises:
        ConfigError: a source is unknown or has no topic, or no brokers are set.
        OpsError: the cluster does not answer, or lacks a topic.
    """
    broker = Broker(lake)
    found = []
    for source in checked(lake, sources):
        topic = lake.settings.kafka_topics[source]
        taken = next_offsets(lake.ledger(source).taken_offsets(), topic)
        for partition, held in broker.offsets(topic).items():
            done = taken.get(partition)
            waiting = max(0, held.end - max(held.start, done or 0))
            found.append(Lag(source, topic, partition, done, held.end, waiting))
    return found


def checked(lake: Lake, sources: Sequence[str]) -> tuple[str, ...]:
    """The sources, each once; all that have a topic when none is named.

    Raises:
        ConfigError: one is unknown, has no topic, or has a format that no record of a topic has.
    """
    asked = tuple(dict.fromkeys(sources)) or tuple(sorted(lake.settings.kafka_topics))
    lake.contracts.require(asked)
    if without := [source for source in asked if source not in lake.settings.kafka_topics]:
        raise ConfigError(
            f"{', '.join(without)} has no topic. The setting kafka_topics names those of "
            f"{', '.join(sorted(lake.settings.kafka_topics))}."
        )
    for source in asked:
        if (given := lake.contracts.load(source).format) not in FORMATS:
            raise ConfigError(f"{source} is {given}, which a topic does not carry. Formats: {', '.join(FORMATS)}.")
    return asked


def _check_halted(lake: Lake, sources: Sequence[str], number: int) -> None:
    if len(sources) != 1:
        raise ConfigError("Name the one source whose halted batch is let through.")
    halted = lake.ledger(sources[0]).halted
    if halted is None or halted.batch_id != number or not halted.offsets:
        raise ConfigError(f"{sources[0]} has no halted batch {number} of a stream. `lakeops ingest status` names it.")


class _Pacer:
    """Runs the models when their time has come and there is something new."""

    def __init__(self, models: Models | None, report: Report) -> None:
        self.models, self.report = models, report
        self.last: Applied | None = None
        self._seen: int | None = None  # None: what an earlier run took may not be applied yet
        self._next = time.monotonic() + (models.every if models else 0)

    def tick(self, batches: int) -> None:
        """Runs the models if it is time."""
        if self.models is not None and time.monotonic() >= self._next:
            self.finish(batches)
            self._next = time.monotonic() + self.models.every

    def finish(self, batches: int) -> None:
        """Runs the models if something came since they last did their work."""
        if self.models is None or batches == self._seen:
            return
        self.last = self.models.apply()
        self.report(self.last)
        if self.last.error is None:
            self._seen = batches
