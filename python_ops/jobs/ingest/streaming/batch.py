"""Records of a topic as a batch of its source: fixed by their offsets, written as ingestion writes files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from python_ops.jobs.ingest import IngestResult, generations
from python_ops.jobs.ingest.batch import BatchWriter, halt_text
from python_ops.jobs.ingest.batch_checks import fingerprint
from python_ops.jobs.ingest.reading import Records
from python_ops.jobs.ingest.streaming.broker import Broker
from python_ops.jobs.ingest.streaming.records import lines
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch, BatchState
from python_ops.lake.offsets import Offsets

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class TopicBatch(BatchWriter):
    """Batches of one source from its topic."""

    def __init__(self, lake: Lake, contract: Contract, broker: Broker) -> None:
        super().__init__(lake, lake.spark, contract)
        self.broker = broker
        self.is_avro = contract.source in lake.settings.kafka_avro

    def take_records(self, ranges: Sequence[Offsets]) -> IngestResult:
        """Takes records as one batch: new ones, or those that are gone from the table since it was restored."""
        return self.take(self.freeze(offsets=ranges))

    def give_up(self, ranges: Sequence[Offsets]) -> None:
        """Notes records that the topic no longer holds as an empty batch, so that nobody looks for them again."""
        none = {"read": 0, "accepted": 0, "quarantined": 0, "ignored": 0, "generated": 0}
        self.ledger.set_state(self.freeze(offsets=ranges), BatchState.COMMITTED, counts=none)

    def take_halted(self, halted: Batch, approve: int | None) -> IngestResult:
        """Takes a halted batch again, when it was approved or its contract or generation has changed.

        Raises:
            OpsError: it still waits for a decision.
        """
        generation = generations.current(self.lake, self.ledger).number
        if approve != halted.batch_id and halted.judged_by == fingerprint(self.contract, generation):
            raise OpsError(halt_text(self.contract.source, halted, halted.halted_by or ""))
        return self.take(self._release(halted, approve if approve == halted.batch_id else None))

    def delivered(self, manifest: Batch) -> list[Records]:
        """Exactly the records of the batch's offsets."""
        return [Records(lines(self._read(manifest.offsets), self.contract, self.is_avro), (), manifest.generation)]

    def _read(self, ranges: Sequence[Offsets]) -> DataFrame:
        """These records, read from the topic. A partition occurs once in a batch."""
        partitions: dict[str, list[int]] = {}
        bounds: tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]] = ({}, {})
        for given in ranges:
            partitions.setdefault(given.topic, []).append(given.partition)
            for bound, offset in zip(bounds, (given.start, given.end), strict=True):
                bound.setdefault(given.topic, {})[str(given.partition)] = offset
        reader = self.spark.read.format("kafka").options(**self.broker.spark_options())
        return (
            reader.option("assign", json.dumps(partitions))
            .option("startingOffsets", json.dumps(bounds[0]))
            .option("endingOffsets", json.dumps(bounds[1]))
            .load()
        )
