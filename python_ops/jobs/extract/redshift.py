"""Redshift by redshift_connector, whose cursor would hold a whole result: one of the server is declared and fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redshift_connector

from python_ops.jobs.extract.database import DatabaseReader
from python_ops.jobs.extract.postgres import TELLING
from python_ops.lake.errors import first_line
from python_ops.lake.secrets import Secret
from python_ops.lake.secrets.refusals import by_redshift, redshift_answer


class RedshiftReader(DatabaseReader):
    """Reads Redshift. The secret has host, port, dbname, user, password; `"ssl": false` for a server without TLS."""

    system = "Redshift"
    clock = "select getdate()"

    def connect(self, secret: Secret) -> None:
        given = secret.json()
        limit = self.source.timeout_seconds
        self.connection = redshift_connector.connect(
            host=given["host"],
            port=int(given.get("port", 5439)),
            database=given["dbname"],
            user=given["user"],
            password=given["password"],
            ssl=bool(given.get("ssl", True)),
            timeout=limit,
            application_name="lakeops extract",
        )
        for line in ("set timezone to 'UTC'", f"set statement_timeout to {limit * 1000}"):
            self._execute(line)

    def one(self, sql: str) -> Sequence[Any]:
        rows = self._execute(sql)
        return rows[0]

    def stream(self, sql: str) -> Iterator[Sequence[Sequence[Any]]]:
        self._execute(f"declare extract_rows cursor for {sql}")
        while page := self._execute(f"fetch forward {self.source.page_rows} from extract_rows"):
            yield page
        self._execute("close extract_rows")

    def _execute(self, sql: str) -> Sequence[Sequence[Any]]:
        cursor = self.connection.cursor()
        try:
            cursor.execute(sql)
            return tuple(cursor.fetchall()) if cursor.description else ()
        finally:
            cursor.close()

    def close(self) -> None:
        self.connection.close()

    @classmethod
    def is_refused(cls, error: Exception) -> bool:
        return by_redshift(error)

    @classmethod
    def is_lost(cls, error: Exception) -> bool:
        """An error without a server's code is one of the network."""
        code = _code(error)
        return code[:2] in ("08", "57") and code != "57014" if code else True

    @classmethod
    def told(cls, error: Exception) -> str:
        code = _code(error)
        name = f"{type(error).__name__} {code}".strip()
        if not code:
            return f"{name}: {first_line(error).rstrip('.')}"
        return f"{name}: {redshift_answer(error).get('M', '')}" if code[:2] in TELLING else name


def _code(error: Exception) -> str:
    return str(redshift_answer(error).get("C", ""))
