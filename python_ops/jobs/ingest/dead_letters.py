"""Dead letters: listed and shown without a JVM, replayed with today's contract, removed when closed.

A record is open until a replay has put it into bronze; then it names the batch that holds it. A replay is a batch:
its manifest names the version of the dead-letter table that it reads, so it is finished under its number after a crash.
Which records it closed is decided by bronze's rows. A second replay finds nothing open that passes, and does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from python_ops.jobs.ingest.batch import BatchWriter
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.reading import Records, session_for_files
from python_ops.jobs.ingest.result import IngestResult
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.lake import landing
from python_ops.lake.delta import open_log
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.landing import printable
from python_ops.lake.ledger import Batch, BatchState
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    import pyarrow

MAX_SHOWN = 10_000
"""Bytes of a record that are shown."""


@dataclass(frozen=True)
class Group:
    """Dead letters of one source, batch, reason and column. `open` of `records` were not replayed yet."""

    source: str
    batch_id: int
    reason: str
    column: str | None
    records: int
    open: int


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter. `line` is None when the whole file was rejected; `raw` is as received, with escapes."""

    batch_id: int
    file: str
    line: int | None
    reason: str
    column: str | None
    contract_version: str
    arrived_at: str
    replayed_batch: int | None
    raw: str | None = None


@dataclass(frozen=True)
class Purge:
    """Dead letters that are removed, or would be."""

    source: str
    closed: int
    open: int
    executed: bool


def groups(lake: Lake, asked: Sequence[str] = ()) -> list[Group]:
    """Dead letters by source, batch and reason, newest batch first. Starts no JVM.

    Raises:
        ConfigError: a source is unknown.
    """
    found = []
    for source in asked or lake.contracts.sources:
        count: Counter[tuple[int, str, str | None]] = Counter()
        still: Counter[tuple[int, str, str | None]] = Counter()
        for row in rows_in(lake, source, ["_batch_id", "reason", "column", "replayed_batch"]):
            group = (row["_batch_id"], row["reason"], row["column"])
            count[group] += 1
            still[group] += row["replayed_batch"] is None
        found += [
            Group(source, *group, records, still[group])
            for group, records in sorted(count.items(), key=lambda item: (-item[0][0], -item[1], item[0][1]))
        ]
    return found


def count_open(lake: Lake, source: str) -> int:
    """Dead letters of a source that no replay has taken. Starts no JVM.

    Raises:
        ConfigError: the source is unknown.
    """
    return sum(row["replayed_batch"] is None for row in rows_in(lake, source, ["replayed_batch"]))


def letters(
    lake: Lake, source: str, batch: int | None = None, closed: bool = False, raw: bool = False, limit: int = 20
) -> list[DeadLetter]:
    """Single dead letters in the order of their files. Starts no JVM.

    Args:
        source: Name of the source.
        batch: Only of this batch.
        closed: Also those that were replayed.
        raw: Show the record itself too; it may be personal data.
        limit: At most so many.

    Raises:
        ConfigError: the source is unknown.
    """
    columns = ["_batch_id", "file", "line", "reason", "column", "contract_version", "arrived_at", "replayed_batch"]
    rows = [
        row
        for row in rows_in(lake, source, [*columns, "raw"] if raw else columns)
        if (batch is None or row["_batch_id"] == batch) and (closed or row["replayed_batch"] is None)
    ]
    rows.sort(key=lambda row: (row["_batch_id"], row["file"], row["line"] or 0))
    return [
        DeadLetter(
            row["_batch_id"], row["file"], row["line"], row["reason"], row["column"], row["contract_version"],
            row["arrived_at"].isoformat(timespec="seconds"), row["replayed_batch"], _shown(row.get("raw")),
        )
        for row in rows[:limit]
    ]  # fmt: skip


def replay(lake: Lake, source: str, batches: Sequence[int] = ()) -> IngestResult:
    """Takes the open dead letters of a source again, with today's contract, as one batch.

    Records that pass go to bronze and are closed; the others stay open. Files that were rejected as a whole are read
    when they are in the landing folder and whole now.

    Args:
        source: Name of the source.
        batches: Only the dead letters of these batches.

    Raises:
        OpsError: an ingest run was interrupted and must be finished first.
    """
    batch = BatchWriter(lake, session_for_files(lake), lake.contracts.load(source))
    batch.told += batch.prepare()
    lost = [m.batch_id for m in batch.ledger.manifests if m.state is BatchState.LOST and m.replays is not None]
    batch.reopen(lost)  # also where `lakeops watermark repair`, which starts no JVM, gave them up
    manifest = batch.ledger.open_batch
    if manifest is not None and manifest.replays is None:
        raise OpsError(
            f"{source}: batch {manifest.batch_id} was interrupted. Finish it with `lakeops ingest run {source}`, then "
            "replay."
        )
    if manifest is None:
        manifest = _freeze(batch, batches)
    if manifest is None:
        return IngestResult(source, warnings=tuple(batch.told))
    result = finish(batch, manifest)
    return replace(result, warnings=(*batch.told, *result.warnings))


def finish(batch: BatchWriter, manifest: Batch) -> IngestResult:
    """Writes a replay, closes the dead letters that it put into bronze, and then the manifest."""
    spark, dlq, bronze = batch.spark, batch.dlq.name, batch.bronze.name
    rows = batch.bronze.batches(spark).get(manifest.batch_id)
    if rows:  # it ended after the append; the contract may be another one today
        counts = {"read": rows, "accepted": rows, "quarantined": 0, "ignored": 0, "generated": 0}
        result = batch.taken(manifest, counts)
    else:
        result = batch.take(manifest, _records(batch, manifest), close=False)
    number, now = result.batch_id, datetime.now(UTC).isoformat(timespec="microseconds")
    spark.sql(
        f"merge into {dlq} as letter"
        f" using (select distinct _file, _line from {bronze} where _batch_id = {number}) as taken"
        " on letter.file = taken._file and letter.line = taken._line and letter.replayed_batch is null"
        f" and letter._batch_id < {number}"
        f" when matched then update set replayed_batch = {number}, replayed_at = timestamp '{now}'"
    ).collect()
    if files := [file.name for file in manifest.files if not file.fault and file.name not in result.rejected_files]:
        listed = ", ".join(f"'{escaped(name)}'" for name in files)
        spark.sql(
            f"update {dlq} set replayed_batch = {number}, replayed_at = timestamp '{now}'"
            f" where line is null and replayed_batch is null and file in ({listed})"
        ).collect()
    batch.close()
    return result


def purge(lake: Lake, source: str, older_than_days: int, with_open: bool = False, execute: bool = False) -> Purge:
    """Removes dead letters that arrived before a time: those that were replayed, and the open ones if asked to.

    Args:
        source: Name of the source.
        older_than_days: Younger ones stay.
        with_open: Also those that were never replayed; they are then lost.
        execute: Remove them; otherwise only count.

    Raises:
        ConfigError: the source is unknown, or the number of days is negative.
    """
    if older_than_days < 0:
        raise ConfigError("--older-than is a number of days, 0 or more.")
    before = datetime.now(UTC) - timedelta(days=older_than_days)
    old = [r for r in rows_in(lake, source, ["replayed_batch", "arrived_at"]) if r["arrived_at"] <= before]
    still = sum(row["replayed_batch"] is None for row in old)
    found = Purge(source, len(old) - still, still if with_open else 0, execute)
    if execute and found.closed + found.open:
        table = AppendOnlyTable(lake, "dlq", lake.contracts.load(source))
        closed_only = "" if with_open else " and replayed_batch is not null"
        lake.spark.sql(
            f"delete from {table.name} where arrived_at <= timestamp '{before.isoformat()}'{closed_only}"
        ).collect()
    return found


def _freeze(batch: BatchWriter, batches: Sequence[int]) -> Batch | None:
    """The manifest of a replay, or None when nothing that is open would pass now."""
    table = open_log(batch.dlq.path)
    replays = {"version": table.version(), "batches": sorted(batches)}
    columns = ["_batch_id", "file", "line", "replayed_batch"]
    whole = [
        row
        for row in rows_in(batch.lake, batch.contract.source, columns)
        if row["line"] is None and row["replayed_batch"] is None and (not batches or row["_batch_id"] in batches)
    ]
    here = set(landing.names(batch.folder, batch.contract))
    again = [inspect(batch.folder, name, batch.contract) for name in sorted({r["file"] for r in whole} & here)]
    draft = Batch(0, batch.contract.source, batch.contract.version, datetime.now(UTC).isoformat(), (), replays=replays)
    files = [file for file in again if file.fault is None]
    broken = batch.broken(files, draft)
    files = [file for file in files if file.name not in broken]
    if not files:
        rows, found = batch.projected(draft, _records(batch, draft))
        if rows is not None:
            rows.unpersist()
        if not found.counts["accepted"]:
            return None
    return batch.freeze(files, replays=replays)


def _records(batch: BatchWriter, manifest: Batch) -> list[Records]:
    """Open dead letters of the version that the manifest names, grouped by generation and layout of their files."""
    assert manifest.replays is not None
    asked = manifest.replays["batches"]
    only = f" and _batch_id in ({', '.join(str(int(number)) for number in asked)})" if asked else ""
    open_letters = (
        f"select raw, file, line, _batch_id from {batch.dlq.name} version as of {int(manifest.replays['version'])}"
        f" where replayed_batch is null and line is not null{only}"
    )
    found = batch.spark.sql(f"select distinct file, _batch_id from ({open_letters})").collect()
    generations = {m.batch_id: m.generation for m in batch.ledger.manifests}
    layouts = {file.name: (file.layout, file.delimiter) for m in batch.ledger.manifests for file in m.files}
    places: dict[tuple[int, tuple[tuple[str, ...], str]], list[tuple[str, int]]] = {}
    for row in found:
        alike = (generations.get(row["_batch_id"], 1), layouts.get(row["file"], ((), ",")))
        places.setdefault(alike, []).append((row["file"], row["_batch_id"]))
    records = []
    for (generation, (layout, delimiter)), members in places.items():
        wanted = batch.spark.createDataFrame(members, "file string, _batch_id bigint")
        # One record may be there twice: its batch was lost to a restore, and its file taken again.
        lines = (
            batch.spark.sql(open_letters)
            .join(wanted, ["file", "_batch_id"], "left_semi")
            .dropDuplicates(["file", "line", "raw"])
            .selectExpr("raw as _raw", "file as _file", "line as _line")
        )
        records.append(Records(lines, layout, generation, again=True, delimiter=delimiter))
    return records


def rows_in(lake: Lake, source: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    """These columns of a source's dead letters; `raw` as bytes. Starts no JVM."""
    lake.contracts.require([source])
    table = AppendOnlyTable(lake, "dlq", lake.contracts.load(source))
    if not table.exists():
        return
    import pyarrow
    from pyarrow.dataset import dataset

    # The files themselves: raw may not be valid UTF-8, which only a plain read leaves as it is.
    delta = lake.log(table.path).table
    schema = pyarrow.schema(delta.schema().to_arrow())
    known = [name for name in columns if name in schema.names]
    rows: pyarrow.Table = dataset(delta.file_uris(), schema=schema, format="parquet").to_table(columns=known)
    if "raw" in known:
        at = rows.schema.get_field_index("raw")
        rows = rows.set_column(at, "raw", rows.column("raw").cast(pyarrow.binary()))
    for row in rows.to_pylist():
        yield {name: row.get(name) for name in columns}


def _shown(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    return printable(raw[:MAX_SHOWN].decode("utf-8", "backslashreplace")) + ("…" if len(raw) > MAX_SHOWN else "")
