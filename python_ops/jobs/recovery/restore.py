"""The way back: planned first, proved before anything changes, each table swapped in one step, ledgers last.

A restored table goes on from where the lake was: it gets a new Delta identifier, and its version continues above the
one that it replaces. So nothing that remembers "table T at version 12" (what is published, what a gold model has read,
the last green run) takes the restored rows for those it saw. Delta's transaction identifiers come back with the log.

Ledgers come back with the tables. A batch that was taken after the snapshot stays in the ledger as lost: its files are
new again, and its number is not given to other files.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from python_ops.jobs.recovery.create import LEASE
from python_ops.jobs.recovery.manifest import Snapshot, StoredFile, StoredTable, load, store_of
from python_ops.jobs.recovery.tables import dataset
from python_ops.jobs.recovery.verify import THREADS, CopyProgress, Tell, Verification, require, verify
from python_ops.lake import landing
from python_ops.lake.buckets import on_bucket
from python_ops.lake.deltalog import LOG, UnreadableLog, last_version, read_version
from python_ops.lake.erasure import KIND, keep_receipt
from python_ops.lake.errors import ConfigError, OpsError, listed
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch, BatchState
from python_ops.lake.lineage import Dataset, job_run
from python_ops.lake.lock import check_held, leased
from python_ops.lake.storage import Folder, LocalFolder, folder_at

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_AT_FDCWD = -100


class Move(StrEnum):
    """What restoring does to a table."""

    CREATE = "create"
    REPLACE = "replace"
    OVERWRITE = "overwrite newer"


@dataclass(frozen=True)
class TableRestore:
    """One table's part of the plan.

    Attributes:
        version: The snapshot's.
        version_there: Highest version in the log that is there; None where there is none.
        newer: Why what is there counts as newer; only `overwrite` replaces it.
    """

    table: str
    move: Move
    version: int
    version_there: int | None
    rows: int | None
    files: int
    bytes: int
    newer: str | None = None


@dataclass(frozen=True)
class SnapshotRestore:
    """A plan, or what was done.

    Attributes:
        home: Where the tables go.
        ledgers: Manifests of batches that are written back.
        lost_batches: Batches taken since the snapshot, as `source:number`; their files are taken again.
        landing: Delivered files put back.
        watermarks: Sources whose watermark of extraction is set back.
        replaced: Folder that holds what was replaced, for as long as you keep it; None when nothing was.
        executed: Whether it was done.
    """

    snapshot: str
    home: str
    age_seconds: float
    tables: tuple[TableRestore, ...]
    ledgers: int
    lost_batches: tuple[str, ...]
    landing: int
    watermarks: tuple[str, ...]
    verdict: Verification
    replaced: str | None = None
    executed: bool = False
    seconds: float = 0.0


def restore(
    lake: Lake,
    target: Lake,
    identifier: str | None = None,
    tables: Sequence[str] = (),
    overwrite: bool = False,
    execute: bool = False,
    on_progress: Tell | None = None,
) -> SnapshotRestore:
    """Puts a snapshot's tables, ledgers, waiting files and watermarks back. Starts no JVM.

    Args:
        lake: The environment whose store holds the snapshot.
        target: The environment that gets the tables: the same, or one with another home.
        identifier: The snapshot; the newest when None.
        tables: Only these, as `layer.table`, with the ledgers of their sources; everything when empty.
        overwrite: Also tables that are newer than the snapshot.
        execute: Act; without it nothing is changed.
        on_progress: Told after each file, while checking and while copying.

    Raises:
        ConfigError: there is no such snapshot or table, or a newer table is there and `overwrite` is not given.
        BusyError: another process creates, restores or prunes, or writes to one of the tables.
        OpsError: the snapshot is damaged, or the target cannot take it. Nothing was changed then.
    """
    with leased(lake, [LEASE] if execute else [], "lakeops snapshot restore"):
        started = time.monotonic()
        store = store_of(lake)
        snapshot = load(store, identifier)
        _refuse_stranger(lake, target, snapshot)
        names = _with_dead_letters(snapshot, tables)
        chosen = snapshot.only(names)
        verdict = verify(store, snapshot, names, on_progress=on_progress)
        require(verdict, "Nothing was restored.")
        work = _Restoring(store, snapshot, chosen, not tables, target, on_progress)
        planned = work.plan(verdict)
        if not execute:
            return replace(planned, seconds=round(time.monotonic() - started, 3))
        if (newer := [table for table in planned.tables if table.newer]) and not overwrite:
            told = listed([f"{table.table} {table.newer}" for table in newer], 1)
            raise ConfigError(
                f"{told}. Nothing was restored. `--overwrite` goes back all the same; the snapshot's age says what "
                "that loses."
            )
        names = tuple(f"{target.schema_name(table.layer)}.{table.table}" for table in chosen)
        with leased(target, names, "lakeops snapshot restore"), job_run(target, "snapshot.restore") as run:
            run.inputs = [Dataset(f"snapshot/{table.name}", store.url) for table in chosen]
            replaced = work.do(planned)
            run.outputs = [dataset(target, t.layer, t.table, t.rows, t.bytes) for t in chosen]
        return replace(planned, executed=True, replaced=replaced, seconds=round(time.monotonic() - started, 3))


def _refuse_stranger(lake: Lake, target: Lake, snapshot: Snapshot) -> None:
    own = (lake.settings.target, lake.settings.schema_prefix)
    if str(target.home) == str(lake.home) and own != (snapshot.environment, snapshot.schema_prefix):
        raise ConfigError(
            f"Snapshot {snapshot.id} is of environment {snapshot.environment!r} with the schema prefix "
            f"{snapshot.schema_prefix!r}; this is {own[0]!r} with {own[1]!r}. Nothing was restored. `--to` restores it "
            "to another home."
        )


def _with_dead_letters(snapshot: Snapshot, tables: Sequence[str]) -> tuple[str, ...]:
    """The tables asked for; a source's bronze and dead-letter tables go together, as its batches do."""
    known = {table.name for table in snapshot.tables}
    pairs = {"bronze": "dlq", "dlq": "bronze"}
    twins = [f"{pairs[layer]}.{table}" for layer, _, table in (t.partition(".") for t in tables) if layer in pairs]
    return tuple(dict.fromkeys([*tables, *(twin for twin in twins if twin in known)]))


class _Restoring:
    """One restore."""

    def __init__(
        self,
        store: Folder,
        snapshot: Snapshot,
        tables: tuple[StoredTable, ...],
        everything: bool,
        target: Lake,
        tell: Tell | None,
    ) -> None:
        self.store, self.snapshot, self.tables, self.target, self.tell = store, snapshot, tables, target, tell
        sources = {table.table for table in tables if table.layer == "bronze"}
        self.state = [file for file in snapshot.state if everything or file.path.split("/")[1] in sources]
        self.sources = sorted({file.path.split("/")[1] for file in self.state} | sources)
        self.waiting = [file for file in snapshot.landing if everything or file.path.split("/")[0] in sources]
        self.watermarks = {k: v for k, v in snapshot.watermarks.items() if everything or k in sources}
        self.guard, self.done, self.bytes = threading.Lock(), 0, 0
        self.files = sum(len(table.files) + len(table.log) for table in tables)

    def plan(self, verdict: Verification) -> SnapshotRestore:
        """What would be done.

        Raises:
            OpsError: a waiting file's name is taken by another file, or a ledger that is there cannot be read.
        """
        return SnapshotRestore(
            snapshot=self.snapshot.id,
            home=str(self.target.home),
            age_seconds=round(self.snapshot.age_seconds, 1),
            tables=tuple(self._plan_table(table) for table in self.tables),
            ledgers=len(self.state),
            lost_batches=tuple(f"{m.source}:{m.batch_id}" for m in self._since()),
            landing=len(self._missing_landing()),
            watermarks=tuple(sorted(self.watermarks)),
            verdict=verdict,
        )

    def do(self, planned: SnapshotRestore) -> str | None:
        """Does it; returns the folder of what was replaced."""
        versions = {table.table: table.version_there for table in planned.tables}
        if on_bucket(self.target.home):
            replaced = None
            self._fill_all()
        else:
            replaced = self._swap_all(self.target.home, versions)
        self._ledgers()
        landed = folder_at(self.target.landing)
        for file in self._missing_landing():
            landed.take(self.store, file.object, file.path)
        marks = self.target.store
        for source, value in self.watermarks.items():
            given = marks.get("watermark", source)
            marks.put("watermark", source, value, given.revision if given else 0)
        for name in self.snapshot.erased.keys() - set(marks.names(KIND)):  # nobody is taken off the list by a restore
            keep_receipt(self.target, name, self.snapshot.erased[name])
        return replaced

    def _plan_table(self, table: StoredTable) -> TableRestore:
        folder = self._folder(table)
        there = last_version(folder.names(LOG))
        newer = None
        if there is not None:
            try:
                table_id = read_version(folder).table_id
            except UnreadableLog:
                table_id = table.table_id  # damaged: the very thing to be replaced
            if there > table.version:
                newer = f"is at version {there}, the snapshot at {table.version}"
            elif table_id != table.table_id:
                newer = "is another table than the one that was copied (it was created again)"
        elif folder.names():
            newer = "has files without a Delta log in its folder"
        move = Move.OVERWRITE if newer else Move.CREATE if there is None else Move.REPLACE
        files = len(table.files) + len(table.log)
        return TableRestore(table.name, move, table.version, there, table.rows, files, table.bytes, newer)

    def _swap_all(self, home: Path, versions: Mapping[str, int | None]) -> str | None:
        """Copies every table beside the lake, then swaps them in, one rename each."""
        free = shutil.disk_usage(next(place for place in (home, *home.parents) if place.exists())).free
        if (needed := sum(table.bytes for table in self.tables)) > free:
            raise OpsError(f"{home} has {free} bytes free and {needed} are needed. Nothing was restored.")
        stamp = f"{self.snapshot.id}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:4]}"
        shutil.rmtree(home / "restore", ignore_errors=True)  # a restore that was killed left copies, nothing else
        staging = home / "restore" / stamp
        try:
            for table in self.tables:
                self._stage(table, LocalFolder(staging / table.name), versions[table.name])
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        kept = home / "replaced" / stamp
        for table in self.tables:
            place = self.target.table_path(table.layer, table.table)
            place.parent.mkdir(parents=True, exist_ok=True)
            check_held()
            if place.exists():
                kept.mkdir(parents=True, exist_ok=True)
                (staging / table.name).rename(kept / table.name)
                exchange(kept / table.name, place)
            else:
                (staging / table.name).rename(place)
        shutil.rmtree(home / "restore", ignore_errors=True)
        return str(kept) if kept.exists() else None

    def _folder(self, table: StoredTable) -> Folder:
        return folder_at(self.target.table_path(table.layer, table.table))

    def _fill_all(self) -> None:
        """S3 renames nothing: only an empty place is filled, the log last, so that a table is there whole or not."""
        folders = [(table, self._folder(table)) for table in self.tables]
        if taken := [folder.url for _, folder in folders if folder.names()]:
            raise OpsError(
                f"{taken[0]} is not empty, and S3 cannot swap folders. Nothing was restored. Restore to another prefix "
                "with `--to`, then point LAKEHOUSE_HOME there."
            )
        for table, folder in folders:
            self._stage(table, folder, None)

    def _stage(self, table: StoredTable, folder: Folder, version_there: int | None) -> None:
        def take(file: StoredFile) -> None:
            given = folder.take(self.store, file.object, file.path)
            if given.sha256 and file.sha256 and given.sha256 != file.sha256:
                raise OpsError(f"{table.name}: {file.path} changed while it was copied back. Nothing was restored.")
            with self.guard:
                self.done, self.bytes = self.done + 1, self.bytes + file.bytes
                if self.tell:
                    self.tell(CopyProgress(self.done, self.files, self.bytes))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(take, table.files))
        # Entries in order: of a log that is half there, a reader sees an older version or none.
        for file in sorted(table.log, key=lambda each: (not each.path.endswith(".parquet"), each.path)):
            take(file)
        for name, data in continued(folder, table, self.snapshot, version_there).items():
            folder.write(name, data)

    def _since(self) -> list[Batch]:
        """Batches that the target's ledgers have and the snapshot's do not."""
        copied = {file.path.removeprefix("ingest/") for file in self.state}
        return [
            manifest
            for source in self.sources
            for manifest in self.target.ledger(source).manifests
            if f"{source}/batch_{manifest.batch_id:06d}.json" not in copied
        ]

    def _ledgers(self) -> None:
        for manifest in self._since():
            self.target.ledger(manifest.source).set_state(manifest, BatchState.LOST)
        ledgers = folder_at(self.target.state)
        for file in self.state:
            ledgers.take(self.store, file.object, file.path)

    def _missing_landing(self) -> list[StoredFile]:
        """Waiting files that are not in the landing folders.

        Raises:
            OpsError: another file has the name of one.
        """
        landed, missing = folder_at(self.target.landing), []
        for file in self.waiting:
            source, name = file.path.split("/", 1)
            known = self.target.contracts
            contract = known.load(source) if source in known.sources else None
            if name not in landing.names(self.target.landing / source, contract):
                missing.append(file)
            elif file.checksum.differs(replace(landed.checksum(file.path), etag=file.etag)):
                raise OpsError(
                    f"{self.target.landing / file.path} is another file than the one of that name that waited when the "
                    "snapshot was made. Nothing was restored. Move one of them to another name."
                )
        return missing


def continued(folder: Folder, table: StoredTable, snapshot: Snapshot, version_there: int | None) -> Mapping[str, bytes]:
    """Commits that follow the restored version: a new identifier, and as many versions as were there."""
    told = read_version(folder, table.version)
    has_commit_times = "inCommitTimestamp" in (told.protocol.get("writerFeatures") or ())
    found: dict[str, bytes] = {}
    now = int(time.time() * 1000)
    for place, version in enumerate(range(table.version + 1, max(table.version, version_there or 0) + 2)):
        info: dict[str, Any] = {
            "timestamp": now + place,
            "operation": "RESTORE",
            "operationParameters": {"version": str(table.version), "snapshot": snapshot.id},
            "isBlindAppend": False,
            "engineInfo": "lakeops",
        }
        if has_commit_times:
            info = {"inCommitTimestamp": now + place, **info}
        lines: list[dict[str, Any]] = [{"commitInfo": info}]
        if place == 0:
            lines.append({"metaData": _plain({**told.metadata, "id": str(uuid.uuid4())})})
        text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
        found[f"{LOG}{version:020}.json"] = text.encode()
    return found


def exchange(new: Path, place: Path) -> None:
    """Swaps two folders in one step where the system can; else the old one is away for the time of a rename."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    if rename and rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(place), _EXCHANGE) == 0:
        return
    aside = new.with_name(new.name + ".old")
    place.rename(aside)
    new.rename(place)
    aside.rename(new)


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A `metaData` action as JSON; checkpoints hold its maps as lists of pairs."""
    plain = {name: value for name, value in metadata.items() if value is not None}
    plain["configuration"] = dict(plain.get("configuration") or {})
    form = dict(plain["format"])
    plain["format"] = {**form, "options": dict(form.get("options") or {})}
    return plain
