"""Staged files, read by an embedded DuckDB in the served types; only the rows that a warehouse lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from python_ops.jobs.publish.fingerprint import DUCKDB, ROWS, ColumnKind, Field, Fingerprint, differences
from python_ops.jobs.publish.target import StagedTable
from python_ops.lake.errors import OpsError, first_line
from python_ops.lake.sql import literal

# Timestamps are served in UTC without a zone: a reader's time zone must not move a day's revenue.
_TYPES = {
    "tinyint": "tinyint", "smallint": "smallint", "int": "integer", "bigint": "bigint", "float": "float",
    "double": "double", "string": "varchar", "boolean": "boolean", "binary": "blob", "date": "date",
    "timestamp": "timestamp", "timestamp_ntz": "timestamp",
}  # fmt: skip

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "1GB",  # Spark's JVM is beside it; what does not fit spills to a folder next to the file
    "preserve_insertion_order": False,
    "autoinstall_known_extensions": False,  # nothing is fetched from the network
}

# For the casts between zoned and plain timestamps; and standard output is the command's.
SESSION = "set TimeZone = 'UTC'; set enable_progress_bar = false"


def staged_rows(table: StagedTable) -> str:
    """The query of a table's staged rows."""
    columns = ", ".join(f"cast({DUCKDB.name(f.name)} as {_type(f)}) as {DUCKDB.name(f.name)}" for f in table.fields)
    return f"select {columns} from read_parquet({literal(str(table.folder / '*.parquet'))})"


@dataclass(frozen=True)
class Changes:
    """How the staged rows differ from those that are served, as multisets of rows.

    Attributes:
        unequal: Distinct rows whose number differs between the two.
        gone: Served rows among them; they are deleted.
        sent: Staged rows among them: they are sent.
        rows: Staged rows in all.
    """

    unequal: int
    gone: int
    sent: int
    rows: int


class StagedRows:
    """The rows of one staged table.

    Args:
        connection: An embedded DuckDB.
        scratch: Folder for files on their way to the warehouse.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: StagedTable, scratch: Path) -> None:
        self.connection, self.table, self.scratch = connection, table, scratch
        self.every = staged_rows(table)

    def compare(self, served: Path) -> Changes:
        """Compares the staged rows with the served ones, given as a file of two columns with a tab between them.

        Args:
            served: The place of each row (an address, or the hash itself), and its hash.
        """
        columns = "columns = {'place': 'varchar', 'h': 'varchar'}, header = false, auto_detect = false"
        self.connection.execute(
            "create or replace temp table served as "
            f"select * from read_csv({literal(str(served))}, {columns}, delim = '\t', quote = '')"
        )
        hashes = f"select {DUCKDB.row_hash(self.table.fields)} as h from ({self.every})"
        self.connection.execute(
            "create or replace temp table changes as "
            f"with new as (select h, count(*) as n from ({hashes}) group by h), "
            "old as (select h, count(*) as n from served group by h) "
            "select h, coalesce(new.n, 0) as sent, coalesce(old.n, 0) as gone from new full join old using (h) "
            "where new.n is distinct from old.n"
        )
        row = self.connection.execute(
            "select count(*), count(*) filter (gone > 0), coalesce(sum(sent), 0) from changes"
        )
        unequal, gone, sent = row.fetchone() or (0, 0, 0)
        return Changes(unequal, gone, int(sent), self.table.rows)

    @property
    def changed(self) -> str:
        """The query of the rows to send, after `compare`."""
        condition = f"{DUCKDB.row_hash(self.table.fields)} in (select h from changes where sent > 0)"
        return f"select * from ({self.every}) where {condition}"

    @property
    def gone(self) -> str:
        """The query of the places of rows to delete, after `compare`."""
        return "select distinct place as h from served where h in (select h from changes where gone > 0)"


@contextmanager
def open_staged(table: StagedTable) -> Iterator[StagedRows]:
    """The staged rows, for the time of one load. Scratch files are removed with the staging folder.

    Raises:
        OpsError: the staged files cannot be read, or the disk is full.
    """
    scratch = table.folder.with_name(f"{table.folder.name}.scratch")
    try:
        scratch.mkdir(exist_ok=True)
        with duckdb.connect(config=CONFIG | {"temp_directory": str(scratch / "spill")}) as connection:
            connection.execute(SESSION)
            yield StagedRows(connection, table, scratch)
    except duckdb.Error as exc:
        text = first_line(exc)
        why = f"the disk under {scratch.parent} is full" if "No space left" in text else text
        raise OpsError(
            f"Publishing {table.model.table}: its staged files cannot be read: {why}. What was served before is still "
            "served. Run `lakeops publish run` again; it stages the table anew."
        ) from exc


def fingerprint(
    connection: duckdb.DuckDBPyConnection, relation: str, fields: Sequence[Field], without: Collection[str] = ()
) -> Fingerprint:
    """The fingerprint of a relation in DuckDB, without some parts: a sum too large for Spark is an error in DuckDB."""
    parts = {part: sql for part, sql in DUCKDB.aggregates(fields).items() if part not in without}
    row = connection.execute(f"select {', '.join(parts.values())} from {relation}").fetchone()
    return dict(zip(parts, row or (), strict=True))


def audit(table: StagedTable, copy: Fingerprint) -> None:
    """Compares a loaded table with what Spark read from Delta.

    Raises:
        OpsError: they differ; the text names the parts, never values.
    """
    if parts := unequal_parts(table, copy):
        raise OpsError(
            f"Publishing {table.model.table}: the audit against Delta version {table.version.number} failed on {parts}."
            " Nothing was published; what was served before is still served. Run `lakeops publish run` again; it "
            "stages the table anew."
        )


def unequal_parts(table: StagedTable, copy: Fingerprint) -> str | None:
    """Which parts of a loaded table's fingerprint differ from the lake's, in words; None where it is equal."""
    if not (wrong := differences(table.fingerprint, copy)):
        return None
    counts = f" ({table.fingerprint[ROWS]} in the lake, {copy[ROWS]} loaded)" if ROWS in wrong else ""
    return ", ".join(wrong) + counts


def unknown_parts(table: StagedTable) -> list[str]:
    """Parts that Spark has no value for: no values at all, or a sum that is too large for its type."""
    return [part for part, value in table.fingerprint.items() if value is None]


def _type(field: Field) -> str:
    if field.kind is ColumnKind.DECIMAL:
        return field.type
    return "varchar" if field.kind is ColumnKind.TEXT else _TYPES[field.type]
