"""The files of a Delta table, read from its log and its folder without a JVM."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from python_ops.lake.buckets import Entry
from python_ops.lake.delta import TableLog
from python_ops.lake.files import files_under, read_all

SMALL_BYTES = 32 * 1024 * 1024
"""A file below this is small: reading it costs more in opening than in bytes."""


@dataclass(frozen=True)
class TableState:
    """One table at one version. Shares are between 0 and 1.

    Attributes:
        compactable_files: Small files beyond one per partition: what OPTIMIZE could save.
        deleted_share: Rows marked by deletion vectors, of all rows in the files; None when the log does not say.
        unclustered_share: Bytes written since the last OPTIMIZE, of all bytes.
        commits_since_checkpoint: Log entries that a reader opens one by one.
        removable_files: Files of the log that no version within the retention needs.
        untracked_files: Files in the folder that neither the live version nor a log entry names, older than the
            retention: failed writes left them.
    """

    version: int
    files: int
    bytes: int
    rows: int
    compactable_files: int
    deleted_share: float | None
    unclustered_share: float
    commits_since_checkpoint: int
    removable_files: int
    removable_bytes: int
    untracked_files: int
    untracked_bytes: int
    bytes_on_disk: int
    retain_hours: float

    @property
    def live_rows(self) -> int:
        """Rows that a reader sees."""
        return self.rows - round((self.deleted_share or 0) * self.rows)


class _File(NamedTuple):
    path: str
    bytes: int
    written_at: Any


def read_state(log: TableLog, retain_hours: float) -> TableState:
    """Reads a table's state.

    Args:
        log: The table's.
        retain_hours: What its policy keeps.

    Raises:
        OpsError: the log cannot be read.
    """
    table, adds = log.table, log.files
    columns = [adds.column(name).to_pylist() for name in ("path", "size_bytes", "modification_time")]
    live = [_File(*values) for values in zip(*columns, strict=True)]
    places = (
        {str(place) for place in adds.column("partition").to_pylist()} if "partition" in adds.column_names else {""}
    )
    small = [file for file in live if file.bytes < SMALL_BYTES]
    total = sum(file.bytes for file in live)
    optimized_at = _last_optimize(log)
    since = [file for file in live if _millis(file.written_at) > optimized_at]
    entries = _Entries(log.path)
    horizon = time.time() - retain_hours * 3600
    known = {file.path for file in live} | entries.removed.keys()
    on_disk = _data_files(log.path)
    removed = {name: size for name, (at, size) in entries.removed.items() if at / 1000 < horizon and name in on_disk}
    untracked = {n: f for n, f in on_disk.items() if n not in known and not n.endswith(".bin") and f.modified < horizon}
    return TableState(
        version=table.version(),
        files=len(live),
        bytes=total,
        rows=log.stored_rows,
        compactable_files=max(0, len(small) - len(places)),
        deleted_share=None if log.deleted_rows is None else log.deleted_rows / (log.stored_rows or 1),
        unclustered_share=sum(file.bytes for file in since) / total if total else 0.0,
        commits_since_checkpoint=table.version() - entries.checkpoint,
        removable_files=len(removed),
        removable_bytes=sum(removed.values()),
        untracked_files=len(untracked),
        untracked_bytes=sum(file.bytes or 0 for file in untracked.values()),
        bytes_on_disk=sum(file.bytes or 0 for file in on_disk.values()),
        retain_hours=retain_hours,
    )


class _Entries:
    """What deltalake does not show: removed files with their times, and the last checkpoint."""

    def __init__(self, path: Path) -> None:
        self.folder = path / "_delta_log"
        self.checkpoint = -1
        hint = self.folder / "_last_checkpoint"
        if hint.exists():
            self.checkpoint = int(json.loads(hint.read_text(encoding="utf-8"))["version"])
        self.removed: dict[str, tuple[int, int]] = {}
        for _, content, _ in read_all(self.folder, "*.json"):
            for line in content.decode().split("\n"):  # U+2028 occurs inside
                if line.startswith('{"remove":'):
                    remove = json.loads(line)["remove"]
                    at, size = remove.get("deletionTimestamp") or 0, remove.get("size") or 0
                    self.removed[remove["path"]] = (int(at), int(size))
                elif line.startswith('{"add":'):
                    self.removed.pop(json.loads(line)["add"]["path"], None)


def _data_files(path: Path) -> dict[str, Entry]:
    """Files that VACUUM would consider; it leaves hidden ones, such as Hadoop's checksums, alone."""
    return {
        name: file
        for name, file in files_under(path).items()
        if not file.name.startswith((".", "_")) and "_delta_log" not in name.split("/")
    }


def _last_optimize(log: TableLog) -> int:
    """Time of the last OPTIMIZE in milliseconds; 0 where there was none."""
    done = (int(commit["timestamp"]) for commit in log.commits() if commit.get("operation") == "OPTIMIZE")
    return max(done, default=0)


def _millis(value: Any) -> int:
    return int(value.timestamp() * 1000) if hasattr(value, "timestamp") else int(value)
