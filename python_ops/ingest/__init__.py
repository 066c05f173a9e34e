"""Landing files to bronze: one batch per source and run, checked against the contract, rejected records kept.

A batch is frozen in a manifest before it is read; dead letters are appended first, then the good rows, each in one
commit that carries the batch number; the manifest is closed when the rows are seen in the tables. So a run that is
killed anywhere is finished by the next one, with nothing lost and nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.config import Settings
from python_ops.contracts import Contract, load
from python_ops.contracts import sources as known_sources
from python_ops.errors import BusyError, ConfigError, OpsError
from python_ops.ingest import landing
from python_ops.ingest.landing import LandingFile
from python_ops.ingest.ledger import Ledger, Manifest, State
from python_ops.ingest.offsets import of_rows as offsets_of_rows
from python_ops.ingest.offsets import parse as parse_offsets
from python_ops.ingest.projection import project
from python_ops.ingest.repair import Fault, compare, repair
from python_ops.ingest.tables import AppendOnlyTable
from python_ops.lineage import Dataset, JobRun, current_run, job_run
from python_ops.lock import check_held, leased
from python_ops.spark import separate_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class IngestResult:
    """What happened to one source.

    Attributes:
        batch_id: Number of the batch; None when there was nothing new, or the source failed.
        read: Lines; read = accepted + quarantined + ignored. Ignored are tombstones, headers and blank lines.
        rejected_files: Files that went to the dead-letter queue as a whole, with the reason.
        extra_columns: Delivered columns that the contract lacks; their values are in `_extra`.
        warnings: What an operator should look at.
        error: Why the source failed; its files stay where they are.
        is_busy: It failed because another process holds its tables.
    """

    source: str
    batch_id: int | None = None
    files: int = 0
    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    ignored: int = 0
    rejected_files: dict[str, str] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    is_busy: bool = False


def has_new_files(settings: Settings, source: str) -> bool:
    """Whether a run would find something to do for the source. Starts no JVM."""
    ledger = Ledger(settings.state / "ingest", source)
    return (
        ledger.open_batch is not None
        or bool(set(landing.names(settings.landing / source)) - ledger.taken().keys())
        or _committed_rows(ledger) != AppendOnlyTable(settings, "bronze", load(source)).row_count()
    )


def ingest(
    settings: Settings,
    spark: Callable[[], SparkSession],
    sources: Sequence[str] = (),
    on_event: Callable[[IngestResult], None] | None = None,
) -> list[IngestResult]:
    """Takes the new landing files of each source as one batch per source.

    Args:
        settings: The environment.
        spark: Gives the session; called only when there is something to read.
        sources: Names; all that have a contract when empty.
        on_event: Called with each source's result as it comes.

    Returns:
        One result per source, in the order asked for. A source that failed has `error`; the others proceed.

    Raises:
        ConfigError: a source is unknown, or a contract is not valid.
    """
    asked = tuple(dict.fromkeys(sources)) or known_sources()
    if unknown := [name for name in asked if name not in known_sources()]:
        raise ConfigError(f"Unknown source {', '.join(unknown)}. Known sources: {', '.join(known_sources())}.")
    contracts = [load(name) for name in asked]
    results: dict[str, IngestResult] = {}
    waiting = []
    for contract in contracts:
        try:
            if has_new_files(settings, contract.source):
                waiting.append(contract)
                continue
            results[contract.source] = IngestResult(contract.source, warnings=_replaced(settings, contract))
        except OpsError as exc:
            results[contract.source] = IngestResult(contract.source, error=str(exc))
        if on_event:
            on_event(results[contract.source])
    if waiting:
        session = _session_for_files(spark())
        # Small batches are bound by the latency of Spark's jobs, not by the cores.
        with ThreadPoolExecutor(max_workers=2) as pool:
            parent = current_run()
            for result in pool.map(lambda contract: _ingest_safely(settings, session, contract, parent), waiting):
                results[result.source] = result
                if on_event:
                    on_event(result)
    return [results[name] for name in asked]


def _session_for_files(spark: SparkSession) -> SparkSession:
    """A session of its own, in which every input file is one partition: its lines are counted inside the partition."""
    session = separate_session(spark)
    for name in ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes"):
        session.conf.set(name, "1t")
    return session


def _ingest_safely(
    settings: Settings, spark: SparkSession, contract: Contract, parent: JobRun | None = None
) -> IngestResult:
    from pyspark.errors import PySparkException

    delivered = Dataset(f"landing/{contract.source}", (settings.landing / contract.source).as_uri())
    try:
        with job_run(settings, f"ingest.{contract.source}", [delivered], parent=parent) as run:
            tables = [f"{settings.schema_name(layer)}.{contract.source}" for layer in ("bronze", "dlq")]
            with leased(settings, tables, f"ingest {contract.source}"):
                unknown = [f for f in compare(settings, contract) if f.fault is Fault.UNKNOWN]
                repair(settings, contract, unknown)
                batch = _Batch(settings, spark, contract)
                result = batch.run()
            if unknown:
                told = f"the ledger did not know batches that {batch.bronze.name} holds: they were entered again"
                result = replace(result, warnings=(*result.warnings, told))
            run.outputs = [
                Dataset(table.name, table.path.as_uri(), columns, rows=rows)
                for table, columns, rows in (
                    (batch.bronze, tuple((c.name, c.type) for c in batch.bronze.columns), result.accepted),
                    (batch.dlq, (), result.quarantined + len(result.rejected_files)),
                )
            ]
        return result
    except OpsError as exc:
        return IngestResult(contract.source, error=str(exc), is_busy=isinstance(exc, BusyError))
    except (PySparkException, OSError) as exc:
        reason = str(exc).strip().splitlines()[0][:300]
        return IngestResult(
            contract.source,
            error=f"{contract.source}: {reason}. The batch is frozen; run again to finish it. "
            f"Details are in {settings.home_path / 'logs' / 'spark.log'}.",
        )


class _Batch:
    """One run of one source."""

    def __init__(self, settings: Settings, spark: SparkSession, contract: Contract) -> None:
        self.settings, self.spark, self.contract = settings, spark, contract
        self.folder = settings.landing / contract.source
        self.ledger = Ledger(settings.state / "ingest", contract.source)
        self.bronze = AppendOnlyTable(settings, "bronze", contract)
        self.dlq = AppendOnlyTable(settings, "dlq", contract)

    def run(self) -> IngestResult:
        warnings = [*_replaced(self.settings, self.contract), *self.prepare()]
        manifest = self.ledger.open_batch or self._freeze_new_files()
        if manifest is None:
            return IngestResult(self.contract.source, warnings=tuple(warnings))
        if manifest.offsets:
            raise OpsError(
                f"{self.contract.source}: batch {manifest.batch_id} is of a stream that was interrupted. "
                f"`lakeops stream run {self.contract.source} --once` finishes it; then run again."
            )
        self._check_frozen_files(manifest)
        return self.take(manifest, warnings)

    def prepare(self) -> list[str]:
        """Makes ledger and tables agree: rebuilds a lost ledger, makes tables, finds what a restored table lacks."""
        if not self.ledger.manifests and self.bronze.exists():
            self._rebuild_ledger()
        for table in (self.bronze, self.dlq):
            table.create(self.spark)
        return self._find_lost()

    def take(self, manifest: Manifest, warnings: Sequence[str] = ()) -> IngestResult:
        """Writes a frozen batch, sees that it is there, and closes its manifest."""
        counts, extra = self._write(manifest)
        if not self._is_there(manifest, counts):
            # The table was restored to before this number: Delta remembers the number and skips the rows.
            self.ledger.set_state(manifest, State.LOST)
            manifest = self.ledger.freeze(self._next_number(), self.contract.version, manifest.files, manifest.offsets)
            counts, extra = self._write(manifest)
            if not self._is_there(manifest, counts):
                raise OpsError(
                    f"{self.bronze.name}: batch {manifest.batch_id} was written and is not in the table. Another "
                    "process writes to it; run again when it has ended."
                )
        self.ledger.set_state(manifest, State.COMMITTED, counts=counts, extra_columns=extra)
        return IngestResult(
            source=self.contract.source,
            batch_id=manifest.batch_id,
            files=len(manifest.files),
            read=counts["read"],
            accepted=counts["accepted"],
            quarantined=counts["quarantined"],
            ignored=counts["ignored"],
            rejected_files={file.name: file.fault for file in manifest.files if file.fault},
            extra_columns=extra,
            warnings=tuple(warnings),
        )

    def _freeze_new_files(self) -> Manifest | None:
        new = [name for name in landing.names(self.folder) if name not in self.ledger.taken()]
        if not new:
            return None
        files = [landing.inspect(self.folder, name, self.contract) for name in new]
        return self.ledger.freeze(self._next_number(), self.contract.version, files)

    def _next_number(self) -> int:
        return max(self.ledger.last_number, self.bronze.last_number(), self.dlq.last_number()) + 1

    def _check_frozen_files(self, manifest: Manifest) -> None:
        for frozen in manifest.files:
            now = None
            if (self.folder / frozen.name).exists():
                now = landing.inspect(self.folder, frozen.name, self.contract)
            if now is None or now.sha256 != frozen.sha256:
                what = "is gone" if now is None else "has changed"
                raise OpsError(
                    f"{self.folder / frozen.name} {what} since batch {manifest.batch_id} of {self.contract.source} was "
                    "frozen. Put the delivered file back and run again; deliver a correction under a new name."
                )

    def _write(self, manifest: Manifest) -> tuple[dict[str, int], tuple[str, ...]]:
        """Both appends of a batch: rejected records first, so that none is lost if this ends between the two."""
        rejected_files = [file for file in manifest.files if file.fault]
        counts = {"read": 0, "accepted": 0, "quarantined": 0, "ignored": 0}
        extra: tuple[str, ...] = ()
        rows = None
        if (lines := self._delivered(manifest)) is not None:
            rows = project(lines, self.contract).selectExpr(
                "*",
                f"'{manifest.contract_version}' as _contract_version",
                f"timestamp '{manifest.arrived_at}' as _arrived_at",
                f"cast({manifest.batch_id} as bigint) as _batch_id",
            )
            rows.persist()
        try:
            if rows is not None:
                total = rows.selectExpr(
                    "count(*) as read",
                    "count_if(_kind = 'event') as accepted",
                    "count_if(_kind = 'rejected') as quarantined",
                    "count_if(_kind = 'ignored') as ignored",
                    "array_sort(array_distinct(flatten(collect_set("
                    "case when _kind = 'event' then json_object_keys(_extra) end)))) as extra",
                ).collect()[0]
                counts = {name: int(total[name]) for name in counts}
                extra = tuple(total["extra"])
            dead = self._dead_letters(manifest, rows if counts["quarantined"] else None, rejected_files)
            check_held(self.bronze.name, self.dlq.name)
            if dead is not None:
                self.dlq.append(dead, manifest.batch_id)
            if rows is not None and counts["accepted"]:
                self.bronze.append(rows.where("_kind = 'event'"), manifest.batch_id)
        finally:
            if rows is not None:
                rows.unpersist()
        return counts, extra

    def _dead_letters(
        self, manifest: Manifest, rows: DataFrame | None, files: Sequence[LandingFile]
    ) -> DataFrame | None:
        dead = None
        if rows is not None:
            dead = rows.where("_kind = 'rejected'").selectExpr(
                "_batch_id", "_file as file", "_line as line", "raw", "_reason as reason", "_column as column",
                "_contract_version as contract_version", "_arrived_at as arrived_at",
            )  # fmt: skip
        if files:
            faults: list[dict[str, Any]] = [{"file": file.name, "reason": file.fault} for file in files]
            whole = self.spark.createDataFrame(faults, "file string, reason string").selectExpr(
                f"cast({manifest.batch_id} as bigint) as _batch_id", "file", "cast(null as bigint) as line",
                "cast(null as string) as raw", "reason", "cast(null as string) as column",
                f"'{manifest.contract_version}' as contract_version",
                f"timestamp '{manifest.arrived_at}' as arrived_at",
            )  # fmt: skip
            dead = whole if dead is None else dead.unionByName(whole)
        return dead

    def _delivered(self, manifest: Manifest) -> DataFrame | None:
        """Records of the batch as `project` wants them; None where there are none."""
        paths = [str(self.folder / file.name) for file in manifest.files if not file.fault and file.bytes > 0]
        return self._lines(paths) if paths else None

    def _lines(self, paths: list[str]) -> DataFrame:
        """Lines with their file and number. One file is one partition, read from its start, so the low 33 bits of
        Spark's row id count its lines. Lines end with LF alone: U+2028 and U+0085 occur inside strings.
        """
        return (
            self.spark.read.option("lineSep", "\n")
            .text(paths)
            .selectExpr(
                "value as raw",
                "_metadata.file_name as _file",
                "(monotonically_increasing_id() & 8589934591) + 1 as _line",
            )
        )

    def _is_there(self, manifest: Manifest, counts: dict[str, int]) -> bool:
        rejected = counts["quarantined"] + sum(1 for file in manifest.files if file.fault)
        return self.bronze.holds(self.spark, manifest.batch_id, counts["accepted"]) and (
            rejected == 0 or self.dlq.holds(self.spark, manifest.batch_id, rejected)
        )

    def _find_lost(self) -> list[str]:
        """Marks batches that the ledger has as committed and the restored table lacks: their files are new again."""
        if _committed_rows(self.ledger) == self.bronze.row_count():
            return []
        present = self.bronze.batches(self.spark)
        lost = [
            m
            for m in self.ledger.manifests
            if m.state is State.COMMITTED and m.counts["accepted"] and m.batch_id not in present
        ]
        for manifest in lost:
            self.ledger.set_state(manifest, State.LOST)
        numbers = ", ".join(str(m.batch_id) for m in lost)
        return [f"{self.bronze.name} no longer holds batch {numbers}: what they held is taken again."] if lost else []

    def _rebuild_ledger(self) -> None:
        """The ledger is gone and the tables are not: their own rows say which files and offsets were taken."""
        rows, dead = self.bronze.batches(self.spark), self.dlq.batches(self.spark)
        offsets = offsets_of_rows(
            self.bronze.lines(self.spark, "_file", "_line"), self.dlq.lines(self.spark, "file", "line")
        )
        files: dict[int, set[str]] = {}
        for listed in (self.bronze.files(self.spark, "_file"), self.dlq.files(self.spark, "file")):
            for batch_id, found in listed.items():
                files.setdefault(batch_id, set()).update(found)
        for batch_id in sorted(files):
            accepted, quarantined = rows.get(batch_id, 0), dead.get(batch_id, 0)
            counts = {"read": accepted + quarantined, "accepted": accepted, "quarantined": quarantined, "ignored": 0}
            known = [
                landing.inspect(self.folder, name, self.contract)
                if (self.folder / name).exists()
                else LandingFile(name, 0, "")
                for name in sorted(files[batch_id])
                if parse_offsets(name) is None
            ]
            frozen = self.ledger.freeze(batch_id, self.contract.version, known, offsets.get(batch_id, ()))
            self.ledger.set_state(frozen, State.COMMITTED, counts=counts)


def _committed_rows(ledger: Ledger) -> int:
    return sum(m.counts["accepted"] for m in ledger.manifests if m.state is State.COMMITTED)


def _replaced(settings: Settings, contract: Contract) -> tuple[str, ...]:
    """Files that were taken once and have another size now."""
    folder: Path = settings.landing / contract.source
    taken = Ledger(settings.state / "ingest", contract.source).taken()
    changed = [
        name
        for name in landing.names(folder)
        if name in taken and taken[name].sha256 and (folder / name).stat().st_size != taken[name].bytes
    ]
    return tuple(
        f"{folder / name} was replaced after it was taken; what it holds now is not read. Deliver it under a new name."
        for name in changed
    )
