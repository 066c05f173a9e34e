"""Copying the lake: all tables as of one moment, the files that the store lacks, the manifest last.

A pinned version's files stay for `retain_hours` after they are replaced, and `lakeops` commands exclude each other.
If a file is gone all the same (a VACUUM by hand), the copy begins again. So a copy ends complete, or without a
manifest.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from python_ops.jobs.recovery.consistent_read import Pinned, pin
from python_ops.jobs.recovery.manifest import (
    BLOBS,
    DRAFTS,
    FILES,
    SNAPSHOTS,
    Snapshot,
    StoredFile,
    StoredTable,
    drafts,
    identifiers,
    load,
    save,
    store_of,
)
from python_ops.jobs.recovery.tables import TIERS, Table, dataset, tables_to_copy
from python_ops.jobs.recovery.verify import THREADS, CopyProgress, Tell, check_log
from python_ops.lake.deltalog import LiveFile, TableVersion
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, job_run
from python_ops.lake.lock import check_held, leased
from python_ops.lake.storage import Checksum, Folder, LocalFolder, MissingFile, folder_at

LEASE = "snapshots"
"""Name of the lease that creating, restoring and pruning share."""

_TRIES = 3
_DRAFT_SECONDS = 10.0


def create(lake: Lake, tier: int = TIERS[-1], full: bool = False, on_progress: Tell | None = None) -> Snapshot:
    """Copies the environment's tables, ledgers and waiting files to its store. Starts no JVM.

    Args:
        tier: Tables up to this `dr_tier`.
        full: Copy every file again, also those that the store has; this repairs damaged files in it.
        on_progress: Told after each file.

    Raises:
        ConfigError: a `dr_tier` or the store's address is not valid.
        BusyError: another process creates, restores or prunes.
        OpsError: a table is damaged or written to without pause, or the store does not accept it. There is no new
            snapshot then; what was copied is used by the next.
    """
    store = store_of(lake)
    wanted = tables_to_copy(lake, lake.manifest(), tier)
    with leased(lake, [LEASE], "lakeops snapshot create"), job_run(lake, "snapshot.create") as run:
        if isinstance(store, LocalFolder):
            for prefix in (FILES, BLOBS, DRAFTS, SNAPSHOTS):
                store.clean(prefix)
        copy = _Copy(lake, store, full, on_progress)
        made, pinned = _take(copy, lake, wanted)
        check_held(LEASE)
        save(store, made)
        for draft in copy.drafts:
            store.remove(f"{DRAFTS}{draft}.json")
        run.inputs = [dataset(lake, t.layer, t.table, version.rows) for t, version in pinned.tables.values()]
        run.outputs = [
            Dataset(f"snapshot/{table.name}", store.url, rows=table.rows, bytes=copy.added.get(table.name, 0))
            for table in made.tables
        ]
    return made


def _take(copy: _Copy, lake: Lake, wanted: list[Table]) -> tuple[Snapshot, Pinned]:
    for attempt in range(1, _TRIES + 1):
        pinned = pin(lake, wanted)
        try:
            return copy.take(pinned), pinned
        except MissingFile as exc:
            if attempt == _TRIES or not pinned.has_moved():
                raise OpsError(
                    f"{exc} The table's log names it. There is no new snapshot. If the file is lost, restore the table "
                    "from an older one (docs/runbooks/dr_restore.md); if a VACUUM is at work, wait and run again."
                ) from exc
    raise AssertionError("unreachable")


class _Copy:
    """Copies the files that the store lacks, by what earlier snapshots and interrupted copies have put there."""

    def __init__(self, lake: Lake, store: Folder, full: bool, tell: Tell | None) -> None:
        self.lake, self.store, self.tell = lake, store, tell
        self.guard = threading.Lock()
        self.started = time.monotonic()
        self.known: dict[tuple[str, str, int | None], StoredFile] = {}
        self.copied: list[StoredFile] = []
        self.added: dict[str, int] = {}
        self.log_bytes = 0
        unfinished = drafts(store)
        self.drafts = [draft.id for draft in unfinished]
        self.blobs = set() if full else set(store.names(BLOBS))
        self.recorded: dict[str, StoredFile] = {}  # by object: what earlier snapshots expect there
        held = {} if full else store.names(FILES)
        known = identifiers(store)
        self.newest = max(known, default="")
        for snapshot in [*unfinished, *(load(store, name) for name in known)]:
            for table in snapshot.tables:
                for file in table.files:
                    self.recorded[file.object] = file
                    if held.get(file.object) == file.bytes:
                        self.known[table.name, file.path, file.modified] = file

    def take(self, pinned: Pinned) -> Snapshot:
        """Copies a pinned set.

        Raises:
            MissingFile: a file is gone.
            OpsError: a file is damaged, or the store does not take it.
        """
        made = Snapshot(
            id=_identifier(pinned.at, self.newest),
            pinned_at=pinned.at.isoformat(timespec="microseconds"),
            completed_at="",
            source=str(self.lake.home),
            environment=self.lake.settings.target,
            schema_prefix=self.lake.settings.schema_prefix,
            tables=(),
            watermarks=pinned.watermarks,
            erased=pinned.erased,
        )
        self.done, self.done_bytes, self.files = 0, 0, pinned.files
        files: dict[str, list[StoredFile]] = {name: [] for name in pinned.tables}
        logs: dict[str, list[StoredFile]] = {name: [] for name in pinned.tables}
        with self._drafting(made, pinned, files), ThreadPoolExecutor(THREADS) as pool:
            jobs: list[Future[None]] = []
            try:
                for name, (table, version) in pinned.tables.items():
                    jobs += [pool.submit(self._file, table, file, files[name]) for file in version.files.values()]
                    jobs += [pool.submit(self._entry, table, entry, logs[name]) for entry in version.entries]
                for ended in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    ended.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            state = [self._blob(path, data) for path, data in sorted(pinned.state.items())]
            waiting = [self._landed(path) for path in pinned.landing]
        tables = tuple(_stored(*pinned.tables[name], files[name], logs[name]) for name in pinned.tables)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda stored: check_log(self.store, stored), tables))
        return replace(
            made,
            tables=tables,
            state=tuple(state),
            landing=tuple(waiting),
            completed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            copied_files=len(self.copied),
            copied_bytes=sum(file.bytes for file in self.copied),
            copied_log_bytes=self.log_bytes,
            seconds=round(time.monotonic() - self.started, 3),
        )

    def _file(self, table: Table, file: LiveFile, into: list[StoredFile]) -> None:
        """One data file or file of deletion vectors."""
        found = self.known.get((table.name, file.path, file.modified))
        if found is None or file.bytes not in (None, found.bytes):
            key = hashlib.sha256(f"{file.path}\0{file.bytes}\0{file.modified}".encode()).hexdigest()[:16]
            name = f"{FILES}{table.layer}/{table.table}/{key}/{file.path.rsplit('/', 1)[-1]}"
            if damage := self._damage(table, file, name):
                raise OpsError(
                    f"{table.name}: {file.path} {damage}. There is no new snapshot. Restore the table from an older "
                    "one (docs/runbooks/dr_restore.md)."
                )
            checksum = self.store.take(table.folder, file.path, name)
            found = StoredFile(file.path, name, checksum.bytes, checksum.sha256, checksum.etag, file.modified)
            with self.guard:
                self.copied.append(found)
                self.added[table.name] = self.added.get(table.name, 0) + found.bytes
                self.known[table.name, file.path, file.modified] = found
        self._count(found, into)

    def _damage(self, table: Table, file: LiveFile, name: str) -> str | None:
        """What is wrong with a table's file. Checked before the copy, which may replace an earlier snapshot's file."""
        size = table.folder.checksum(file.path, thorough=False).bytes
        if file.bytes not in (None, size):
            return f"has {size} bytes and the log says {file.bytes}"
        if damage := file.damage(lambda offset, length: table.folder.part(file.path, offset, length)):
            return damage
        recorded = self.recorded.get(name)
        if recorded is None or recorded.sha256 is None:
            return None
        return Checksum(recorded.bytes, recorded.sha256).differs(table.folder.checksum(file.path))

    def _entry(self, table: Table, entry: str, into: list[StoredFile]) -> None:
        self._count(self._blob(entry, table.folder.read(entry)), into)

    def _blob(self, path: str, data: bytes) -> StoredFile:
        """A small file, named by its content."""
        digest = hashlib.sha256(data).hexdigest()
        if self._is_new(f"{BLOBS}{digest}", len(data)):
            self.store.write(f"{BLOBS}{digest}", data)
        return StoredFile(path, f"{BLOBS}{digest}", len(data), digest)

    def _landed(self, path: str) -> StoredFile:
        """A delivered file; it may be large."""
        landing = folder_at(self.lake.landing)
        given = landing.checksum(path)
        if self._is_new(f"{BLOBS}{given.sha256}", given.bytes):
            self.store.take(landing, path, f"{BLOBS}{given.sha256}")
        return StoredFile(path, f"{BLOBS}{given.sha256}", given.bytes, given.sha256)

    def _is_new(self, name: str, size: int) -> bool:
        with self.guard:
            if name in self.blobs:
                return False
            self.blobs.add(name)
            self.log_bytes += size
            return True

    def _count(self, file: StoredFile, into: list[StoredFile]) -> None:
        with self.guard:
            into.append(file)
            self.done += 1
            self.done_bytes += file.bytes
            if self.tell:
                self.tell(CopyProgress(self.done, self.files, self.done_bytes))

    @contextmanager
    def _drafting(self, made: Snapshot, pinned: Pinned, files: dict[str, list[StoredFile]]) -> Iterator[None]:
        """Records what is copied, every ten seconds and when the copy ends before its time."""
        stop = threading.Event()

        def write() -> None:
            with self.guard:
                tables = tuple(_stored(*pinned.tables[name], files[name], []) for name in pinned.tables)
            if self.copied:
                self.drafts.append(made.id)
                save(self.store, replace(made, tables=tables), DRAFTS)

        def keep() -> None:
            while not stop.wait(_DRAFT_SECONDS):
                with suppress(OpsError):  # the copy itself will say what is wrong with the store
                    write()

        thread = threading.Thread(target=keep, name="snapshot draft", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            with suppress(OpsError):
                write()
            raise
        finally:
            stop.set()
            thread.join()


def _identifier(at: datetime, newest: str) -> str:
    """An identifier that sorts after the newest snapshot's, even if the clock was set back."""
    stamp = _stamp(at)
    if newest[: len(stamp)] >= stamp:
        stamp = _stamp(datetime.strptime(f"{newest[:18]}000", "%Y%m%dT%H%M%S%f") + timedelta(milliseconds=1))
    return f"{stamp}-{secrets.token_hex(2)}"


def _stamp(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03}Z"


def _stored(table: Table, version: TableVersion, files: list[StoredFile], log: list[StoredFile]) -> StoredTable:
    return StoredTable(
        layer=table.layer,
        table=table.table,
        table_id=version.table_id,
        version=version.version,
        rows=version.rows,
        files=tuple(sorted(files, key=lambda file: file.path)),
        log=tuple(sorted(log, key=lambda file: file.path)),
    )
