"""What a warehouse gets of personal columns: their values, a keyed hash of them, or nothing.

The hash is HMAC-SHA256 (RFC 2104) of the value's text in UTF-8, as 64 hexadecimal digits: the same for the same value
in every table and warehouse, so that keys still join, and NULL for NULL. It is made where the staged files are read,
in this process: the key is in no statement's text, and no server ever sees it or a clear value.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from functools import cached_property

from python_ops.jobs.publish.fingerprint import DUCKDB, ColumnKind, Field
from python_ops.jobs.publish.staged import audit, fingerprint, open_staged, unknown_parts
from python_ops.jobs.publish.target import StagedTable
from python_ops.lake.artifacts import Model, ModelColumn
from python_ops.lake.errors import ConfigError
from python_ops.lake.keyed_hash import pads
from python_ops.lake.lake import Lake
from python_ops.lake.marks import personal_columns
from python_ops.lake.secrets.forms import faults
from python_ops.lake.sql import literal

KEY = "publish_pii_key"
"""The secret that hashes are keyed with."""


class Treatment:
    """How one warehouse gets personal columns: the setting `publish_pii`.

    Args:
        warehouse: Its name in `publish`.
    """

    def __init__(self, lake: Lake, warehouse: str) -> None:
        self.lake, self.warehouse, self.policy = lake, warehouse, lake.settings.pii_policy(warehouse)

    @cached_property
    def key(self) -> bytes:
        """The key, read once: a rotation in the middle of a run does not mix two.

        Raises:
            ConfigError: there is none, or it is too short.
        """
        try:
            secret = self.lake.secrets.get(KEY)
        except ConfigError as exc:
            raise ConfigError(
                f"{exc} It is the key of the hashes that {self.warehouse} gets instead of personal values. Nothing was "
                "published there. docs/guides/publishing.md#personal-columns says how to make one."
            ) from exc
        if found := faults(secret, "key"):
            raise ConfigError(" ".join(found))
        return secret.reveal().strip().encode()

    def note(self, model: Model) -> str:
        """What the ledger says of a table's personal columns; empty where they are served as they are, or none are.

        It names the columns and, by a fingerprint, the key: whatever of them changes, the table is published again.

        Raises:
            ConfigError: a hash is needed, and there is no key.
        """
        columns = ", ".join(personal_columns(model))
        if not columns or self.policy == "clear":
            return ""
        if self.policy == "drop":
            return f"drop: {columns}"
        return f"hash by key {hmac.digest(self.key, b'lakeops publish_pii_key', 'sha256').hex()[:12]}: {columns}"

    def applied(self, table: StagedTable) -> StagedTable:
        """A staged table as the warehouse gets it; its clear rows are first compared with the lake's.

        Raises:
            ConfigError: no column would be left.
            OpsError: the staged files are not what Spark read, cannot be read, or the disk is full.
        """
        if not (note := self.note(table.model)):
            return table
        personal = {name.lower() for name in personal_columns(table.model)}
        kept = [f for f in table.fields if self.policy != "drop" or f.name.lower() not in personal]
        if not kept:
            raise ConfigError(
                f"{table.model.table} has personal columns alone, and {self.warehouse} gets none (publish_pii: drop). "
                f"Take {self.warehouse} out of its publish_to."
            )
        columns = ", ".join(_hashed(f) if f.name.lower() in personal else DUCKDB.name(f.name) for f in kept)
        treated = replace(
            table,
            model=replace(table.model, columns=tuple(_described(column, personal) for column in table.model.columns)),
            fields=tuple(Field(f.name, "string") if f.name.lower() in personal else f for f in kept),
            folder=table.folder.with_name(f"{table.folder.name}.{self.warehouse}"),
            personal=note,
        )
        unknown = unknown_parts(table)
        with open_staged(table) as rows:
            audit(table, fingerprint(rows.connection, f"({rows.every})", table.fields, unknown))
            padded = zip(("inner_pad", "outer_pad"), pads(self.key), strict=True) if self.policy == "hash" else ()
            for name, pad in padded:
                rows.connection.execute(f"set variable {name} = ?::blob", [pad])
            treated.folder.mkdir()
            file = literal(str(treated.folder / "part.parquet"))
            rows.connection.execute(f"copy (select {columns} from ({rows.every})) to {file} (format parquet)")
        with open_staged(treated) as rows:
            parts = fingerprint(rows.connection, f"({rows.every})", treated.fields, unknown)
        return replace(treated, fingerprint={**parts, **dict.fromkeys(unknown)})


def _hashed(field: Field) -> str:
    """HMAC-SHA256 of a column, as `keyed_hash` has it."""
    column = DUCKDB.name(field.name)
    text = column if field.kind is ColumnKind.BINARY else f"encode({column}::varchar)"
    return f"sha256(getvariable('outer_pad') || unhex(sha256(getvariable('inner_pad') || {text}))) as {column}"


def _described(column: ModelColumn, personal: set[str]) -> ModelColumn:
    """A column's description, which says that its values are hashed."""
    if column.name.lower() not in personal:
        return column
    return replace(column, description=f"{column.description} Keyed hash of the value (HMAC-SHA256).".strip())
