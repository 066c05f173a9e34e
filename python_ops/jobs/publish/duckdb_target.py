"""Publishing to a DuckDB file. DuckDB admits one writing process, or any number of reading ones.

Tables are changed in place, in one transaction for the whole set: only rows that differ are deleted and inserted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from python_ops.jobs.publish.fingerprint import DUCKDB
from python_ops.jobs.publish.staged import CONFIG, SESSION, audit, fingerprint, staged_rows, unknown_parts
from python_ops.jobs.publish.target import Loaded, Served, StagedTable, Version
from python_ops.lake.errors import BusyError, OpsError, first_line
from python_ops.lake.files import draft_of, settle
from python_ops.lake.local_copy import LocalCopy
from python_ops.lake.sql import literal

_LEDGER = """
create schema if not exists ops;
create table if not exists ops.publish_ledger (
    table_name varchar primary key,
    delta_table_id varchar not null,
    delta_version bigint not null,
    row_count bigint not null,
    published_at timestamp not null
);
alter table ops.publish_ledger add column if not exists personal varchar;
comment on table ops.publish_ledger is
    'One row per published table: the Delta version that is served, since when (UTC). Written by lakeops publish run.';
comment on column ops.publish_ledger.personal is 'What was done with personal columns; empty: nothing.';
"""

WAIT_SECONDS = 3.0


class DuckDBTarget:
    """A DuckDB file whose tables carry the names that they have in the lake.

    Args:
        path: The database file; made on first use.
        original: Where it is kept if that is in a bucket; `path` is then this machine's copy.
    """

    def __init__(self, path: Path, original: Path | None = None) -> None:
        self.path = path
        self._kept = LocalCopy(original, path) if original else None

    def served(self) -> dict[str, Served]:
        """The ledger; see `Target`.

        Raises:
            BusyError: another process is writing to the file.
            OpsError: the file is not a DuckDB database.
        """
        if self._kept:
            self._kept.fetch()
        if not self.path.exists():
            return {}
        with self._open(read_only=True) as connection:
            return _ledger(connection)

    def prepare(self) -> None:
        """Makes the file and its ledger.

        Raises:
            BusyError: another process has the file open.
            OpsError: it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.execute(_LEDGER)

    def replace(self, tables: Sequence[StagedTable], ledger: Mapping[str, Served]) -> dict[str, Loaded]:
        """One transaction; see `Target`.

        Raises:
            BusyError: another process has the file open, or published meanwhile, here or on another machine.
            OpsError: an audit failed, or the disk is full. What was served is still served.
        """
        with self._changed(), self._open() as connection:
            connection.begin()  # closing the connection before the commit rolls back
            if _ledger(connection) != dict(ledger):
                raise BusyError(
                    f"Another run published to {self.path} meanwhile, so nothing was published by this one. "
                    "Run `lakeops publish run` again."
                )
            loaded = {}
            for table in tables:
                started = time.monotonic()
                sent = _load(connection, table)
                _describe(connection, table)
                audit(table, fingerprint(connection, _name(table), table.fields, unknown_parts(table)))
                _enter(connection, table)
                loaded[table.model.table] = Loaded(time.monotonic() - started, sent)
            connection.commit()
        return loaded

    def rewrite(self) -> None:
        """Writes the file anew: DuckDB keeps the space of deleted rows, and their bytes in it, until it needs it.

        Raises:
            BusyError: another process has the file open.
            OpsError: it cannot be written. What was served is still served.
        """
        if not self.served():
            return
        draft = draft_of(self.path)
        draft.unlink(missing_ok=True)
        try:
            with self._changed():
                with _connected(self.path, False) as connection:
                    connection.execute(f"attach {literal(str(draft))} as rewritten")
                    connection.execute(f"copy from database {DUCKDB.name(self.path.stem)} to rewritten")
                    connection.execute("detach rewritten")
                settle(draft, self.path)
        except duckdb.Error as exc:
            raise self._failure(exc) from exc
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """Sends the file to the bucket that it is kept in, when the block is done and the file is closed."""
        if self._kept is None:
            yield
            return
        tag = self._kept.forget()
        yield
        self._kept.send(tag)

    @contextmanager
    def _open(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with _connected(self.path, read_only) as connection:
                connection.execute(SESSION)
                yield connection
        except duckdb.Error as exc:
            raise self._failure(exc) from exc

    def _failure(self, exc: duckdb.Error) -> OpsError:
        text = first_line(exc)
        if "set lock on file" in text:
            holder = re.search(r"PID (\d+)", text)
            who = f"process {holder[1]}" if holder else "another process"
            return BusyError(
                f"{self.path} is held open by {who}. Close it (DuckDB admits one writer, or only readers), "
                "then run `lakeops publish run` again."
            )
        if "No space left" in text:
            return OpsError(
                f"The disk under {self.path.parent} is full. What was served before is still served. "
                "Free space, then run `lakeops publish run` again."
            )
        if "not a valid DuckDB database" in text:
            return OpsError(f"{self.path} is not a DuckDB database. Move it away; the next publish makes it anew.")
        return OpsError(f"Publishing to {self.path} failed: {text[:300]} What was served before is still served.")


def _connected(path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection. Waits a little, because readers open the file for moments."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return duckdb.connect(path, read_only=read_only, config=CONFIG)
        except duckdb.IOException as exc:
            if "set lock on file" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _ledger(connection: duckdb.DuckDBPyConnection) -> dict[str, Served]:
    """Rows of the ledger; empty if publishing did not make the database."""
    if not connection.execute(
        "from duckdb_tables() where schema_name = 'ops' and table_name = 'publish_ledger'"
    ).fetchall():
        return {}
    rows = connection.execute("from ops.publish_ledger")  # one of an older version lacks `personal`
    found = [dict(zip([name for name, *_ in rows.description or ()], row, strict=True)) for row in rows.fetchall()]
    return {
        row["table_name"]: Served(
            Version(row["delta_table_id"], row["delta_version"]), row["row_count"],
            f"{row['published_at'].isoformat(timespec='seconds')}Z", row.get("personal") or "",
        )
        for row in found
    }  # fmt: skip


def _load(connection: duckdb.DuckDBPyConnection, table: StagedTable) -> int:
    """Makes a table equal to its staged rows. Returns how many rows were sent.

    The rows themselves are compared, as multisets: of 200 000 rows with 1 % changed that takes 12 % more processor time
    than writing the table anew, where hashing both sides takes 150 % more (2026-11-28). The table's indexes stay.
    """
    name, staged = _name(table), staged_rows(table)
    rows = table.rows
    connection.execute(f"create schema if not exists {DUCKDB.name(table.model.schema)}")
    if _has_columns_of(connection, table):
        columns = ", ".join(DUCKDB.name(field.name) for field in table.fields)
        connection.execute(
            "create or replace temp table changes as "
            f"select {columns}, list(place) filter (place is not null) as places, "
            "count(*) filter (place is null) - count(place) as more "
            f"from (select {columns}, null::bigint as place from ({staged}) "
            f"union all select {columns}, rowid from {name}) group by {columns} having more <> 0"
        )
        counted = connection.execute("select coalesce(sum(more), 0)::bigint from changes where more > 0").fetchone()
        sent = counted[0] if counted else 0
        if sent <= rows // 2:
            connection.execute(
                f"delete from {name} where rowid in (select unnest(places[:-more]) from changes where more < 0)"
            )
            connection.execute(
                f"insert into {name} select {columns} from (select *, unnest(range(more)) from changes where more > 0)"
            )
            return sent
    connection.execute(f"create or replace table {name} as {staged}")
    return rows


def _has_columns_of(connection: duckdb.DuckDBPyConnection, table: StagedTable) -> bool:
    """Whether the served table has the names and types of the staged one, in their order."""
    served = connection.execute(
        "select column_name, data_type from duckdb_columns() where database_name = current_database() "
        "and lower(schema_name) = lower(?) and lower(table_name) = lower(?) order by column_index",
        [table.model.schema, table.model.alias],
    ).fetchall()
    staged = connection.execute(f"describe {staged_rows(table)}").fetchall()
    return served == [(name, kind) for name, kind, *_ in staged]


def _describe(connection: duckdb.DuckDBPyConnection, table: StagedTable) -> None:
    """Comments of a table and its columns."""
    name = _name(table)
    connection.execute(f"comment on table {name} is {literal(table.model.description)}")
    for column, text in table.comments:
        connection.execute(f"comment on column {name}.{DUCKDB.name(column)} is {literal(text)}")


def _enter(connection: duckdb.DuckDBPyConnection, table: StagedTable) -> None:
    """Writes a table's row of the ledger."""
    connection.execute(
        "insert or replace into ops.publish_ledger by position values (?, ?, ?, ?, now()::timestamp, ?)",
        [table.model.table, table.version.table_id, table.version.number, table.rows, table.personal],
    )


def _name(table: StagedTable) -> str:
    return DUCKDB.relation(table.model.schema, table.model.alias)
