"""Which columns a model's columns are made from, read from its compiled SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from python_ops.lake.artifacts import Manifest, Model
from python_ops.lake.contracts.metadata import METADATA
from python_ops.lake.errors import ConfigError, OpsError, first_line
from python_ops.lake.lake import Lake

Origin = tuple[str, str]
"""(schema.table, column)."""

_OF_EVENTS = ("_cdc_deleted", "_cdc_truncate")  # of a storage table, what models read beside the model's columns


class ColumnLineage:
    """The columns of every model and what each is made from.

    Args:
        lake: The environment; dbt writes a model's SQL to `compiled/` of its artifacts before the manifest has it.
        manifest: The project, compiled.
    """

    def __init__(self, lake: Lake, manifest: Manifest) -> None:
        self.manifest, self.artifacts, self.contracts = manifest, lake.artifacts, lake.contracts
        other = lake.schema_name("bronze")
        # As the manifest has them, whatever the prefix is now: the compiled SQL has the same names.
        self.by_source = {name: f"{manifest.source_schema.get(name, other)}.{name}" for name in lake.contracts.sources}
        self.by_table = {model.table: model for model in manifest.models.values()}
        self.by_storage = {model.stored_table: model for model in manifest.models.values() if model.is_cdc}
        self._done: dict[str, dict[str, tuple[Origin, ...]]] = {}

    @cached_property
    def source_columns(self) -> dict[str, list[str]]:
        """Columns of each bronze table."""
        return {
            table: [column.name for column in (*self.contracts.load(name).columns, *METADATA)]
            for name, table in self.by_source.items()
        }

    def of(self, model: Model) -> dict[str, tuple[Origin, ...]]:
        """A model's columns in order, each with the columns of other tables that it is made from.

        Raises:
            OpsError: the model is not compiled, or its SQL cannot be read.
        """
        if model.table not in self._done:
            self._done[model.table] = self._read(model)
        return self._done[model.table]

    def columns(self, table: str) -> list[str]:
        """Columns of a bronze table, a model or a CDC model's events; none where the table is not the project's."""
        if table in self.by_storage:
            return [*self.of(self.by_storage[table]), *_OF_EVENTS]
        if table in self.by_table:
            return list(self.of(self.by_table[table]))
        return self.source_columns.get(table, [])

    def upstream(self, table: str, column: str) -> dict[Origin, tuple[Origin, ...]]:
        """For a column and each column on the way back to bronze, the columns that it is made from."""
        found: dict[Origin, tuple[Origin, ...]] = {}
        waiting: list[Origin] = [(table, column)]
        while waiting:
            here = waiting.pop()
            if here not in found:
                model = self.by_table.get(here[0])
                found[here] = self.of(model).get(here[1], ()) if model else ()
                waiting.extend(found[here])
        return found

    def downstream(self, table: str, column: str) -> dict[Origin, tuple[Origin, ...]]:
        """Everything that is made from a column, up to reports."""
        made: dict[Origin, list[Origin]] = {}
        for model in self.manifest.models.values():
            for name, origins in self.of(model).items():
                for origin in origins:
                    made.setdefault(origin, []).append((model.table, name))
        found: dict[Origin, tuple[Origin, ...]] = {}
        waiting: list[Origin] = [(table, column)]
        while waiting:
            here = waiting.pop()
            if here not in found:
                found[here] = tuple(sorted(made.get(here, ())))
                waiting.extend(found[here])
        return found

    def find(self, name: str) -> tuple[str, str | None]:
        """The table and column that `NAME` or `NAME.COLUMN` means, the schema before it or not.

        Raises:
            ConfigError: there is none; the text says the nearest.
        """
        known = {model.name: model.table for model in self.manifest.models.values()} | self.by_source
        short = {table: base for base, table in known.items()}
        parts = name.split(".")
        if ".".join(parts[:2]) in short:
            parts = [short[".".join(parts[:2])], *parts[2:]]
        base, column = parts[0], ".".join(parts[1:])
        if base not in known:
            near = get_close_matches(base, known, 3)
            raise ConfigError(
                f"There is no model or source {base!r}. "
                + (f"The nearest: {', '.join(near)}." if near else "`dbt ls` lists them.")
            )
        if column and column not in (columns := self.columns(known[base])):
            near = get_close_matches(column, columns, 3) or columns
            raise ConfigError(f"{base} has no column {column!r}. The nearest: {', '.join(near)}.")
        return known[base], column or None

    def _read(self, model: Model) -> dict[str, tuple[Origin, ...]]:
        compiled = model.compiled or self._compiled_file(model)
        if not compiled:
            raise OpsError(f"{model.name} is not compiled: run `dbt compile` (or `dbt build`) first.")
        import sqlglot  # a third of a second, which only this needs
        from sqlglot import exp
        from sqlglot.errors import SqlglotError
        from sqlglot.lineage import lineage
        from sqlglot.optimizer.qualify import qualify
        from sqlglot.optimizer.scope import build_scope

        try:
            parsed = sqlglot.parse_one(compiled, dialect="spark")
            schema: dict[str, Any] = {}
            for table in parsed.find_all(exp.Table):
                name = f"{table.db}.{table.name}" if table.db else table.name
                columns = self.columns(name) if table.db else _touched_columns(model, table.name)
                if columns:
                    schema.setdefault(table.db, {})[table.name] = dict.fromkeys(columns, "string")
            qualified = qualify(parsed, schema=schema, dialect="spark", validate_qualify_columns=False)
            scope = build_scope(qualified)
            assert isinstance(qualified, exp.Query)
            found_of = lineage(
                None, qualified, schema=schema, dialect="spark", scope=scope, copy=False, trim_selects=False
            )
            found = {name: self._of_models(_origins(found_of[name])) for name in qualified.named_selects}
        except SqlglotError as exc:
            text = first_line(exc, 200)
            raise OpsError(f"The compiled SQL of {model.name} ({model.path}) cannot be read: {text}") from exc
        return _as_served(model, found)

    def _of_models(self, origins: Iterable[Origin]) -> tuple[Origin, ...]:
        """The same with columns of events as those of their model; what the engine adds to an event has no origin."""
        named = {
            (self.by_storage[table].table, column) if table in self.by_storage else (table, column)
            for table, column in origins
            if table not in self.by_storage or column not in _OF_EVENTS
        }
        return tuple(sorted(named))

    def _compiled_file(self, model: Model) -> str:
        path = self.artifacts / "compiled" / model.unique_id.split(".")[1] / model.path
        return path.read_text(encoding="utf-8") if path.exists() else ""


def _origins(node: object) -> tuple[Origin, ...]:
    from sqlglot import exp

    found: list[Origin] = []
    for leaf in node.walk():  # type: ignore[attr-defined]
        if not leaf.downstream and isinstance(leaf.source, exp.Table) and leaf.source.db:
            found.append((f"{leaf.source.db}.{leaf.source.name}", leaf.name.rsplit(".", 1)[-1].strip('"`')))
    return tuple(sorted(set(found)))


def _touched_columns(model: Model, table: str) -> Iterable[str]:
    """Columns of the temporary view that touched_keys() makes (packages/delta_cdc): those of `replace_by`."""
    keys = model.config.get("replace_by") or ()
    return ([keys] if isinstance(keys, str) else list(keys)) if table.endswith("__touched") else ()


def _as_served(model: Model, found: Mapping[str, tuple[Origin, ...]]) -> dict[str, tuple[Origin, ...]]:
    """A CDC model's view hides engine columns and adds its own (packages/delta_cdc)."""
    if not model.is_cdc:
        return dict(found)
    config = model.config
    hidden = {*(config.get("except_columns") or ["_op"]), config.get("unsent") or "_unsent", "_batch_id"}
    shown = {name: origins for name, origins in found.items() if name not in hidden}
    if model.strategy == "cdc_scd2":
        sequence = config.get("sequence_by") or ()
        first = sequence if isinstance(sequence, str) else next(iter(sequence), "")
        effective = found.get(config.get("effective_at") or first, ())
        shown |= {"valid_from": effective, "valid_to": effective, "is_current": effective}
    return {**shown, "_batch_id": found.get(config.get("watermark") or "_batch_id", ())}
