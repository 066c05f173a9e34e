"""Publishing to Amazon Redshift: many rows by COPY from S3 where the secret names a place, few by INSERT."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import redshift_connector
from redshift_connector.error import Error

from python_ops.jobs.publish.fingerprint import DUCKDB, REDSHIFT, ColumnKind, Field
from python_ops.jobs.publish.server_target import (
    CONNECT_SECONDS,
    LOCK_SECONDS,
    STATEMENT_SECONDS,
    ServerTarget,
    without_values,
)
from python_ops.jobs.publish.staged import StagedRows
from python_ops.lake.secrets.refusals import by_redshift, redshift_answer
from python_ops.lake.sql import literal
from python_ops.lake.storage import LocalFolder, folder_at

_PARAMETERS = 30_000  # the protocol counts them in 16 bits
_ROWS = 1_000
_CHARACTERS = 4_000_000  # a statement is at most 16 MB
_FEW = 5_000  # rows that INSERT sends sooner than S3 is asked twice


class RedshiftTarget(ServerTarget):
    """A Redshift database; see `ServerTarget`. It has no MERGE of whole rows, and COPY reads only S3."""

    name = "redshift"
    label = "Redshift"
    dialect = REDSHIFT
    types: ClassVar[Mapping[str, str]] = {
        "tinyint": "smallint", "smallint": "smallint", "int": "integer", "bigint": "bigint", "float": "real",
        "double": "double precision", "string": "varchar(65535)", "boolean": "boolean", "date": "date",
        "timestamp": "timestamp", "timestamp_ntz": "timestamp",
    }  # fmt: skip
    decimal = "decimal"
    most_scale = 37
    _staging: str = ""
    _iam_role: str = ""

    def connect(self, secret: Mapping[str, Any]) -> Any:
        self._staging, self._iam_role = secret.get("staging", ""), secret.get("iam_role", "")
        host, port = secret["host"], int(secret.get("port", 5439))
        socket.create_connection(
            (host, port), timeout=CONNECT_SECONDS
        ).close()  # the driver's timeout is for all it does
        connection = redshift_connector.connect(
            host=host,
            port=port,
            database=secret["dbname"],
            user=secret["user"],
            password=secret["password"],
            ssl=secret.get("ssl", True),
            application_name="lakeops publish",
            timeout=STATEMENT_SECONDS + 60,
        )
        connection.cursor().execute(f"set statement_timeout to {STATEMENT_SECONDS * 1000}")
        connection.commit()
        return connection

    def is_refused(self, exc: Exception) -> bool:
        return by_redshift(exc)

    def is_busy(self, exc: Exception) -> bool:
        """Redshift has its own number for a conflict of serializable transactions."""
        busy = ("55P03", "40P01", "40001")
        return redshift_answer(exc).get("C") in busy or "Serializable isolation violation" in str(exc)

    def told(self, exc: Exception) -> str:
        said = redshift_answer(exc)
        return without_values(said.get("M", ""), said.get("C")) or str(exc)

    def errors(self) -> tuple[type[Exception], ...]:
        return (Error, OSError)

    def lock(self, cursor: Any) -> None:
        """Locks the ledger, for readers too: Redshift has no other lock, and no NOWAIT."""
        cursor.execute(f"set statement_timeout to {LOCK_SECONDS * 1000}")
        try:
            cursor.execute(f"lock table {self._ledger_name}")
        except Error as exc:
            if "statement timeout" in str(exc):
                raise self.busy() from exc
            raise
        cursor.execute(f"set statement_timeout to {STATEMENT_SECONDS * 1000}")

    def text(self, value: str) -> str:
        """A backslash becomes a slash, because it may begin an escape."""
        return literal(value.replace("\\", "/"))

    def grantee(self, role: str) -> str:
        """A group: roles in the meta are groups in Redshift."""
        return f"group {self.dialect.name(role)}"

    def send(self, cursor: Any, schema: str, table: str, fields: Sequence[Field], rows: StagedRows, query: str) -> None:
        target = self.dialect.relation(schema, table) if schema else self.dialect.name(table)
        (count,) = rows.connection.execute(f"select count(*) from ({query})").fetchone() or (0,)
        if self._staging and schema and count > _FEW:
            by_name = {field.name.lower(): field for field in fields}
            ordered = [_stored(by_name[column]) for column in self._columns(cursor, schema, table)]
            self._copy(cursor, target, ordered, rows, query)
        else:
            self._insert(cursor, target, fields, rows, query)

    def _copy(self, cursor: Any, target: str, ordered: Sequence[str], rows: StagedRows, query: str) -> None:
        """Puts a parquet file on S3 for the time of the statement.

        Redshift takes its columns by position ("COPY from columnar data formats" in its guide for developers).
        """
        name = f"{uuid.uuid4().hex}.parquet"
        file, columns = literal(str(rows.scratch / name)), ", ".join(ordered)
        rows.connection.execute(f"copy (select {columns} from ({query})) to {file} (format parquet)")
        staging = folder_at(self._staging)
        place, role = literal(f"{staging.url}/{name}"), literal(self._iam_role)
        try:
            staging.take(LocalFolder(rows.scratch), name, name)
            (rows.scratch / name).unlink()
            cursor.execute(f"copy {target} from {place} iam_role {role} format as parquet")
        finally:
            staging.remove(name)

    def _insert(self, cursor: Any, target: str, fields: Sequence[Field], rows: StagedRows, query: str) -> None:
        """Sends values as texts; the server casts them."""
        names = ", ".join(self.dialect.name(field.name) for field in fields)
        place = "(" + ", ".join(self._place(field) for field in fields) + ")"
        result = rows.connection.execute(f"select {', '.join(map(_as_text, fields))} from ({query})")
        most = min(_ROWS, _PARAMETERS // len(fields))
        while batch := result.fetchmany(most):
            for part in _parts(batch):
                places = ", ".join([place] * len(part))
                values = [value for row in part for value in row]
                cursor.execute(f"insert into {target} ({names}) values {places}", values)

    def _place(self, field: Field) -> str:
        if field.kind is ColumnKind.BOOLEAN:  # there is no cast from text
            return "cast(%s as varchar) = 'true'"
        return f"cast(%s as {self.type_of(field)})"


def _stored(field: Field) -> str:
    """A column of a file for COPY. Redshift has no type of one byte."""
    column = DUCKDB.name(field.name)
    return f"{column}::smallint as {column}" if field.type == "tinyint" else column


def _as_text(field: Field) -> str:
    column = DUCKDB.name(field.name)
    if field.kind is ColumnKind.FLOAT:
        infinite = f"case when {column} > 0 then 'Infinity' else '-Infinity' end"
        return f"case when isnan({column}) then 'NaN' when isinf({column}) then {infinite} else {column}::varchar end"
    return f"{column}::varchar"


def _parts(batch: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """A batch in parts, each short enough for one statement."""
    parts: list[list[tuple[Any, ...]]] = [[]]
    characters = 0
    for row in batch:
        size = sum(len(value) for value in row if value is not None)
        if parts[-1] and characters + size > _CHARACTERS:
            parts.append([])
            characters = 0
        parts[-1].append(row)
        characters += size
    return parts
