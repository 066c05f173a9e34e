"""One run of one source: its files become batches, are judged, and written to the dead-letter table and to bronze."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from python_ops.jobs.ingest import generations
from python_ops.jobs.ingest.batch_checks import Findings, fingerprint, reasons_to_halt, warnings
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.reading import Records, read
from python_ops.jobs.ingest.reasons import is_of_the_machine, reason_of
from python_ops.jobs.ingest.repair import Fault, compare, repair
from python_ops.jobs.ingest.result import IngestResult, together
from python_ops.jobs.ingest.rows import compute, dead_letters, find, implied_deletes, rows_of, stamped
from python_ops.jobs.ingest.snapshots import Delivery, deleted_keys, deliveries, living_keys, missing_keys
from python_ops.jobs.ingest.suppression import Suppression, suppression
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.lake import landing
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import Batch, BatchState
from python_ops.lake.lock import check_held

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class _NotReadError(OpsError):
    """A batch could not be read; nothing of it was written."""


@contextmanager
def _naming_failures() -> Iterator[None]:
    """Catches what Spark's readers may raise: exceptions of Py4J and Arrow, recursion errors."""
    try:
        yield
    except (OpsError, OSError):
        raise
    except Exception as exc:
        raise _NotReadError(reason_of(exc)) from exc


class BatchWriter:
    """One run of one source."""

    def __init__(self, lake: Lake, spark: SparkSession, contract: Contract) -> None:
        self.lake, self.spark, self.contract = lake, spark, contract
        self.folder = lake.landing / contract.source
        self.ledger = lake.ledger(contract.source)
        self.bronze = AppendOnlyTable(lake, "bronze", contract)
        self.dlq = AppendOnlyTable(lake, "dlq", contract)
        self.told: list[str] = []
        self._done: tuple[Batch, dict[str, Any]] | None = None

    @cached_property
    def kept_out(self) -> Suppression | None:
        """The people who were erased."""
        return suppression(self.lake, self.contract)

    def run(self, approve: int | None = None) -> IngestResult:
        """Finishes what an interrupted run left, or takes what is new. Call `prepare` first.

        Args:
            approve: Number of a halted or discarded batch that is to be taken after all.

        Returns:
            What was taken; `error` and `halted` are set if a threshold was crossed.
        """
        results = [IngestResult(self.contract.source)]
        for manifest in self._manifests(approve):
            results.append(self.take(manifest))
            if results[-1].halted:
                break
        return replace(together(results), warnings=(*self.told, *together(results).warnings))

    def prepare(self) -> list[str]:
        """Makes the tables and the ledger agree with each other and with the contract.

        Returns:
            What an operator should know of it.
        """
        for table in (self.bronze, self.dlq):
            table.create(self.spark)
        findings = compare(self.lake, self.contract)
        repair(self.lake, self.contract, findings)
        self.ledger = self.lake.ledger(self.contract.source)
        lost = [finding for finding in findings if finding.fault is not Fault.UNKNOWN]
        self.reopen([finding.batch_id for finding in lost if finding.is_replay])
        told = []
        if len(lost) < len(findings):
            told.append(f"the ledger did not know batches that {self.bronze.name} holds: they were entered again")
        if lost:
            numbers = ", ".join(str(finding.batch_id) for finding in lost)
            told.append(f"{self.bronze.name} no longer holds batch {numbers}: what they held is taken again.")
        return told

    def reopen(self, replays: Sequence[int]) -> None:
        """Opens dead letters again whose replay was lost when the table was restored."""
        if replays:
            numbers = ", ".join(map(str, replays))
            self.spark.sql(
                f"update {self.dlq.name} set replayed_batch = null, replayed_at = null"
                f" where replayed_batch in ({numbers})"
            ).collect()

    def _manifests(self, approve: int | None) -> Iterator[Batch]:
        if approve is not None:
            waiting = next(m for m in self.ledger.manifests if m.batch_id == approve)
            yield self._release(waiting, approves=approve)
        elif left := self.ledger.open_batch:
            yield left
        elif self.ledger.halted:
            yield self._release(self.ledger.halted)
        else:
            new = [name for name in landing.names(self.folder, self.contract) if name not in self.ledger.taken()]
            found, waiting_for = deliveries(self.folder, new, self.contract)
            self.told += waiting_for
            for delivery in found:
                yield self._freeze(delivery)

    def _freeze(self, delivery: Delivery) -> Batch:
        files = [inspect(self.folder, name, self.contract) for name in delivery.names]
        if not delivery.is_snapshot:
            return self.freeze(files)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        return self.freeze(files, snapshot_at=delivery.taken_at or now)

    def freeze(self, files: Sequence[LandingFile] = (), **others: Any) -> Batch:
        """The manifest of a new batch of the current generation."""
        generation = generations.current(self.lake, self.ledger).number
        others = {"generation": generation, **others}
        return self.ledger.freeze(self.next_number(), self.contract.version, files, **others)

    def _release(self, halted: Batch, approves: int | None = None) -> Batch:
        """A halted batch under another number."""
        files = self._check_frozen_files(halted)
        self.ledger.set_state(halted, BatchState.RELEASED)
        return self.freeze(files, offsets=halted.offsets, snapshot_at=halted.snapshot_at, approves=approves)

    def next_number(self) -> int:
        """A number that neither the ledger nor a table has."""
        return max(self.ledger.last_number, self.bronze.last_number(), self.dlq.last_number()) + 1

    def _check_frozen_files(self, manifest: Batch) -> list[LandingFile]:
        """Makes sure that no file of the batch has changed since its manifest was written."""
        found = []
        for frozen in manifest.files:
            now = None
            if (self.folder / frozen.name).exists():
                now = inspect(self.folder, frozen.name, self.contract)
            if now is None or now.sha256 != frozen.sha256:
                what = "is gone" if now is None else "has changed"
                raise OpsError(
                    f"{self.folder / frozen.name} {what} since batch {manifest.batch_id} of {self.contract.source} was "
                    "frozen. Put the delivered file back and run again; deliver a correction under a new name."
                )
            found.append(now)
        return found

    def take(self, manifest: Batch, dead: Sequence[Records] = (), close: bool = True) -> IngestResult:
        """Writes a frozen batch and closes it.

        Args:
            manifest: The batch.
            dead: Dead letters that it takes again.
            close: Whether to close it now; otherwise the caller calls `close` later.
        """
        self._check_frozen_files(manifest)
        found = None
        while found is None:
            try:
                found = self._write(manifest, dead)
            except _NotReadError as exc:
                manifest = self._without_broken_files(manifest, exc)
        if isinstance(found, IngestResult):
            return found
        if not self._is_there(manifest, found.counts):
            # The table was restored to before this number: Delta remembers the number and skips the rows.
            self.ledger.set_state(manifest, BatchState.LOST)
            manifest = self.ledger.save(replace(manifest, batch_id=self.next_number(), state=BatchState.FROZEN))
            found = self._write(manifest, dead)
            if isinstance(found, IngestResult) or not self._is_there(manifest, found.counts):
                raise OpsError(
                    f"{self.bronze.name}: batch {manifest.batch_id} was written and is not in the table. Another "
                    "process writes to it; run again when it has ended."
                )
        told = warnings(self.contract, self.ledger, manifest, found)
        result = self.taken(manifest, found.counts, found, tuple(told))
        if close:
            self.close()
        return result

    def taken(
        self, manifest: Batch, counts: dict[str, int], found: Findings | None = None, told: tuple[str, ...] = ()
    ) -> IngestResult:
        """The result of a batch that is in the tables; `close` records it."""
        found = found or Findings(counts)
        self._done = manifest, {
            "counts": counts, "extra_columns": found.extra, "rejected": found.rejected, "changes": found.changes,
            "positions": found.positions, "origins": found.origins,
        }  # fmt: skip
        return IngestResult(
            source=self.contract.source,
            batch_id=manifest.batch_id,
            files=len(manifest.files),
            read=counts["read"],
            accepted=counts["accepted"],
            quarantined=counts["quarantined"],
            ignored=counts["ignored"],
            generated=counts["generated"],
            rejected_files={file.name: file.fault for file in manifest.files if file.fault},
            extra_columns=found.extra,
            changes=found.changes,
            warnings=told,
        )

    def close(self) -> None:
        """Closes the manifest of the batch that was taken."""
        if self._done is not None:
            manifest, changes = self._done
            self.ledger.set_state(manifest, BatchState.COMMITTED, **changes)
            self._done = None

    def _write(self, manifest: Batch, dead: Sequence[Records]) -> Findings | IngestResult:
        """Appends a batch: rejected records first, so that none is lost if the process ends between the two appends.

        Returns:
            What was found, or the result of a halted batch, of which nothing was written.
        """
        rows, found = self.projected(manifest, dead)
        try:
            found, missing = self._deletes(manifest, rows, found)
            if self._is_judged(manifest) and (why := reasons_to_halt(self.contract, self.ledger, manifest, found)):
                return self._halt(manifest, found, why)
            rejected_files = [file for file in manifest.files if file.fault]
            letters = dead_letters(self.spark, manifest, rows if found.counts["quarantined"] else None, rejected_files)
            check_held(self.bronze.name, self.dlq.name)
            if letters is not None:
                self.dlq.append(letters, manifest.batch_id)
            if rows is not None and (found.counts["accepted"] or found.counts["generated"]):
                good = stamped(rows.where("_kind = 'event'"), manifest)
                if missing is not None and found.counts["generated"]:
                    implied = implied_deletes(missing, self.contract, manifest, found.positions)
                    good = good.unionByName(implied, allowMissingColumns=True)
                self.bronze.append(good, manifest.batch_id, found.counts["accepted"] + found.counts["generated"])
        finally:
            if rows is not None:
                rows.unpersist()
        return found

    def projected(self, manifest: Batch, dead: Sequence[Records]) -> tuple[DataFrame | None, Findings]:
        """A batch's rows, cached, and what is in them. Nothing is written yet."""
        with _naming_failures():
            rows = rows_of([*self.delivered(manifest), *dead], self.contract, manifest, self.kept_out)
            if rows is None:
                return None, find(None)
            rows.persist()
            try:
                return rows, find(rows)
            except BaseException:
                rows.unpersist()
                raise

    def _without_broken_files(self, manifest: Batch, failure: _NotReadError) -> Batch:
        """The batch, with those files marked as rejected that fail even when they are read alone.

        Raises:
            OpsError: no file is to blame, or one has changed meanwhile.
        """
        self._check_frozen_files(manifest)
        empty = self.spark.createDataFrame([], "_raw string, _file string, _line bigint")
        broken: dict[str, str] = {}
        try:
            with _naming_failures():
                compute(rows_of([Records(empty, (), manifest.generation)], self.contract, manifest))
            broken = self.broken([file for file in manifest.files if file.fault is None and file.bytes], manifest)
        except _NotReadError as exc:
            failure = exc
        if not broken:
            raise OpsError(
                f"{self.contract.source}: batch {manifest.batch_id} could not be read ({failure}), and no single file "
                f"is to blame. The next run tries again. Details: {self.lake.workspace / 'logs' / 'spark.log'}."
            ) from failure
        files = tuple(replace(file, fault=broken.get(file.name, file.fault)) for file in manifest.files)
        return self.ledger.save(replace(manifest, files=files))

    def broken(self, files: Sequence[LandingFile], manifest: Batch) -> dict[str, str]:
        """Files that cannot be read, with the reason, found by halving.

        Raises:
            OpsError: the machine or a permission is to blame, not a file.
        """
        try:
            with _naming_failures():
                records = read(self.spark, self.folder, files, manifest.generation)
                compute(rows_of(records, self.contract, manifest))
            return {}
        except _NotReadError as exc:
            if is_of_the_machine(exc):
                raise
            if len(files) == 1:
                return {files[0].name: f"cannot be read ({exc})"}
        half = len(files) // 2
        return self.broken(files[:half], manifest) | self.broken(files[half:], manifest)

    def delivered(self, manifest: Batch) -> list[Records]:
        """Records of the batch's files, grouped by how they are parsed.

        Raises:
            OpsError: the batch is of a topic, which only a stream reads.
        """
        if manifest.offsets:
            raise OpsError(
                f"{self.contract.source}: batch {manifest.batch_id} is of a stream and was not finished. "
                f"`lakeops stream run {self.contract.source} --once` finishes it; then run again."
            )
        return read(self.spark, self.folder, manifest.files, manifest.generation)

    def _is_judged(self, manifest: Batch) -> bool:
        """Whether the batch is judged: not if it was reviewed, or if some of it is visible already."""
        visible = max(self.bronze.last_number(), self.dlq.last_number()) >= manifest.batch_id
        reviewed = manifest.approves is not None or manifest.replays is not None
        return not (reviewed or visible)

    def _deletes(self, manifest: Batch, rows: DataFrame | None, found: Findings) -> tuple[Findings, DataFrame | None]:
        """Adds how many keys the batch deletes, if that is limited, and which keys a complete snapshot lacks."""
        snapshot = manifest.snapshot_at is not None
        if rows is None or not (snapshot or (self.contract.thresholds.max_delete_share is not None)):
            return found, None
        living = living_keys(self.spark, self.bronze.name, self.contract, manifest.batch_id)
        gone = (missing_keys if snapshot else deleted_keys)(living, self.contract, rows)
        deleted = gone.count()
        counts = {**found.counts, "generated": deleted if snapshot else 0}
        return replace(found, counts=counts, living=living.count(), deleted=deleted), gone if snapshot else None

    def _halt(self, manifest: Batch, found: Findings, why: Sequence[str]) -> IngestResult:
        reason = " Also: ".join(why)
        self.ledger.set_state(
            manifest, BatchState.HALTED, counts=found.counts, rejected=found.rejected, halted_by=reason,
            judged_by=fingerprint(self.contract, manifest.generation),
        )  # fmt: skip
        error = OpsError(halt_text(self.contract.source, manifest, reason))
        return IngestResult(self.contract.source, halted=manifest.batch_id, error=error)

    def _is_there(self, manifest: Batch, counts: dict[str, int]) -> bool:
        rejected = counts["quarantined"] + sum(1 for file in manifest.files if file.fault)
        written = counts["accepted"] + counts["generated"]
        return self.bronze.holds(self.spark, manifest.batch_id, written) and (
            rejected == 0 or self.dlq.holds(self.spark, manifest.batch_id, rejected)
        )


def halt_text(source: str, manifest: Batch, reason: str) -> str:
    """The message about a halted batch."""
    command = "stream" if manifest.offsets else "ingest"
    return (
        f"{source}: batch {manifest.batch_id} is halted, nothing of it is visible: {reason} After a review: "
        f"`lakeops {command} run {source} --approve {manifest.batch_id}`, or `--discard {manifest.batch_id}`."
    )
