"""One topic on its way into bronze: ranges of offsets become batches of the source's ledger, one after the other.

Only the ledger remembers. Each turn asks the brokers what the topic holds, fixes what comes after the committed
batches, and reads exactly these records. (Structured Streaming would keep offsets of its own, and run on a Spark server
what belongs to this process.) So after a lost ledger or a restored table the same happens: what is not in the table is
read again, under a new number. An unfinished batch is finished first, with exactly the offsets it was frozen with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from python_ops.jobs.ingest import IngestResult, ingest
from python_ops.jobs.ingest.streaming.batch import TopicBatch
from python_ops.jobs.ingest.streaming.broker import Broker, Held
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError, first_line
from python_ops.lake.lake import Lake
from python_ops.lake.offsets import Offsets, gaps, next_offsets


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
        on_batch: Called with the result of each batch, from the stream's thread.
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
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream {contract.source}", daemon=True)

    @property
    def is_active(self) -> bool:
        """Whether it still takes records."""
        return self._thread.is_alive()

    def begin(self) -> None:
        """Finishes what an earlier run left, then takes records in a thread of its own. A failure is in the result."""
        with suppress(Exception), self._noting_failure():
            warnings = self.batch.prepare()
            self._finish_what_was_left()
            self._take_gaps(self.broker.offsets(self.topic))
            self.result = replace(self.result, warnings=(*self.result.warnings, *warnings))
            self._thread.start()

    def stop(self) -> None:
        """Waits for the batch under way; no other begins. Safe to call twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def end(self) -> StreamResult:
        """The result, after `stop`."""
        return replace(self.result, offsets=next_offsets(self.batch.ledger.taken_offsets(), self.topic))

    def _run(self) -> None:
        with suppress(Exception), self._noting_failure():
            until = None
            if self.options.once:
                until = {partition: held.end for partition, held in self.broker.offsets(self.topic).items()}
            while not self._stopping.is_set():
                began = time.monotonic()
                if ranges := self._waiting(self.broker.offsets(self.topic), until):
                    self._count(self.batch.take_records(ranges))
                elif until is not None:
                    return
                if until is None:
                    self._stopping.wait(max(0.0, began + self.options.every - time.monotonic()))

    def _waiting(self, held: Mapping[int, Held], until: Mapping[int, int] | None) -> list[Offsets]:
        """What the next batch takes: at most `max_records`, of each partition a share of what waits there.

        Args:
            held: What the topic holds.
            until: Offsets at which each partition ends for this run; None for all that comes.

        Raises:
            OpsError: the topic was made anew, or has dropped records that were not taken.
        """
        self._check(held)
        following = next_offsets(self.batch.ledger.taken_offsets(), self.topic)
        found = []
        for partition, now in held.items():
            start = following.get(partition, now.start)
            end = now.end if until is None else min(now.end, until.get(partition, start))
            if start < end:
                found.append(Offsets(self.topic, partition, start, end))
        return at_most(found, self.options.max_records)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Notes in the result why the stream ended."""
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

    def _check(self, held: Mapping[int, Held]) -> None:
        """Makes sure that the topic still holds what comes after the records that were taken."""
        for partition, following in next_offsets(self.batch.ledger.taken_offsets(), self.topic).items():
            now = held.get(partition, Held(0, 0))
            if now.end < following:
                raise OpsError(
                    f"Topic {self.topic}, partition {partition} ends at offset {now.end}, and {following} was taken: "
                    "the topic was made anew. Publish to a topic of another name and set it in kafka_topics: its "
                    "records begin a new count of offsets."
                )
            if now.start > following:
                self._give_up(Offsets(self.topic, partition, following, now.start))

    def _take_gaps(self, held: Mapping[int, Held]) -> None:
        """Takes again what is missing between the batches, as far as the topic still holds it."""
        self._check(held)
        for missing in gaps(self.batch.ledger.taken_offsets(), self.topic):
            first = held[missing.partition].start
            if missing.start < first:
                self._give_up(replace(missing, end=min(missing.end, first)))
            if first < missing.end:
                self._count(self.batch.take_records([replace(missing, start=max(missing.start, first))]))

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


def at_most(ranges: Sequence[Offsets], records: int) -> list[Offsets]:
    """The beginnings of ranges, in proportion to their lengths: `records` together, or one of each if that is more."""
    total = sum(given.end - given.start for given in ranges)
    if total <= records:
        return list(ranges)
    shares = {given: max(1, (given.end - given.start) * records // total) for given in ranges}
    return [replace(given, end=given.start + share) for given, share in shares.items()]
