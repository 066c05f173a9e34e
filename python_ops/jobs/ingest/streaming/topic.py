"""One topic on its way into bronze: the ledger says where a stream begins, a temporary checkpoint where it goes on.

Only the ledger remembers. Every start gives Spark a new checkpoint and the offsets after those of the committed
batches. So after a lost checkpoint, a rebuilt ledger or a restored table the same happens: what is not in
the table is read again, under a new number. An unfinished batch is finished first, with exactly the offsets it was
frozen with.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.jobs.ingest import IngestResult, ingest
from python_ops.jobs.ingest.streaming.batch import TopicBatch
from python_ops.jobs.ingest.streaming.broker import Broker, Held
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError, first_line
from python_ops.lake.lake import Lake
from python_ops.lake.offsets import Offsets, gaps, next_offsets

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

EARLIEST = -2
"""What Spark takes for the first offset of a partition."""


@dataclass(frozen=True)
class Options:
    """How streams run.

    Attributes:
        once: Take what the topics hold now, and end.
        every: Seconds between the beginnings of two micro-batches.
        max_records: Most records of one micro-batch.
        skip_lost: Go on after records that the topic dropped before they were taken.
        approve: Number of a halted batch that is let through.
    """

    once: bool = False
    every: float = 10.0
    max_records: int = 100_000
    skip_lost: bool = False
    approve: int | None = None


@dataclass(frozen=True)
class StreamResult:
    """What one source's stream did: `read` = `accepted` + `quarantined` + `ignored` over its batches.

    Attributes:
        offsets: The offset after the last that was taken, by partition.
        error: Why it ended; None when it was stopped or had taken everything.
    """

    source: str
    topic: str
    batches: int = 0
    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    ignored: int = 0
    offsets: dict[int, int] | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


class TopicStream:
    """A source's stream.

    Args:
        contract: The source's contract.
        broker: The cluster.
        options: How it runs.
        on_batch: Called with the result of each batch, from the query's thread.
    """

    def __init__(
        self,
        lake: Lake,
        contract: Contract,
        broker: Broker,
        options: Options,
        on_batch: Callable[[IngestResult], None],
    ) -> None:
        self.lake, self.contract, self.broker = lake, contract, broker
        self.options, self.on_batch = options, on_batch
        self.topic = lake.settings.kafka_topics[contract.source]
        self.result = StreamResult(contract.source, self.topic)
        self.batch = TopicBatch(lake, contract, broker)
        self.scratch: Path = lake.workspace / "state" / "streaming" / contract.source
        self._query: Any = None
        self._guard = threading.Lock()
        self._is_stopping = False

    @property
    def is_active(self) -> bool:
        """Whether the query runs."""
        return self._query is not None and bool(self._query.isActive)

    def begin(self) -> None:
        """Finishes what an earlier run left, then starts the query. A failure is in the result."""
        with suppress(Exception), self._noting_failure():
            self._begin()

    def _begin(self) -> None:
        warnings = self.batch.prepare()
        self._finish_what_was_left()
        held = self.broker.offsets(self.topic)
        self._recover(held)
        self.result = replace(self.result, warnings=(*self.result.warnings, *warnings))
        following = next_offsets(self.batch.ledger.taken_offsets(), self.topic)
        starting = {str(partition): following.get(partition, EARLIEST) for partition in held}
        shutil.rmtree(self.scratch, ignore_errors=True)
        reader = self.lake.spark.readStream.format("kafka").options(**self.broker.spark_options())
        reader = reader.option("subscribe", self.topic).option("startingOffsets", json.dumps({self.topic: starting}))
        records = reader.option("maxOffsetsPerTrigger", self.options.max_records).load()
        writer = records.writeStream.foreachBatch(self._on_micro_batch).queryName(self.contract.source)
        writer = writer.option("checkpointLocation", str(self.scratch))
        if self.options.once:
            writer = writer.trigger(availableNow=True)
        else:
            writer = writer.trigger(processingTime=f"{round(self.options.every * 1000)} milliseconds")
        self._query = writer.start()

    def stop(self) -> None:
        """Waits for the current micro-batch, then ends the query. Safe to call twice."""
        self._is_stopping = True
        with self._guard:
            pass  # a micro-batch that comes now sees that the stream is stopping, and leaves its records alone
        if self._query is not None:
            self._query.stop()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def end(self) -> StreamResult:
        """The result, after the query has ended."""
        if self._query is not None and self.result.error is None and (failure := self._query.exception()) is not None:
            self._fail(f"{first_line(failure)}. Details are in {self.lake.workspace / 'logs' / 'spark.log'}.")
        taken = next_offsets(self.batch.ledger.taken_offsets(), self.topic)
        return replace(self.result, offsets=taken)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Notes in the result why the stream ended: the cause, not Spark's message about its internals."""
        try:
            yield
        except OpsError as exc:
            self._fail(str(exc))
            raise
        except Exception as exc:  # one source never stops the others, whatever happened to it
            self._fail(f"{first_line(exc)}. A batch that was frozen is finished by the next run.")
            raise

    def _fail(self, reason: str) -> None:
        self.result = replace(self.result, error=reason)

    def _on_micro_batch(self, records: DataFrame, _: int) -> None:
        with self._guard:
            if self._is_stopping:
                return
            with self._noting_failure():
                if (taken := self.batch.take_micro_batch(records)) is not None:
                    self._count(taken)

    def _count(self, taken: IngestResult) -> None:
        if taken.error:
            raise taken.error
        done = self.result
        self.result = replace(
            done,
            batches=done.batches + 1,
            read=done.read + taken.read,
            accepted=done.accepted + taken.accepted,
            quarantined=done.quarantined + taken.quarantined,
            ignored=done.ignored + taken.ignored,
        )
        self.on_batch(taken)

    def _finish_what_was_left(self) -> None:
        ledger = self.batch.ledger
        if (left := ledger.open_batch or ledger.halted) is None:
            return
        if left.offsets:
            halted = ledger.open_batch is None
            self._count(self.batch.take_halted(left, self.options.approve) if halted else self.batch.take(left))
            return
        (finished,) = ingest(self.lake, [self.contract.source])
        if finished.error:
            raise finished.error
        self.batch = TopicBatch(self.lake, self.contract, self.broker)
        self.on_batch(finished)

    def _recover(self, held: dict[int, Held]) -> None:
        """Takes again what is missing between the batches, and checks that the topic still holds what comes after."""
        ledger = self.batch.ledger
        for partition, following in next_offsets(ledger.taken_offsets(), self.topic).items():
            end = held[partition].end if partition in held else 0
            if end < following:
                raise OpsError(
                    f"Topic {self.topic}, partition {partition} ends at offset {end}, and {following} was taken: the "
                    "topic was made anew. Publish to a topic of another name and set it in kafka_topics: its records "
                    "begin a new count of offsets."
                )
            if held[partition].start > following:
                self._give_up(Offsets(self.topic, partition, following, held[partition].start))
        for missing in gaps(ledger.taken_offsets(), self.topic):
            first = held[missing.partition].start
            if missing.start < first:
                self._give_up(replace(missing, end=min(missing.end, first)))
            if first < missing.end:
                self._count(self.batch.take_again([replace(missing, start=max(missing.start, first))]))

    def _give_up(self, lost: Offsets) -> None:
        told = (
            f"Topic {lost.topic}, partition {lost.partition} no longer holds the offsets {lost.start} to "
            f"{lost.end - 1}, which were not taken"
        )
        if not self.options.skip_lost:
            raise OpsError(
                f"{told}: its retention is shorter than the stream's pause. `--skip-lost` goes on after them; deliver "
                "them as a landing file if the source still has them."
            )
        self.batch.give_up([lost])
        self.result = replace(self.result, warnings=(*self.result.warnings, f"{told}; they were skipped."))
