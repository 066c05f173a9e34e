"""What a Delta table's log says, read without a JVM."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from deltalake import DeltaTable

# Operations that leave the rows as they are: they move files, properties and comments.
_KEEPS_ROWS = frozenset({
    "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "CHANGE COLUMN",
    "CHANGE COLUMNS", "COMPUTE STATS", "CLUSTER BY", "UPGRADE PROTOCOL",
})  # fmt: skip


def exists(path: Path) -> bool:
    """Whether the folder is a Delta table."""
    return DeltaTable.is_deltatable(str(path))


def rows_changed_since(path: Path, version: int) -> bool:
    """Whether a commit after `version` may have changed rows; yes where the history does not reach back that far."""
    table = DeltaTable(str(path))
    behind = table.version() - version
    if behind <= 0:
        return behind < 0
    commits = table.history(behind)
    return len(commits) < behind or any(commit.get("operation") not in _KEEPS_ROWS for commit in commits)


def last_change(path: Path) -> datetime | None:
    """When rows last may have changed, UTC; None where the history no longer says."""
    for commit in DeltaTable(str(path)).history():
        if commit.get("operation") not in _KEEPS_ROWS:
            return datetime.fromtimestamp(int(commit["timestamp"]) / 1000, UTC)
    return None
