"""Publishing to PostgreSQL, by COPY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import errors

from python_ops.jobs.publish.fingerprint import DUCKDB, POSTGRES, ColumnKind, Field
from python_ops.jobs.publish.server_target import (
    CONNECT_SECONDS,
    LOCK_SECONDS,
    STATEMENT_SECONDS,
    ServerTarget,
    without_values,
)
from python_ops.jobs.publish.staged import StagedRows
from python_ops.jobs.publish.target import StagedTable
from python_ops.lake.secrets.refusals import by_postgres
from python_ops.lake.sql import literal

_BLOCK = 1 << 20


class PostgresTarget(ServerTarget):
    """A PostgreSQL database, 12 or newer; see `ServerTarget`."""

    name = "postgres"
    label = "PostgreSQL"
    dialect = POSTGRES
    types: ClassVar[Mapping[str, str]] = {
        "tinyint": "smallint", "smallint": "smallint", "int": "integer", "bigint": "bigint", "float": "real",
        "double": "double precision", "string": "text", "boolean": "boolean", "binary": "bytea", "date": "date",
        "timestamp": "timestamp", "timestamp_ntz": "timestamp",
    }  # fmt: skip
    decimal = "numeric"

    def connect(self, secret: Mapping[str, Any]) -> psycopg.Connection:
        return psycopg.connect(
            host=secret["host"],
            port=secret.get("port", 5432),
            dbname=secret["dbname"],
            user=secret["user"],
            password=secret["password"],
            sslmode=secret.get("sslmode", "require"),
            application_name="lakeops publish",
            connect_timeout=CONNECT_SECONDS,
            tcp_user_timeout=60_000,
            keepalives_idle=30,
            options=f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s "
            "-c jit=off -c timezone=UTC -c datestyle=ISO -c bytea_output=hex",
        )

    def is_refused(self, exc: Exception) -> bool:
        return by_postgres(exc)

    def is_busy(self, exc: Exception) -> bool:
        return isinstance(exc, errors.LockNotAvailable | errors.DeadlockDetected | errors.SerializationFailure)

    def errors(self) -> tuple[type[Exception], ...]:
        return (psycopg.Error,)

    def told(self, exc: Exception) -> str:
        """Leaves out what may quote rows: details, context, and the message of a data exception (class 22)."""
        if not isinstance(exc, psycopg.Error) or exc.diag.message_primary is None:
            return str(exc)
        return without_values(exc.diag.message_primary, exc.sqlstate)

    def lock(self, cursor: Any) -> None:
        """Locks the ledger for writers; readers go on."""
        cursor.execute(f"lock table {self._ledger_name} in share row exclusive mode nowait")

    def place(self, table: StagedTable) -> str:
        """The address of a row version (ctid), so that rows need not be hashed again to find them."""
        return "ctid"

    def found(self, table: StagedTable, places: str) -> str:
        return f"ctid = any (array(select cast(h as tid) from ({places}) as places))"

    def send(self, cursor: Any, schema: str, table: str, fields: Sequence[Field], rows: StagedRows, query: str) -> None:
        """Sends rows as CSV, where an empty value is NULL and a quoted empty one is the empty text."""
        path = rows.scratch / "rows.csv"
        columns = ", ".join(_csv(DUCKDB.name(field.name), field) for field in fields)
        rows.connection.execute(
            f"copy (select {columns} from ({query})) to {literal(str(path))} "
            "(format csv, header false, force_quote *, nullstr '')"
        )
        names = ", ".join(self.dialect.name(field.name) for field in fields)
        target = self.dialect.relation(schema, table) if schema else self.dialect.name(table)
        with path.open("rb") as file, cursor.copy(f"copy {target} ({names}) from stdin (format csv)") as copy:
            while block := file.read(_BLOCK):
                copy.write(block)
        path.unlink()

    def fetch(self, cursor: Any, query: str, path: Path) -> None:
        with path.open("wb") as file, cursor.copy(f"copy ({query}) to stdout") as copy:
            for block in copy:
                file.write(block)


def _csv(column: str, field: Field) -> str:
    return f"'\\x' || hex({column})" if field.kind is ColumnKind.BINARY else column
