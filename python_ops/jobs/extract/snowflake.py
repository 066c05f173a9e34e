"""Snowflake by its connector, which downloads a result in pieces while it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import snowflake.connector
from snowflake.connector import errors

from python_ops.jobs.extract.database import DatabaseReader
from python_ops.lake.errors import first_line
from python_ops.lake.secrets import Secret
from python_ops.lake.secrets.forms import checked, snowflake_login
from python_ops.lake.secrets.refusals import SNOWFLAKE_NOT_CONNECTED, by_snowflake

_LOGIN_SECONDS = 15
_PASSING = (
    errors.OperationalError, errors.InterfaceError, errors.ServiceUnavailableError, errors.BadGatewayError,
    errors.GatewayTimeoutError, errors.InternalServerError, errors.RequestTimeoutError, errors.TooManyRequests,
    errors.OtherHTTPRetryableError, errors.RequestExceedMaxRetryError, OSError,
)  # fmt: skip


class SnowflakeReader(DatabaseReader):
    """Reads Snowflake. The secret has account, user, password or private_key (PEM), warehouse, role, database."""

    system = "Snowflake"
    clock = "select current_timestamp()"

    def connect(self, secret: Secret) -> None:
        limit = self.source.timeout_seconds
        self.connection = snowflake.connector.connect(
            **snowflake_login(checked(secret, "extract.snowflake")),
            application="lakeops_extract",
            login_timeout=_LOGIN_SECONDS,
            network_timeout=limit,
            session_parameters={
                "TIMEZONE": "UTC",
                "STATEMENT_TIMEOUT_IN_SECONDS": limit,
                "QUERY_TAG": f"lakeops extract {self.source.name}",
            },
        )

    def quoted(self, name: str) -> str:
        """The name in capitals, as Snowflake keeps names that were not quoted."""
        return f'"{name.upper()}"' if name == name.lower() else f'"{name}"'

    def one(self, sql: str) -> Sequence[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
        assert isinstance(row, tuple)
        return row

    def stream(self, sql: str) -> Iterator[Sequence[Sequence[Any]]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            while page := cursor.fetchmany(self.source.page_rows):
                yield [tuple(row) for row in page]

    def close(self) -> None:
        self.connection.close()

    @classmethod
    def is_refused(cls, error: Exception) -> bool:
        return by_snowflake(error)

    @classmethod
    def is_lost(cls, error: Exception) -> bool:
        return isinstance(error, _PASSING) and not cls.is_refused(error)

    @classmethod
    def told(cls, error: Exception) -> str:
        code = getattr(error, "errno", None)
        name = f"{type(error).__name__} {code or ''}".strip()
        state = str(getattr(error, "sqlstate", None) or "")
        is_connection = isinstance(error, _PASSING) or code == SNOWFLAKE_NOT_CONNECTED
        return f"{name}: {first_line(error).rstrip('.')}" if is_connection or state[:2] in ("02", "08", "42") else name
