"""Publishing to a database server: the protocol that PostgreSQL, Redshift and Snowflake share.

Tables are changed in place by DELETE and INSERT in one transaction for the whole set, never swapped: readers keep the
old rows until the commit, and grants, comments, indexes and views of a table stay because the table stays. Only rows
that differ are sent, as far as hashes of whole rows tell; a copy that then fails its audit is loaded in full and
audited again before the transaction fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from python_ops.jobs.publish.fingerprint import ColumnKind, Dialect, Field, Fingerprint
from python_ops.jobs.publish.staged import StagedRows, audit, open_staged, unequal_parts, unknown_parts
from python_ops.jobs.publish.target import Loaded, Served, StagedTable, Version
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.secrets import Secret, Secrets
from python_ops.lake.secrets.forms import checked
from python_ops.lake.sql import literal

CONNECT_SECONDS, STATEMENT_SECONDS, LOCK_SECONDS = 10, 1800, 30

_LEDGER = "publish_ledger"
CHANGED = "publish_changed"
HASH = (Field("h", "string"),)
_FETCH = 10_000

_LEDGER_COLUMNS = (
    Field("table_name", "string"), Field("delta_table_id", "string"), Field("delta_version", "bigint"),
    Field("row_count", "bigint"), Field("published_at", "timestamp"), Field("environment", "string"),
    Field("shape", "string"),
)  # fmt: skip
_LEDGER_COMMENT = (
    "One row per published table: the Delta version that is served, since when (UTC), by which environment, and its "
    "columns as they were made, with what was done with personal ones. Written by lakeops publish run."
)


@dataclass(frozen=True)
class _Entry:
    """A row of the ledger; `shape` is what `_shape` wrote."""

    served: Served
    shape: Mapping[str, Any]


class ServerTarget(ABC):
    """A database server as a `Target`.

    Args:
        secrets: Where the credentials come from, under the target's name.
        ledger_schema: Schema of the ledger; each schema prefix has its own, so that developers do not collide.
        environment: Who publishes; tables of another environment are refused.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    dialect: ClassVar[Dialect]
    types: ClassVar[Mapping[str, str]]
    decimal: ClassVar[str]
    most_scale: ClassVar[int] = 38
    ddl_commits: ClassVar[bool] = False

    def __init__(self, secrets: Secrets, ledger_schema: str, environment: str) -> None:
        self.secrets, self.ledger_schema, self.environment = secrets, ledger_schema, environment

    # What differs between servers.

    @abstractmethod
    def connect(self, secret: Mapping[str, Any]) -> Any:
        """A DB-API connection with bounded waits, without autocommit."""

    @abstractmethod
    def is_refused(self, exc: Exception) -> bool:
        """Whether the server refused the credentials."""

    @abstractmethod
    def is_busy(self, exc: Exception) -> bool:
        """Whether another transaction holds what this one needs."""

    @abstractmethod
    def errors(self) -> tuple[type[Exception], ...]:
        """Exceptions of the driver, including a lost connection."""

    @abstractmethod
    def send(self, cursor: Any, schema: str, table: str, fields: Sequence[Field], rows: StagedRows, query: str) -> None:
        """Appends the rows of a local query to a table."""

    @abstractmethod
    def lock(self, cursor: Any) -> None:
        """Locks the ledger until the end of the transaction."""

    def told(self, exc: Exception) -> str:
        """The server's message, without values of rows."""
        return str(exc)

    def scratch_table(self, cursor: Any) -> str:
        """Makes an empty table of one column `h` for this session, in no schema; gives its schema."""
        cursor.execute(f"create temporary table {self.dialect.name(CHANGED)} ({self._column(HASH[0])})")
        return ""

    def place(self, table: StagedTable) -> str:
        """What identifies a served row until the end of the transaction: here its hash."""
        return self.dialect.row_hash(table.fields)

    def found(self, table: StagedTable, places: str) -> str:
        """The condition that a row's place is among those of a query."""
        return f"{self.place(table)} in ({places})"

    def grantee(self, role: str) -> str:
        """Who gets a grant."""
        return self.dialect.name(role)

    def text(self, value: str) -> str:
        """A string literal of the server."""
        return literal(value)

    def fetch(self, cursor: Any, query: str, path: Path) -> None:
        """Writes a query's columns, which are plain texts, to a file with tabs between them."""
        cursor.execute(query)
        with path.open("w", encoding="ascii") as file:
            while rows := cursor.fetchmany(_FETCH):
                file.writelines("\t".join(row) + "\n" for row in rows)

    # The protocol.

    def served(self) -> dict[str, Served]:
        """The ledger; see `Target`.

        Raises:
            ConfigError: no credentials, or the ledger is another environment's.
            OpsError: the server cannot be reached or read.
        """
        with self._open() as connection:
            return {table: entry.served for table, entry in self._ledger(connection.cursor()).items()}

    def prepare(self) -> None:
        """Makes the ledger.

        Raises:
            OpsError: the server cannot be written.
        """
        with self._open() as connection:
            cursor = connection.cursor()
            if not self._columns(cursor, self.ledger_schema, _LEDGER):
                columns = ", ".join(self._column(field) for field in _LEDGER_COLUMNS)
                self._schema(cursor, self.ledger_schema)
                cursor.execute(f"create table if not exists {self._ledger_name} ({columns})")
                cursor.execute(f"comment on table {self._ledger_name} is {self.text(_LEDGER_COMMENT)}")
            connection.commit()

    def replace(self, tables: Sequence[StagedTable], ledger: Mapping[str, Served]) -> dict[str, Loaded]:
        """One transaction; see `Target`.

        Raises:
            BusyError: another run is publishing, or has published meanwhile.
            ConfigError: a column has a type that is not published here.
            OpsError: an audit failed or the connection was lost. What was served is still served, or all is new.
        """
        for table in tables:
            for field in table.fields:
                self.type_of(field)
        with self._open() as connection:
            cursor = connection.cursor()
            scratch = self.scratch_table(cursor)
            connection.commit()
            if self.ddl_commits:  # the shapes first, or they would commit rows that are not audited
                entries = self._same_ledger(cursor, ledger)
                kept = {table.model.table: self._shape(cursor, table, entries) for table in tables}
                connection.commit()
            self.lock(cursor)
            entries = self._same_ledger(cursor, ledger)
            loaded = {}
            for table in tables:
                started = time.monotonic()
                keeps = kept[table.model.table] if self.ddl_commits else self._shape(cursor, table, entries)
                sent = self._load(cursor, table, scratch, keeps)
                self._enter(cursor, table)
                loaded[table.model.table] = Loaded(time.monotonic() - started, sent)
            connection.commit()
        return loaded

    def type_of(self, field: Field) -> str:
        """The server's type of a column.

        Raises:
            ConfigError: it has none.
        """
        if field.kind is ColumnKind.DECIMAL and field.scale <= self.most_scale:
            return self.decimal + field.type.removeprefix("decimal")
        made = self.types.get("string" if field.kind is ColumnKind.TEXT else field.type)
        if made is None:
            raise ConfigError(
                f"Column {field.name} is of type {field.type}, which is not published to {self.label}. "
                f"Cast it in the model, or take {self.name} out of publish_to."
            )
        return made

    def _load(self, cursor: Any, table: StagedTable, scratch: str, keeps: bool) -> int:
        """Makes a table equal to its staged rows. Returns how many rows were sent."""
        model, name = table.model, self._name(table)
        exact = all(field.kind is not ColumnKind.FLOAT for field in table.fields)
        with open_staged(table) as rows:
            if keeps and exact:
                served = rows.scratch / "served.csv"
                self.fetch(
                    cursor,
                    f"select {self.place(table)} as place, {self.dialect.row_hash(table.fields)} as h from {name}",
                    served,
                )
                changes = rows.compare(served)
                if changes.unequal == 0:
                    audit(table, self.fingerprint(cursor, table))
                    return 0
                if changes.sent <= changes.rows // 2:
                    if changes.gone:
                        self._delete(cursor, table, scratch, rows)
                    if changes.sent:
                        self.send(cursor, model.schema, model.alias, table.fields, rows, rows.changed)
                    if unequal_parts(table, self.fingerprint(cursor, table)) is None:
                        return changes.sent
            cursor.execute(f"delete from {name}")
            self.send(cursor, model.schema, model.alias, table.fields, rows, rows.every)
            audit(table, self.fingerprint(cursor, table))
            return table.rows

    def _delete(self, cursor: Any, table: StagedTable, scratch: str, rows: StagedRows) -> None:
        """Deletes served rows that are not staged, or staged fewer times."""
        changed = self.dialect.relation(scratch, CHANGED) if scratch else self.dialect.name(CHANGED)
        cursor.execute(f"delete from {changed}")
        self.send(cursor, scratch, CHANGED, HASH, rows, rows.gone)
        places = f"select {self.dialect.name('h')} from {changed}"
        cursor.execute(f"delete from {self._name(table)} where {self.found(table, places)}")

    def fingerprint(self, cursor: Any, table: StagedTable) -> Fingerprint:
        """The fingerprint of the served table, without what Spark has no value for."""
        unknown = unknown_parts(table)
        parts = {part: sql for part, sql in self.dialect.aggregates(table.fields).items() if part not in unknown}
        cursor.execute(f"select {', '.join(parts.values())} from {self._name(table)}")
        return dict(zip(parts, cursor.fetchone(), strict=True))

    def _shape(self, cursor: Any, table: StagedTable, entries: Mapping[str, _Entry]) -> bool:
        """Makes the table, or its columns those of the model, and describes it. Returns whether its rows may be kept.

        Raises:
            OpsError: there is a table of this name that publishing did not make.
        """
        model, name = table.model, self._name(table)
        wanted = {field.name.lower(): field for field in table.fields}
        present = self._columns(cursor, model.schema, model.alias)
        entry = entries.get(model.table)
        if present and entry is None:
            raise OpsError(
                f"{self.label} already has a table {model.table} that `lakeops publish` did not make. "
                "Nothing was published. Drop or rename it, then run `lakeops publish run` again."
            )
        made: Mapping[str, str] = entry.shape.get("columns", {}) if entry else {}
        described = _described(table)
        keeps = False
        if not present:
            self._schema(cursor, model.schema)
            columns = ", ".join(self._column(field) for field in table.fields)
            cursor.execute(f"create table {name} ({columns})")
        else:
            keeps = self._alter(cursor, name, present, wanted, made)
        if not keeps or entry is None or entry.shape.get("described") != described:
            self._describe(cursor, table)
        return keeps

    def _alter(
        self, cursor: Any, name: str, present: Sequence[str], wanted: Mapping[str, Field], made: Mapping[str, str]
    ) -> bool:
        """Gives a table the model's columns, adding before dropping: a table needs one. Returns if they were."""
        added = [column for column in wanted if column not in present]
        retyped = [
            column for column in wanted if column in present and self.type_of(wanted[column]) != made.get(column)
        ]
        dropped = [column for column in present if column not in wanted]
        for column in (*added, *retyped):
            if column in retyped:
                cursor.execute(f"alter table {name} drop column {self.dialect.name(column)}")
            cursor.execute(f"alter table {name} add column {self._column(wanted[column])}")
        for column in dropped:
            cursor.execute(f"alter table {name} drop column {self.dialect.name(column)}")
        return not (added or retyped or dropped)

    def _describe(self, cursor: Any, table: StagedTable) -> None:
        """Comments and grants."""
        model, name = table.model, self._name(table)
        cursor.execute(f"comment on table {name} is {self.text(model.description)}")
        for column, text in table.comments:
            cursor.execute(f"comment on column {name}.{self.dialect.name(column.lower())} is {self.text(text)}")
        for role in grants(model.meta.get("publish_grants", []), model.path):
            cursor.execute(f"grant usage on schema {self.dialect.name(model.schema)} to {self.grantee(role)}")
            cursor.execute(f"grant select on table {name} to {self.grantee(role)}")

    def _same_ledger(self, cursor: Any, ledger: Mapping[str, Served]) -> dict[str, _Entry]:
        """The ledger, if it is the one that the plan was made from.

        Raises:
            BusyError: it is another.
        """
        entries = self._ledger(cursor)
        if {table: entry.served for table, entry in entries.items()} != dict(ledger):
            raise BusyError(
                f"Another run published to {self.label} meanwhile, so nothing was published by this one. "
                "Run `lakeops publish run` again."
            )
        return entries

    def _ledger(self, cursor: Any) -> dict[str, _Entry]:
        if not self._columns(cursor, self.ledger_schema, _LEDGER):
            return {}
        cursor.execute(f"select {_names(self.dialect, _LEDGER_COLUMNS)} from {self._ledger_name} order by 1")
        found = {}
        for table, table_id, number, count, at, environment, shape in cursor.fetchall():
            if environment != self.environment:
                raise ConfigError(
                    f"The tables of {self.ledger_schema}.{_LEDGER} in {self.label} are published by environment "
                    f"{environment!r}, not by {self.environment!r}. Nothing was touched. Give this environment a "
                    "database of its own, or another LAKEHOUSE_SCHEMA_PREFIX."
                )
            version, made = Version(table_id, int(number)), json.loads(shape)
            found[table] = _Entry(
                Served(version, int(count), f"{at.isoformat(timespec='seconds')}Z", made.get("personal", "")), made
            )
        return found

    def _enter(self, cursor: Any, table: StagedTable) -> None:
        """Writes a table's row of the ledger."""
        model = table.model
        shape = {
            "columns": {field.name.lower(): self.type_of(field) for field in table.fields},
            "described": _described(table),
            "personal": table.personal,
        }
        cursor.execute(f"delete from {self._ledger_name} where {self.dialect.name('table_name')} = %s", [model.table])
        names = _names(self.dialect, _LEDGER_COLUMNS)
        cursor.execute(
            f"insert into {self._ledger_name} ({names}) values (%s, %s, %s, %s, {self.now()}, %s, %s)",
            [
                model.table, table.version.table_id, table.version.number, table.rows, self.environment,
                json.dumps(shape),
            ],
        )  # fmt: skip

    def now(self) -> str:
        """The present, UTC, as a timestamp without a zone."""
        return f"cast('{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}' as timestamp)"

    def _columns(self, cursor: Any, schema: str, table: str) -> list[str]:
        """Names of a table's columns in lower case, in their order; empty if there is no table."""
        case = self.dialect.folded
        cursor.execute(
            "select column_name from information_schema.columns "
            f"where table_schema = {self.text(case(schema))} and table_name = {self.text(case(table))} "
            "order by ordinal_position"
        )
        return [row[0].lower() for row in cursor.fetchall()]

    def _schema(self, cursor: Any, schema: str) -> None:
        """Makes a schema if it is missing. (IF NOT EXISTS alone would need the right to create one.)"""
        cursor.execute(
            f"select 1 from information_schema.schemata where schema_name = {self.text(self.dialect.folded(schema))}"
        )
        if not cursor.fetchall():
            cursor.execute(f"create schema if not exists {self.dialect.name(schema)}")

    def _column(self, field: Field) -> str:
        return f"{self.dialect.name(field.name.lower())} {self.type_of(field)}"

    def _name(self, table: StagedTable) -> str:
        return self.dialect.relation(table.model.schema, table.model.alias)

    @property
    def _ledger_name(self) -> str:
        return self.dialect.relation(self.ledger_schema, _LEDGER)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        """A connection. Leaving it without a commit rolls back."""
        errors = self.errors()
        try:
            connection = self.secrets.with_rotation(self.name, self._connect, self.is_refused)
        except errors as exc:
            raise self._failure(exc, "connecting") from exc
        try:
            yield connection
        except errors as exc:
            raise self._failure(exc, "publishing") from exc
        finally:
            with contextlib.suppress(OSError, *errors):  # it is gone already
                connection.close()

    def _connect(self, secret: Secret) -> Any:
        return self.connect(checked(secret, f"publish.{self.name}"))

    def busy(self) -> BusyError:
        """The error after a wait that was too long."""
        return BusyError(
            f"Another transaction holds what publishing to {self.label} needs. Nothing was published by this run. "
            "Run `lakeops publish run` again when it has ended."
        )

    def _failure(self, exc: Exception, doing: str) -> OpsError:
        if self.is_refused(exc):
            return ConfigError(
                f"{self.label} refused the credentials of secret {self.name}, also the previous version where one is "
                "kept. Correct the secret (`lakeops secrets check` says where it comes from), then run again."
            )
        if self.is_busy(exc):
            return self.busy()
        told = " ".join(self.told(exc).split())[:300]
        if doing == "connecting":
            return OpsError(
                f"{self.label} cannot be reached: {told} Look at the address in secret {self.name} and the network, "
                "then run `lakeops publish run` again."
            )
        return OpsError(
            f"Publishing to {self.label} failed: {told} Readers see what was served before, or the whole new set if "
            "the commit had arrived. Run `lakeops publish run` again: what is served already is not sent twice."
        )


def grants(given: Any, path: str) -> list[str]:
    """Roles of `publish_grants`.

    Raises:
        ConfigError: it is not a list of names.
    """
    if not isinstance(given, list) or not all(isinstance(role, str) and role for role in given):
        raise ConfigError(f"{path}: meta publish_grants must be a list of roles, such as [analyst].")
    return given


def without_values(message: str, code: str | None) -> str:
    """A server's message; that of a data exception, class 22, quotes what was in a row."""
    return re.sub(r'".*"', "…", message, flags=re.DOTALL) if (code or "").startswith("22") else message


def _described(table: StagedTable) -> str:
    """A hash of what `_describe` writes."""
    model = table.model
    texts = [model.description, *(f"{c.name}={c.description}" for c in model.columns)]
    return hashlib.sha256(json.dumps([texts, model.meta.get("publish_grants", [])]).encode()).hexdigest()[:16]


def _names(dialect: Dialect, fields: Sequence[Field]) -> str:
    return ", ".join(dialect.name(field.name) for field in fields)
