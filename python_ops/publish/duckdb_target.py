"""DuckDB as the serving database: one file, swapped in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import duckdb

from python_ops.errors import BusyError, OpsError
from python_ops.publish.audit import checksums


@dataclass(frozen=True)
class Staged:
    """A table's rows in parquet files, with what the source version's checksums are."""

    table: str
    table_id: str
    version: int
    files: str
    types: dict[str, str]
    checksums: dict[str, int | None]
    description: str
    columns: dict[str, str]

    @property
    def rows(self) -> int:
        """Rows of the source version."""
        return self.checksums["rows"] or 0


@dataclass(frozen=True)
class Publication:
    """What the ledger says is served under a name."""

    table_id: str
    version: int
    rows: int
    published_at: str


class DuckDBTarget:
    """The database file; a context manager.

    Raises:
        BusyError: another process has the file open for writing.
        OpsError: the file is not a database.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.connection = duckdb.connect(str(path), read_only=read_only)
        except duckdb.IOException as exc:
            if "lock" in str(exc).lower():
                raise BusyError(f"{path} is open in another process. Close it, then run again.") from exc
            raise OpsError(
                f"{path} cannot be opened ({exc}). Move it away; the next run publishes everything."
            ) from exc
        if not read_only:
            self.connection.execute("create schema if not exists ops")
            self.connection.execute(
                "create table if not exists ops.publications ("
                "table_name varchar primary key, table_id varchar, version bigint, row_count bigint, "
                "published_at timestamp)"
            )

    def __enter__(self) -> DuckDBTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def ledger(self) -> dict[str, Publication]:
        """Publications by table name."""
        rows = self.connection.execute(
            "select table_name, table_id, version, row_count, cast(published_at as varchar) from ops.publications"
        ).fetchall()
        return {row[0]: Publication(row[1], row[2], row[3], row[4]) for row in rows}

    def swap(self, staged: list[Staged]) -> None:
        """Loads and audits every table, then makes all of them visible at once.

        Raises:
            OpsError: an audit failed, or the load did. The tables of before are still served.
        """
        now = datetime.now(UTC).replace(tzinfo=None)
        self.connection.begin()
        try:
            for item in staged:
                self._load(item)
                self._audit(item)
                self.connection.execute("delete from ops.publications where table_name = ?", [item.table])
                self.connection.execute(
                    "insert into ops.publications values (?, ?, ?, ?, ?)",
                    [item.table, item.table_id, item.version, item.rows, now],
                )
            self.connection.commit()
        except BaseException as exc:
            self.connection.rollback()
            if isinstance(exc, duckdb.Error | OSError):
                raise OpsError(f"{self.path}: {exc}. Nothing was published; what was served is still served.") from exc
            raise

    def _load(self, item: Staged) -> None:
        name = _quoted(item.table)
        self.connection.execute(f"create schema if not exists {name.split('.')[0]}")
        self.connection.execute(f"create or replace table {name} as select * from read_parquet(?)", [item.files])
        self.connection.execute(f"comment on table {name} is '{_text(item.description)}'")
        for column, text in item.columns.items():
            if text and column in item.types:
                self.connection.execute(f"comment on column {name}.{_quoted(column)} is '{_text(text)}'")

    def _audit(self, item: Staged) -> None:
        query = f"select {', '.join(checksums(item.types, 'duckdb'))} from {_quoted(item.table)}"
        found = self.connection.execute(query).fetchone() or ()
        given = [None if value is None else int(value) for value in found]
        if given != list(item.checksums.values()):
            wrong = [
                name
                for name, (want, got) in zip(
                    item.checksums, zip(item.checksums.values(), given, strict=True), strict=True
                )
                if want != got
            ]
            raise OpsError(
                f"{item.table}: the audit of version {item.version} failed at {', '.join(wrong)}. Nothing was "
                "published; what was served is still served. Run `lakeops publish run` again."
            )


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def _text(text: str) -> str:
    return text.replace("'", "''")
