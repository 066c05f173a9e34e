"""PostgreSQL by psycopg 3: a server-side cursor in a read-only transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from python_ops.jobs.extract.database import DatabaseReader
from python_ops.lake.errors import first_line
from python_ops.lake.secrets import Secret
from python_ops.lake.secrets.refusals import by_postgres

_CONNECT_SECONDS = 10
# Classes of SQLSTATE whose texts name objects and settings, never values: connection, authorization, catalog and schema
# names, syntax and undefined objects, resources, shutdown and time limits.
TELLING = ("08", "28", "3D", "3F", "42", "53", "57")


class PostgresReader(DatabaseReader):
    """Reads PostgreSQL. The secret has host, port, dbname, user, password, and optionally sslmode."""

    system = "PostgreSQL"
    clock = "select clock_timestamp()"

    def connect(self, secret: Secret) -> None:
        given = secret.json()
        options = {
            name: given[name] for name in ("host", "port", "dbname", "user", "password", "sslmode") if name in given
        }
        limit = self.source.timeout_seconds
        self.connection = psycopg.connect(
            **options,
            application_name="lakeops extract",
            connect_timeout=_CONNECT_SECONDS,
            keepalives_idle=30,
            tcp_user_timeout=limit * 1000,
            options=f"-c timezone=UTC -c default_transaction_read_only=on -c statement_timeout={limit * 1000}",
        )

    def one(self, sql: str) -> Sequence[Any]:
        row: Sequence[Any] | None = self.connection.execute(sql.encode()).fetchone()
        assert row is not None
        return row

    def stream(self, sql: str) -> Iterator[Sequence[Sequence[Any]]]:
        with self.connection.cursor(name="extract") as cursor:
            cursor.execute(sql.encode())
            while page := cursor.fetchmany(self.source.page_rows):
                yield page

    def close(self) -> None:
        self.connection.close()

    @classmethod
    def is_refused(cls, error: Exception) -> bool:
        return by_postgres(error)

    @classmethod
    def is_lost(cls, error: Exception) -> bool:
        """A time limit is not counted as a loss, because the next try would reach it again."""
        if isinstance(error, psycopg.errors.QueryCanceled) or cls.is_refused(error):
            return False
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, OSError))

    @classmethod
    def told(cls, error: Exception) -> str:
        code = getattr(error, "sqlstate", None)
        name = f"{type(error).__name__} {code or ''}".strip()
        is_connection = code is None and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, OSError))
        return f"{name}: {first_line(error).rstrip('.')}" if is_connection or (code or "")[:2] in TELLING else name
