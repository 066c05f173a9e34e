"""Proving that a snapshot is whole: every file has its checksum, every copied log lists exactly the copied files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from python_ops.jobs.recovery.manifest import Snapshot, StoredFile, StoredTable
from python_ops.lake.deltalog import UnreadableLog, read_version
from python_ops.lake.errors import OpsError
from python_ops.lake.storage import Folder, MissingFile

THREADS = 8


@dataclass(frozen=True)
class CopyProgress:
    """How far copying or checking is."""

    done: int
    files: int
    bytes: int


Tell = Callable[[CopyProgress], None]


@dataclass(frozen=True)
class Verification:
    """What a check found.

    Attributes:
        files: Files looked at.
        bytes: Bytes read, or of the files looked at when not thorough.
        faults: What is wrong, a line each; empty for a snapshot that can be restored.
    """

    id: str
    files: int
    bytes: int
    thorough: bool
    faults: tuple[str, ...] = ()


def verify(
    store: Folder,
    snapshot: Snapshot,
    tables: tuple[str, ...] = (),
    thorough: bool = True,
    on_progress: Tell | None = None,
) -> Verification:
    """Checks a snapshot without changing anything.

    Args:
        tables: Only these tables, as `layer.table`; all, with ledgers and waiting files, when empty.
        thorough: Read every byte; else sizes and tags alone.
        on_progress: Told after each file.

    Raises:
        ConfigError: the snapshot has no such table.
        OpsError: the store does not answer.
    """
    chosen = snapshot.only(tables)
    owners: dict[str, tuple[str, StoredFile]] = {}
    names = {table.name for table in chosen} | (set() if tables else {"state", "landing"})
    for owner, file in snapshot.files():
        if owner in names:
            owners.setdefault(file.object, (owner, file))
    faults, done, size = list[str](), 0, 0
    with ThreadPoolExecutor(THREADS) as pool:
        for fault, file in pool.map(lambda each: _check(store, each[0], each[1], thorough), owners.values()):
            done, size = done + 1, size + file.bytes
            faults += [fault] if fault else []
            if on_progress:
                on_progress(CopyProgress(done, len(owners), size))
        damaged = {fault.split(":", 1)[0] for fault in faults}
        whole = [table for table in chosen if table.name not in damaged]  # a damaged log is told already
        faults += [fault for fault in pool.map(lambda table: _log_fault(store, table), whole) if fault]
    return Verification(snapshot.id, done, size, thorough, tuple(faults))


def require(verdict: Verification, consequence: str) -> None:
    """Refuses a snapshot that is not whole.

    Raises:
        OpsError: there are faults; the text names the first ones.
    """
    if verdict.faults:
        more = f", and {len(verdict.faults) - 3} more" if len(verdict.faults) > 3 else ""
        raise OpsError(
            f"Snapshot {verdict.id} is damaged: {'; '.join(verdict.faults[:3])}{more}. {consequence} Use another "
            "(`lakeops snapshot list`); while the source is whole, `lakeops snapshot create --full` repairs the store."
        )


def check_log(store: Folder, table: StoredTable) -> None:
    """Makes sure that the copied log, read by itself, lists exactly the copied files.

    Raises:
        UnreadableLog: it does not; the text says how.
    """
    told = read_version(_CopiedLog(store, table), table.version)
    copied = {file.path: file.bytes for file in table.files}
    if odd := sorted(told.files.keys() ^ copied.keys()):
        raise UnreadableLog(
            f"{table.name}: the copied log of version {table.version} lists {len(told.files)} files and {len(copied)} "
            f"were copied; {odd[0]} is in one of them alone."
        )
    if odd := [path for path, file in told.files.items() if file.bytes not in (None, copied[path])]:
        raise UnreadableLog(f"{table.name}: {odd[0]} has another size than the copied log says.")
    if told.table_id != table.table_id:
        raise UnreadableLog(f"{table.name}: the copied log is of another table.")


def _log_fault(store: Folder, table: StoredTable) -> str | None:
    try:
        check_log(store, table)
    except (UnreadableLog, MissingFile) as exc:
        return str(exc)
    return None


def _check(store: Folder, owner: str, file: StoredFile, thorough: bool) -> tuple[str | None, StoredFile]:
    try:
        difference = file.checksum.differs(store.checksum(file.object, thorough))
    except MissingFile:
        difference = "is missing"
    return (f"{owner}: {file.path} ({file.object}) {difference}" if difference else None), file


class _CopiedLog:
    """A copied table's log, under the names that it had."""

    def __init__(self, store: Folder, table: StoredTable) -> None:
        self.store, self.entries = store, {file.path: file for file in table.log}
        self.url = f"{table.name} in {store.url}"

    def names(self, prefix: str = "") -> dict[str, int]:
        return {path: file.bytes for path, file in self.entries.items() if path.startswith(prefix)}

    def read(self, name: str) -> bytes:
        if name not in self.entries:
            raise MissingFile(f"{self.url}: {name} was not copied.")
        return self.store.read(self.entries[name].object)
