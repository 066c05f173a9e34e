"""What a Delta table's log says, read without a JVM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from python_ops.lake.buckets import delta_options, on_bucket
from python_ops.lake.deltalog import last_version, read_version
from python_ops.lake.errors import OpsError, first_line
from python_ops.lake.files import names
from python_ops.lake.storage import folder_at

# Operations that leave the rows as they are: they move files, properties and comments.
_KEEPS_ROWS = frozenset({
    "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "CHANGE COLUMN",
    "CHANGE COLUMNS", "COMPUTE STATS", "CLUSTER BY", "UPGRADE PROTOCOL",
})  # fmt: skip

# Spark's timestamps are INT96, which would be read as nanoseconds: of 0001-01-01 that makes 1754-08-30 (2026-11-29).
_READING = {"datafusion.execution.parquet.coerce_int96": "us"}

# Types whose name in the log is not the one in Spark SQL.
_SPARK_TYPES = {"byte": "tinyint", "short": "smallint", "integer": "int", "long": "bigint"}

_CHANGES_COLUMNS = frozenset({"CHANGE COLUMN", "CHANGE COLUMNS"})  # a comment, or a type that was widened
_FILES = (
    "numFiles", "numRemovedFiles", "numAddedFiles", "numTargetFilesAdded", "numTargetFilesRemoved",
    "numTargetDeletionVectorsAdded",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What some commits changed in a table.

    Attributes:
        rows: `inserted`, `updated` and `deleted` together.
        bytes: Of the files that were added.
        files: Added and removed.
        rows_copied: Unchanged rows that were written again, because they share a file with a changed one.
    """

    rows: int = 0
    bytes: int = 0
    files: int = 0
    rows_copied: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0


def exists(path: Path) -> bool:
    """Whether the folder is a Delta table.

    Raises:
        OpsError: the log is there and cannot be listed. If it were taken for absent, the table would be loaded again.
    """
    try:
        return last_version(names(path / "_delta_log")) is not None
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise OpsError(
            f"The Delta log of {path} cannot be read ({exc.strerror}). Give this user read and search permission, or "
            "restore the table from a snapshot (docs/runbooks/dr_restore.md)."
        ) from exc


def open_log(path: Path, version: int | None = None) -> DeltaTable:
    """A table as its Delta log says it is, or was at a version, without a JVM.

    Raises:
        OpsError: there is no log, or it cannot be read.
    """
    try:
        return DeltaTable(str(path), version, storage_options=delta_options() if on_bucket(path) else None)
    except (DeltaError, OSError, ValueError) as exc:
        raise OpsError(
            f"The Delta log of {path} cannot be read ({first_line(exc, 200)}). If it is damaged, "
            "restore the table from a snapshot (docs/runbooks/dr_restore.md)."
        ) from exc


def query(path: Path, sql: str, version: int | None = None) -> Any:
    """Rows of a query on a table, there called `t`, as an Arrow table; without a JVM. Of a version, if one is given.

    deltalake applies deletion vectors, but refuses tables whose types were widened. Their files are read as they are,
    which is right if no row of a file is deleted.

    Raises:
        OpsError: the log cannot be read, or only Spark reads the table.
    """
    import pyarrow as pa

    opened = open_log(path, version)
    try:
        return pa.table(QueryBuilder(_READING).register("t", opened).execute(sql))
    except Exception as exc:  # deltalake raises a dozen unrelated classes
        vectors = any(file.vectors for file in read_version(folder_at(path), version).files.values())
        if "TypeWidening" not in str(exc) or vectors:
            raise OpsError(f"{path} cannot be read without Spark ({first_line(exc, 200)}).") from exc
    return _query_files(opened, sql)


def columns(path: Path, version: int | None = None) -> dict[str, tuple[str, str]]:
    """Columns of a table, now or at a version, in order: Spark's type and the comment, empty where there is none.

    Raises:
        OpsError: the log cannot be read.
    """
    fields = json.loads(open_log(path, version).schema().to_json())["fields"]
    return {field["name"]: (_spark_type(field["type"]), field["metadata"].get("comment") or "") for field in fields}


def _spark_type(type_: Any) -> str:
    if isinstance(type_, str):
        return _SPARK_TYPES.get(type_, type_)
    if type_["type"] == "array":
        return f"array<{_spark_type(type_['elementType'])}>"
    if type_["type"] == "map":
        return f"map<{_spark_type(type_['keyType'])},{_spark_type(type_['valueType'])}>"
    fields = ",".join(f"{field['name']}:{_spark_type(field['type'])}" for field in type_["fields"])
    return f"struct<{fields}>"


def _query_files(opened: DeltaTable, sql: str) -> Any:
    import duckdb
    import pyarrow as pa
    from pyarrow.dataset import ParquetFileFormat, dataset

    schema = pa.schema(opened.schema().to_arrow())
    files = dataset(opened.file_uris(), schema=schema, format=ParquetFileFormat(coerce_int96_timestamp_unit="us"))
    with duckdb.connect() as engine:
        engine.execute("set timezone = 'UTC'")
        engine.execute("create macro to_unixtime(moment) as cast(epoch(moment) as bigint)")  # deltalake's name
        return engine.register("t", files).sql(sql).to_arrow_table()


class TableLog:
    """What a table's log says, for a command that asks several times: each part is read once, when first asked for.

    `Lake.log` gives it. Who writes to the table asks for a new one.

    Raises:
        OpsError: by whatever reads it: there is no log, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._commits: list[dict[str, Any]] | None = None

    @cached_property
    def exists(self) -> bool:
        """Whether the folder is a Delta table."""
        return exists(self.path)

    @cached_property
    def table(self) -> DeltaTable:
        """Its newest version."""
        return open_log(self.path)

    @cached_property
    def files(self) -> Any:
        """Its live files, as deltalake's Arrow batch."""
        table = self.table
        try:
            return table.get_add_actions()
        except Exception as exc:  # deltalake raises a dozen unrelated classes
            raise OpsError(
                f"{self.path} cannot be read as a Delta table ({type(exc).__name__}). See docs/runbooks/dr_restore.md."
            ) from exc

    @cached_property
    def stored_rows(self) -> int:
        """Rows in its live files, also those behind deletion vectors."""
        return sum(int(rows or 0) for rows in self.files.column("num_records").to_pylist())

    @cached_property
    def deleted_rows(self) -> int | None:
        """Rows behind deletion vectors, from the checksum that Spark writes beside each commit; None without one."""
        checksums = sorted((self.path / "_delta_log").glob("*.crc"))
        if not checksums:
            return None
        told = json.loads(checksums[-1].read_text(encoding="utf-8")).get("numDeletedRecordsOpt")
        return None if told is None else int(told)

    @property
    def live_rows(self) -> int:
        """Rows that a reader sees."""
        return self.stored_rows - (self.deleted_rows or 0)

    @cached_property
    def current_rows(self) -> int:
        """Rows of a CDC model that are current, which is its keys that are not deleted; two columns are read.

        Raises:
            OpsError: only Spark reads the table.
        """
        found = query(self.path, "select count(*) as rows from t where _cdc_visible and _cdc_valid_to is null")
        return int(found["rows"][0].as_py())

    def commits(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Its commits as deltalake tells them, the newest first; at most so many."""
        if self._commits is None and limit is not None:
            return self.table.history(limit)
        if self._commits is None:
            self._commits = self.table.history()
        return self._commits[:limit]

    def rows_changed_since(self, version: int, or_columns: bool = False) -> bool:
        """Whether a commit after `version` may have changed rows; True if the history does not reach back that far.

        Args:
            version: The version that is known.
            or_columns: A column's changed type or comment counts as well.
        """
        kept = _KEEPS_ROWS - _CHANGES_COLUMNS if or_columns else _KEEPS_ROWS
        behind = self.table.version() - version
        if behind <= 0:
            return behind < 0
        commits = self.commits(behind)
        return len(commits) < behind or any(commit.get("operation") not in kept for commit in commits)

    def last_change(self) -> datetime | None:
        """When rows last may have changed, UTC; None where the history no longer says."""
        return next((_at(commit) for commit in self.commits() if commit.get("operation") not in _KEEPS_ROWS), None)

    def written_since(self, began: datetime) -> Written | None:
        """What the commits since a time wrote, of the last five; None where there is no table."""
        if not self.exists:
            return None
        inserted = updated = deleted = size = files = copied = 0
        for commit in self.commits(5):
            if _at(commit) < began:
                break
            if commit.get("operation") in _KEEPS_ROWS:
                continue
            metrics: dict[str, Any] = commit.get("operationMetrics") or {}
            is_merge = "numTargetRowsInserted" in metrics
            inserted += int(metrics.get("numTargetRowsInserted" if is_merge else "numOutputRows", 0))
            updated += int(metrics.get("numTargetRowsUpdated", 0))
            deleted += int(metrics.get("numTargetRowsDeleted" if is_merge else "numDeletedRows", 0))
            size += int(metrics.get("numTargetBytesAdded") or metrics.get("numOutputBytes") or 0)
            files += sum(int(metrics.get(name, 0)) for name in _FILES)
            copied += int(metrics.get("numTargetRowsCopied") or metrics.get("numCopiedRows") or 0)
        return Written(inserted + updated + deleted, size, files, copied, inserted, updated, deleted)


def _at(commit: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(int(commit["timestamp"]) / 1000, UTC)
