"""One moment of the lake: every table's version, the ledgers, the watermarks and the files that wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from python_ops.jobs.recovery.tables import Table
from python_ops.lake import landing
from python_ops.lake.deltalog import LOG, TableVersion, UnreadableLog, last_version, read_version
from python_ops.lake.erasure import receipts
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import BatchState

_TRIES = 5
_WAIT_SECONDS = 0.5


@dataclass
class Pinned:
    """What a snapshot will consist of.

    Attributes:
        tables: By name, each with its version.
        state: Ledgers' files with their content.
        landing: Delivered files that no committed batch has, as `<source>/<file>`.
    """

    at: datetime
    tables: dict[str, tuple[Table, TableVersion]] = field(default_factory=dict)
    state: dict[str, bytes] = field(default_factory=dict)
    landing: list[str] = field(default_factory=list)
    watermarks: dict[str, Any] = field(default_factory=dict)
    erased: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """Number of files and log entries."""
        tables = sum(len(version.files) + len(version.entries) for _, version in self.tables.values())
        return tables + len(self.state) + len(self.landing)

    def has_moved(self) -> bool:
        """Whether a table was written to since."""
        return any(last_version(t.folder.names(LOG)) != version.version for t, version in self.tables.values())


def pin(lake: Lake, wanted: Sequence[Table]) -> Pinned:
    """Reads everything, then checks what may have changed meanwhile, and repeats until nothing has.

    Raises:
        UnreadableLog: a table is damaged.
        OpsError: there is no table yet, or tables are written to without a pause.
    """
    for attempt in range(1, _TRIES + 1):
        pinned = Pinned(datetime.now(UTC))
        try:
            for table in wanted:
                if table.folder.names(LOG):
                    pinned.tables[table.name] = (table, read_version(table.folder))
        except UnreadableLog:
            if attempt > 1:  # the first time, a writer may have cleaned up its log between listing and reading
                raise
            continue
        pinned.state = _ledgers(lake)
        _pin_sources(lake, pinned)
        if not pinned.has_moved() and _ledgers(lake) == pinned.state:
            if not pinned.tables:
                raise OpsError(f"{lake.home} holds no table yet; there is nothing to copy.")
            return pinned
        time.sleep(_WAIT_SECONDS)
    raise OpsError(
        "Tables are written to without a pause, so no moment was found to copy them all. There is no new snapshot. "
        "Run again when the writer has ended."
    )


def _ledgers(lake: Lake) -> dict[str, bytes]:
    folder = lake.state / "ingest"
    return {path.relative_to(lake.state).as_posix(): path.read_bytes() for path in folder.glob("*/batch_*.json")}


def _pin_sources(lake: Lake, pinned: Pinned) -> None:
    for source in lake.contracts.sources:
        manifests = lake.ledger(source).manifests
        done = {file.name for m in manifests if m.state is BatchState.COMMITTED for file in m.files}
        waiting = [
            name for name in landing.names(lake.landing / source, lake.contracts.load(source)) if name not in done
        ]
        marks = [f"{name}{landing.SNAPSHOT}" for name in waiting]
        marks = [mark for mark in marks if (lake.landing / source / mark).exists()]
        pinned.landing += [f"{source}/{name}" for name in (*marks, *waiting)]
    store = lake.store
    for name in store.names("watermark"):
        if record := store.get("watermark", name):
            pinned.watermarks[name] = dict(record.value)
    pinned.erased = {name: dict(told) for name, told in receipts(lake).items()}
