"""One SELECT over the lake's own tables, answered by DuckDB in this process, without a JVM.

Names are those of Spark: tables as their Delta log says they are, deletion vectors applied, and views as dbt made them.
Only what the query reads is opened, and nothing is written. docs/guides/querying.md says what it is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from python_ops.lake import delta
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.home import LAYERS, tables
from python_ops.lake.lake import Lake
from python_ops.lake.tags import tagged_versions
from python_ops.lake.views import Views

if TYPE_CHECKING:
    from python_ops.lake.view_sql import Types, View

_SEARCHED = ("gold", "silver", "bronze")  # where a name without a schema is looked for, in this order


class Answer:
    """What a query gives. Times are in UTC.

    Attributes:
        columns: Their names.
    """

    def __init__(self, engine: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation) -> None:
        self._engine, self._relation = engine, relation  # the connection holds the tables
        self.columns: list[str] = relation.columns

    def rows(self) -> list[tuple[Any, ...]]:
        """Its rows as Python has them.

        Raises:
            ConfigError: a value has no result, such as a text that is cast to a number.
        """
        with _explained():
            return self._relation.fetchall()

    def table(self) -> Any:
        """Its rows as an Arrow table.

        Raises:
            ConfigError: as `rows`.
        """
        with _explained():
            return self._relation.to_arrow_table()


def names(lake: Lake) -> list[tuple[str, str]]:
    """Tables and views that a query may name, each with `table` or `view`.

    Raises:
        OpsError: the lake is empty.
    """
    found = _Names(lake, duckdb.connect())
    return sorted([(name, "table") for name in found.tables] + [(name, "view") for name in found.views])


def query(lake: Lake, sql: str, at: str | None = None) -> Answer:
    """The answer to one SELECT in DuckDB's SQL.

    Args:
        sql: A single query; DESCRIBE and SUMMARIZE are such.
        at: A tag: tables are read at its versions, and others not at all.

    Raises:
        ConfigError: it is no query, has an error, or names what is not there, or not in the tag.
        OpsError: the lake is empty, or a table cannot be read without Spark.
    """
    engine = duckdb.connect(config={"enable_external_access": "false"})
    engine.execute("set timezone = 'UTC'; set python_enable_replacements = false")
    named = _named(engine, sql)
    known = _Names(lake, engine, at)
    for name in named:
        known.open(name)
    with _explained():
        return Answer(engine, engine.sql(sql))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as exc:
        raise ConfigError(f"The query cannot be answered. {str(exc).strip()}") from exc


class _Names:
    """Tables and views of a lake, each opened in DuckDB when a query first names it."""

    def __init__(self, lake: Lake, engine: duckdb.DuckDBPyConnection, at: str | None = None) -> None:
        self.lake, self.engine, self.at = lake, engine, at
        self.versions = tagged_versions(lake, at) if at else None
        schemas = {lake.schema_name(layer) for layer in LAYERS}
        self.tables: dict[str, Path] = {
            f"{schema}.{name}": path for schema, name, path in tables(lake.settings) if schema in schemas
        }
        if not self.tables:
            raise OpsError(
                f"The lake in {lake.settings.place} has no tables yet. `lakeops demo` fills one with invented data, "
                "`lakeops run` takes what was delivered."
            )
        self.views: Mapping[str, View] = Views(lake.artifacts) if (lake.artifacts / "manifest.json").exists() else {}
        self.known = {name.lower(): name for name in (*self.tables, *self.views)}
        self.opened: dict[str, Types] = {}
        for schema in schemas:
            engine.execute(f'create schema "{schema}"')
        engine.execute(f"set search_path = '{','.join(lake.schema_name(layer) for layer in _SEARCHED)}'")

    def open(self, name: str) -> None:
        """Makes a name known to DuckDB; one without a schema is looked for in gold, silver, bronze.

        Raises:
            ConfigError: there is no such table or view.
            OpsError: only Spark can read it.
        """
        places = [f"{self.lake.schema_name(layer)}.{name}" for layer in _SEARCHED] if "." not in name else []
        self.types(self.spelled(next((place for place in places if place.lower() in self.known), name)))

    def spelled(self, name: str) -> str:
        """A name as the lake spells it."""
        if name.lower() in self.known:
            return self.known[name.lower()]
        close = get_close_matches(name.lower().rpartition(".")[2], {each.partition(".")[2] for each in self.known}, 3)
        near = [self.known[each] for table in close for each in self.known if each.partition(".")[2] == table]
        told = f"The nearest: {', '.join(near)}." if near else "`lakeops sql` lists them."
        raise ConfigError(f"There is no table or view {name}. {told}")

    def types(self, name: str) -> Types:
        """Opens a table or view, with what it reads. Gives the types of its columns, as Spark names them."""
        if name not in self.opened:
            schema, _, table = name.partition(".")
            if view := self.views.get(name):
                resolved = view.resolved(lambda read: self.types(self.spelled(read)))
                types, made = resolved.types, resolved.sql("duckdb")
            else:
                path, version = self.tables[name], self._version(name)
                types = {column: type_ for column, (type_, _) in delta.columns(path, version).items()}
                self.engine.register(f"rows of {name}", delta.query(path, "select * from t", version))
                made = f'select * from "rows of {name}"'
            self.engine.execute(f'create view "{schema}"."{table}" as {made}')
            self.opened[name] = types
        return self.opened[name]

    def _version(self, name: str) -> int | None:
        if self.versions is None:
            return None
        if name not in self.versions:
            raise ConfigError(f"Tag {self.at} has no {name}. It has {', '.join(sorted(self.versions))}.")
        return self.versions[name]


def _named(engine: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Tables and views that a query names, as DuckDB's own parser says.

    Raises:
        ConfigError: it cannot be parsed, or is not one query.
    """
    row = engine.execute("select json_serialize_sql(cast(? as varchar))", [sql]).fetchone()
    parsed: dict[str, Any] = json.loads(row[0]) if row else {}
    if parsed.get("error_type") == "parser":
        raise ConfigError(f"The query has a {parsed['error_message']}{_place(sql, parsed.get('position'))}")
    if parsed.get("error"):
        raise ConfigError(
            "Only a SELECT is answered: nothing here changes the lake. Models are changed in dbt_project, files are "
            "written by `--format`."
        )
    if len(parsed["statements"]) != 1:
        raise ConfigError(f"One query is answered at a time, and {len(parsed['statements'])} were given.")
    parts = list(_parts(parsed))
    own = {each["key"].lower() for part in parts for each in part.get("cte_map", {}).get("map", ())}
    tables = [(part["schema_name"], part["table_name"]) for part in parts if part.get("type") == "BASE_TABLE"]
    return list(dict.fromkeys(f"{s}.{name}" if s else name for s, name in tables if s or name.lower() not in own))


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parsed query, from the outside in."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _parts(child)


def _place(sql: str, position: str | None) -> str:
    if position is None:
        return "."
    before = sql.encode()[: int(position)].decode(errors="ignore")
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    text = sql.splitlines()[line - 1] if line <= len(sql.splitlines()) else ""
    return f", line {line}, column {column}:\n  {text}\n  {' ' * (column - 1)}^"
