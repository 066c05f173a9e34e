"""Publishing to Snowflake, by PUT of parquet files and COPY INTO."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import snowflake.connector
from snowflake.connector import errors

from python_ops.jobs.publish.fingerprint import DUCKDB, SNOWFLAKE, Field
from python_ops.jobs.publish.server_target import (
    CHANGED,
    CONNECT_SECONDS,
    HASH,
    LOCK_SECONDS,
    STATEMENT_SECONDS,
    ServerTarget,
)
from python_ops.jobs.publish.staged import StagedRows
from python_ops.lake.secrets.forms import snowflake_login
from python_ops.lake.secrets.refusals import by_snowflake
from python_ops.lake.sql import literal

_STAGE = "publish_stage"
_LOCKED = frozenset({625, 605, 200001})


class SnowflakeTarget(ServerTarget):
    """A Snowflake database; see `ServerTarget`. CREATE and ALTER commit, so they come before the rows."""

    name = "snowflake"
    label = "Snowflake"
    dialect = SNOWFLAKE
    types: ClassVar[Mapping[str, str]] = {
        "tinyint": "number(3,0)", "smallint": "number(5,0)", "int": "number(10,0)", "bigint": "number(19,0)",
        "float": "float", "double": "float", "string": "varchar", "boolean": "boolean", "binary": "binary",
        "date": "date", "timestamp": "timestamp_ntz(6)", "timestamp_ntz": "timestamp_ntz(6)",
    }  # fmt: skip
    decimal = "number"
    most_scale = 37
    ddl_commits = True

    def connect(self, secret: Mapping[str, Any]) -> Any:
        return snowflake.connector.connect(
            **snowflake_login(secret),
            application="lakeops_publish",
            autocommit=False,
            login_timeout=CONNECT_SECONDS,
            network_timeout=STATEMENT_SECONDS,
            session_parameters={
                "TIMEZONE": "UTC",
                "STATEMENT_TIMEOUT_IN_SECONDS": STATEMENT_SECONDS,
                "LOCK_TIMEOUT": LOCK_SECONDS,
            },
        )

    def is_refused(self, exc: Exception) -> bool:
        return by_snowflake(exc)

    def is_busy(self, exc: Exception) -> bool:
        return isinstance(exc, errors.ProgrammingError) and exc.errno in _LOCKED

    def errors(self) -> tuple[type[Exception], ...]:
        return (errors.Error,)

    def told(self, exc: Exception) -> str:
        """Leaves out messages about values that do not fit, because they quote the values."""
        text = str(exc)
        return re.sub(r"'.*'", "…", text) if "value" in text else text

    def lock(self, cursor: Any) -> None:
        """Locks the ledger by an UPDATE, which holds it until the transaction ends."""
        environment = self.dialect.name("environment")
        cursor.execute(f"update {self._ledger_name} set {environment} = {environment}")

    def scratch_table(self, cursor: Any) -> str:
        """A permanent table: the lock of the ledger guards it as well."""
        changed = self.dialect.relation(self.ledger_schema, CHANGED)
        cursor.execute(f"create table if not exists {changed} ({self._column(HASH[0])})")
        cursor.execute(f"create temporary stage if not exists {self.dialect.relation(self.ledger_schema, _STAGE)}")
        return self.ledger_schema

    def text(self, value: str) -> str:
        """Backslashes are doubled, because one begins an escape."""
        return literal(value.replace("\\", "\\\\"))

    def now(self) -> str:
        return super().now().replace("as timestamp)", "as timestamp_ntz)")

    def grantee(self, role: str) -> str:
        return f"role {self.dialect.name(role)}"

    def send(self, cursor: Any, schema: str, table: str, fields: Sequence[Field], rows: StagedRows, query: str) -> None:
        """Each file gets a new name, because Snowflake loads a name once."""
        path = rows.scratch / f"{uuid.uuid4().hex}.parquet"
        columns = ", ".join(f"{DUCKDB.name(f.name)} as {self.dialect.name(f.name)}" for f in fields)
        rows.connection.execute(f"copy (select {columns} from ({query})) to {literal(str(path))} (format parquet)")
        place = f"@{self.dialect.relation(self.ledger_schema, _STAGE)}/{path.stem}/"
        cursor.execute(f"put {literal(path.as_uri())} {place} auto_compress = false")
        cursor.execute(
            f"copy into {self.dialect.relation(schema, table)} from {place} "
            "file_format = (type = parquet use_logical_type = true binary_as_text = false) "
            "match_by_column_name = case_insensitive"
        )
        path.unlink()
