"""The CDC engine without Spark: its own macros, runner and all, on DuckDB.

`Duck` has the shape of the Spark laboratory (tests/e2e/cdc_lab.py): bronze tables, models, builds. A build renders
`cdc_apply` in dbt's context. sqlglot transpiles the statements that it runs; those of Delta and of Spark's session are
done here: versions, properties, the commit's note, the transaction number, temporary views. What only Spark can prove
(MERGE on files, pruning, concurrency, types that widen) stays with tests/e2e.
"""

from __future__ import annotations

import datetime
import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from cdc_sets import METADATA
from rendering import CompilationError, load
from sqlglot import exp

# What Spark has and DuckDB lacks. Spark's to_json leaves NULLs out and writes a time as the engine asks it to.
FUNCTIONS = """
create macro spark_json(name, value) as case
    when value is null then null
    when typeof(value) = 'TIMESTAMP'
    then concat('"', name, '":"', strftime(try_cast(value::varchar as timestamp), '%Y-%m-%dT%H:%M:%S.%f'), '"')
    else concat('"', name, '":', to_json(value)::varchar) end;
create macro timestamp_micros(micros) as make_timestamp(micros);
create macro raise_error(message) as error(message);
create macro conv(digits, base, other) as ('0x' || digits)::ubigint::varchar;
create macro xxhash64(value) as (hash(value) >> 1)::bigint;
create macro bit_at(value, place) as (value >> place) & 1;
"""


# What dbt gives of the module of this name.
DATETIME = {name: getattr(datetime, name) for name in ("date", "datetime", "time", "timedelta", "tzinfo")}


class Row(tuple):
    """A row of a query's result, by place and by name, as agate gives it to macros."""

    names: tuple[str, ...]

    def __new__(cls, values: Iterable[Any], names: Sequence[str]) -> Row:
        made = super().__new__(cls, values)
        made.names = tuple(names)
        return made

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)

    def dict(self) -> dict[str, Any]:
        return dict(zip(self.names, self, strict=True))


@dataclass
class Result:
    rows: list[Row]

    @classmethod
    def of(cls, *rows: Mapping[str, Any]) -> Result:
        return cls([Row(row.values(), list(row)) for row in rows])


@dataclass(frozen=True)
class Relation:
    """As dbt's relations, to the extent that the engine uses them."""

    schema: str
    identifier: str
    type: str = "table"
    database: None = None

    def __str__(self) -> str:
        return f"{self.schema}.{self.identifier}"

    @property
    def is_view(self) -> bool:
        return self.type == "view"

    def incorporate(self, type: str) -> Relation:
        return replace(self, type=type)

    @classmethod
    def create(cls, schema: str, identifier: str, type: str = "table", database: None = None) -> Relation:
        return cls(schema, identifier, type)


@dataclass
class Table:
    """What Delta keeps beside a table's rows."""

    properties: dict[str, str] = field(default_factory=dict)
    commits: list[tuple[str, str | None]] = field(default_factory=list)  # operation, note
    transactions: dict[str, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return len(self.commits) - 1


@lru_cache(maxsize=2000)
def transpile(sql: str) -> str:
    """Spark's SQL as DuckDB's."""
    sql = re.sub(r"\bsession\.(\w+)", r"getvariable('\1')", sql).replace("getbit(", "bit_at(")
    parsed = sqlglot.parse_one(sql, dialect="spark")
    for node in list(parsed.find_all(*_OTHER_IN_DUCKDB)):
        if isinstance(node, exp.DataType) and node.this is exp.DataType.Type.TIMESTAMPTZ:
            node.replace(exp.DataType.build("timestamp", dialect="duckdb"))  # all sessions are in UTC
        elif isinstance(node, exp.ArrayAgg):  # of no rows it is an empty array
            node.replace(exp.func("coalesce", node.copy(), exp.Array()))
        elif isinstance(node, exp.CountIf):  # of no rows it is 0
            node.replace(exp.Filter(this=exp.Count(this=exp.Star()), expression=exp.Where(this=node.this)))
        elif isinstance(node, exp.Exists) and isinstance(node.expression, exp.Lambda):
            found = exp.func("list_bool_or", exp.func("list_transform", node.this, node.expression))
            node.replace(exp.func("coalesce", found, exp.false()))  # in an empty array there is none
        elif isinstance(node, exp.JSONFormat) and isinstance(node.this, exp.Struct):
            node.replace(_json(node.this))
        elif isinstance(node, exp.Table) and node.args.get("version"):
            node.set("version", None)  # the version that a run reads is the one that is there
        elif isinstance(node, exp.TryCast):  # sqlglot's Spark casts as before ANSI mode
            node.replace(exp.Cast(this=node.this, to=node.to))
    return parsed.sql(dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.IGNORE)


_OTHER_IN_DUCKDB = (
    exp.ArrayAgg, exp.CountIf, exp.DataType, exp.Exists, exp.JSONFormat, exp.Table, exp.TryCast,
)  # fmt: skip


def _json(struct: exp.Struct) -> exp.Expression:
    """`to_json` as Spark writes it, for the hash that decides ties."""
    parts = [f"spark_json('{column.name}', {column.expression.sql(dialect='duckdb')})" for column in struct.expressions]
    return sqlglot.parse_one(f"'{{' || concat_ws(',', {', '.join(parts)}) || '}}'", dialect="duckdb")


class Warehouse:
    """Spark's session and its tables, for one engine after the other."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("set lambda_syntax = 'ENABLE_SINGLE_ARROW'; set TimeZone = 'UTC'; set threads = 1")
        self.connection.execute(FUNCTIONS)
        self.tables: dict[str, Table] = {}
        self.temporary: dict[str, str] = {}  # name: table or view
        self.settings: dict[str, str] = {}
        self.statements: list[str] = []

    def query(self, sql: str) -> Result:
        """Runs a statement of the engine."""
        self.statements.append(sql)
        return self.run(sql)

    def run(self, sql: str) -> Result:
        """The same, not listed."""
        for pattern, method in _STATEMENTS:
            if found := pattern.match(sql.strip()):
                return method(self, **found.groupdict()) or Result([])
        return self.select(transpile(sql))

    def select(self, sql: str) -> Result:
        answer = self.connection.execute(sql)
        names = [column[0] for column in answer.description]
        return Result([Row(values, names) for values in answer.fetchall()])

    def columns(self, relation: str) -> list[tuple[str, str]]:
        """Names and types, as Spark says them."""
        return [(row[0], _spark_type(row[1])) for row in self.connection.execute(f"describe {relation}").fetchall()]

    def kind(self, name: str) -> str | None:
        """'table', 'view' or none."""
        schema, identifier = name.split(".")
        found = self.connection.execute(
            "select table_type from information_schema.tables where table_schema = ? and table_name = ?",
            [schema, identifier],
        ).fetchall()
        return None if not found else "view" if found[0][0] == "VIEW" else "table"

    def listed(self, relation: Relation) -> Relation | None:
        """A relation as dbt's cache has it."""
        kind = self.kind(str(relation))
        return None if kind is None else replace(relation, type=kind)

    def commit(self, table: str, operation: str) -> None:
        note = self.settings.get("spark.databricks.delta.commitInfo.userMetadata")
        self.tables.setdefault(table, Table()).commits.append((operation, note))

    def _describe_query(self, sql: str) -> Result:
        rows = self.columns(f"({transpile(sql)})")
        return Result.of(*({"col_name": name, "data_type": kind} for name, kind in rows))

    def _cache(self, name: str, sql: str) -> None:
        self.connection.execute(f"create temporary table {name} as {transpile(sql)}")
        self.temporary[name] = "table"

    def _temporary_view(self, name: str, sql: str) -> None:
        self.connection.execute(f"create temporary view {name} as {transpile(sql)}")
        self.temporary[name] = "view"

    def _show(self, kind: str, schema: str | None, pattern: str) -> Result:
        if schema is None:
            found = [(name, True) for name in self.temporary]
        else:
            listed = "select table_name from information_schema.tables where table_schema = ?"
            listed += " and table_type = 'VIEW'" if kind == "views" else ""
            found = [(row[0], False) for row in self.connection.execute(listed, [schema]).fetchall()]
        column = "viewName" if kind == "views" else "tableName"
        return Result.of(*(
            {column: name, "isTemporary": is_temporary}
            for name, is_temporary in sorted(found)
            if any(fnmatch.fnmatchcase(name, part) for part in pattern.split("|"))
        ))  # fmt: skip

    def _drop(self, kind: str, name: str) -> None:
        kind = self.temporary.pop(name, kind)
        self.connection.execute(f"drop {kind} if exists {name}")
        self.tables.pop(name, None)

    def _history(self, table: str) -> Result:
        found = self.tables[table]
        return Result.of({"version": found.version, "userMetadata": found.commits[-1][1]})

    def _versions(self, table: str) -> Result:
        return Result.of(*({"version": number} for number in range(self.tables[table].version, -1, -1)))

    def _show_properties(self, table: str, name: str | None) -> Result:
        properties = self.tables[table].properties
        return Result.of(*({"key": k, "value": v} for k, v in properties.items() if name in (None, k)))

    def _set_properties(self, table: str, properties: str) -> None:
        self.commit(table, "SET TBLPROPERTIES")
        self.tables[table].properties.update(_properties(properties))

    def _add_columns(self, table: str, columns: str) -> None:
        struct, field = "_cdc_filled.", "_in_struct_"  # sqlglot knows no columns in a struct
        made = sqlglot.parse_one(f"create table t ({columns.replace(struct + '`', '`' + field)})", dialect="spark")
        for column in made.this.expressions:
            text = column.sql(dialect="duckdb").replace(f'"{field}', f'{struct}"').replace(field, struct)
            self.connection.execute(f"alter table {table} add column {text}")
        self.commit(table, "ADD COLUMNS")

    def _create_storage(self, kind: str, table: str, properties: str, sql: str) -> None:
        self.connection.execute(f"{kind} {table} as {transpile(sql)}")
        self.tables.setdefault(table, Table()).properties = _properties(properties)
        self.commit(table, f"{kind.upper()} AS SELECT")

    def _create_scratch(self, table: str, sql: str) -> None:
        self.connection.execute(f"create table {table} as {transpile(sql)}")

    def _create_view(self, view: str, sql: str) -> None:
        self.connection.execute(transpile(f"create or replace view {view} {sql}"))

    def _write(self, kind: str, table: str, sql: str) -> Result:
        """A transaction number that the table has seen is skipped, and nothing is returned."""
        application = self.settings.get("spark.databricks.delta.write.txnAppId")
        number = int(self.settings.get("spark.databricks.delta.write.txnVersion", 0))
        seen = self.tables[table].transactions
        if application and seen.get(application, -1) >= number:
            return Result([])
        counted = " returning merge_action" if kind == "merge" else ""
        actions = [str(row[0]).lower() for row in self.select(transpile(sql) + counted).rows]
        if application:
            seen[application] = number
        self.commit(table, "MERGE" if kind == "merge" else "WRITE")
        return Result.of({"num_inserted_rows": actions.count("insert"), "num_updated_rows": actions.count("update")})

    def _script(self, sql: str) -> None:
        for quoted in re.findall(r"execute immediate ('(?:\\.|[^'])*');", sql):
            self.run(sqlglot.parse_one(quoted, dialect="spark").this)

    def _own_session(self) -> Result:
        return Result.of({"key": "dbt.session.own", "value": "true"})

    def _declare(self) -> None: ...

    def _set_variable(self, name: str, sql: str) -> None:
        self.connection.execute(f"set variable {name} = ({transpile(sql)})")

    def _set(self, name: str, value: str) -> None:
        self.settings[name] = value

    def _reset(self, name: str) -> None:
        self.settings.pop(name, None)


# A statement that is not here is SQL.
_STATEMENTS = [
    (re.compile(pattern, re.DOTALL), method)
    for pattern, method in (
        (r"describe query\s(?P<sql>.*)", Warehouse._describe_query),
        (r"describe history (?P<table>\S+) limit 1$", Warehouse._history),
        (r"describe history (?P<table>\S+)$", Warehouse._versions),
        (r"cache lazy table (?P<name>\S+) as\s(?P<sql>.*)", Warehouse._cache),
        (r"create temporary view (?P<name>\S+) as\s(?P<sql>.*)", Warehouse._temporary_view),
        (r"show (?P<kind>views|tables)(?: in (?P<schema>\S+))? like '(?P<pattern>[^']*)'$", Warehouse._show),
        (r"show tblproperties (?P<table>\S+)(?: \('(?P<name>[^']*)'\))?$", Warehouse._show_properties),
        (r"drop (?P<kind>view|table) if exists (?P<name>\S+)$", Warehouse._drop),
        (r"alter table (?P<table>\S+) set tblproperties \((?P<properties>.*)\)$", Warehouse._set_properties),
        (r"alter table (?P<table>\S+) add columns \((?P<columns>.*)\)$", Warehouse._add_columns),
        (r"(?P<kind>create (?:or replace )?table) (?P<table>\S+)\s+using delta\s.*?"
         r"\stblproperties \((?P<properties>.*?)\)\s+as\s(?P<sql>.*)", Warehouse._create_storage),
        (r"create table (?P<table>\S+) using parquet as\s(?P<sql>.*)", Warehouse._create_scratch),
        (r"create or replace view (?P<view>\S+)\s(?P<sql>.*)", Warehouse._create_view),
        (r"(?P<sql>(?P<kind>merge|insert) into (?P<table>\S+)\s.*)", Warehouse._write),
        (r"begin(?P<sql>(?:\s+execute immediate '(?:\\.|[^'])*';)+)\s+end$", Warehouse._script),
        (r"set dbt\.session\.own$", Warehouse._own_session),
        (r"declare or replace variable ", Warehouse._declare),
        (r"set var (?P<name>\S+) = \((?P<sql>.*)\)$", Warehouse._set_variable),
        (r"set (?P<name>[\w.]+) = (?P<value>.*)", Warehouse._set),
        (r"reset (?P<name>[\w.]+)$", Warehouse._reset),
    )
]  # fmt: skip


def _properties(text: str) -> dict[str, str]:
    pairs = re.findall(r"'((?:\\.|[^'])*)' = '((?:\\.|[^'])*)'", text, re.DOTALL)
    plain = lambda escaped: sqlglot.parse_one(f"'{escaped}'", dialect="spark").this  # noqa: E731
    return {plain(name): plain(value) for name, value in pairs}


def _spark_type(duck: str) -> str:
    return exp.DataType.build(duck, dialect="duckdb").sql(dialect="spark").lower().replace("timestamp_ntz", "timestamp")


class _Exceptions:
    def __init__(self, warnings: list[str]) -> None:
        self.warn = warnings.append

    @staticmethod
    def raise_compiler_error(message: str) -> None:
        raise CompilationError(message)


class _Config(dict):
    def persist_column_docs(self) -> bool:
        return False

    def persist_relation_docs(self) -> bool:
        return False


@dataclass(frozen=True)
class Column:
    name: str
    dtype: str


@dataclass(frozen=True)
class Model:
    source: str
    query: str
    config: dict[str, Any]


class Duck:
    """Bronze tables, CDC models and their builds in one schema.

    Args:
        edit: Changes the text of a macro file before it is loaded.
    """

    def __init__(self, schema: str = "lab", edit: Callable[[str, str], str] | None = None) -> None:
        self.schema = schema
        self.warehouse = Warehouse()
        self.warehouse.connection.execute(f"create schema {schema}")
        self.models: dict[str, Model] = {}
        self.builds = 0
        self.messages: dict[str, str] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.views: dict[str, list[str]] = {}
        self.warnings: list[str] = []
        self.lines: list[str] = []
        self.vars: dict[str, Any] = {}
        self.post_hooks: list[str] = []
        self._edit = edit

    def bronze(self, name: str, columns: str) -> None:
        """Creates an empty bronze table with the given key and value columns and the usual metadata."""
        created = transpile(f"create or replace table {self.schema}.{name} ({columns}, {METADATA})")
        self.warehouse.connection.execute(created)

    def deliver(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Appends rows, in the column order of the bronze table."""
        if not rows:
            return
        table = f"{self.schema}.{name}"
        types = self.warehouse.connection.sql(f"select * from {table} limit 0").to_arrow_table().schema
        delivered = pa.table(
            [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), types, strict=True)],
            schema=types,
        )
        self.warehouse.connection.register("delivered", delivered)
        self.warehouse.connection.execute(f"insert into {table} select * from delivered")
        self.warehouse.connection.unregister("delivered")

    def model(self, name: str, source: str, select: str, **config: Any) -> None:
        """A CDC model: a plain projection of the bronze table."""
        self.sql(name, source, f"select {select} from {self.schema}.{source}", **config)

    def sql(self, name: str, source: str, query: str, **config: Any) -> None:
        """A CDC model by its query."""
        self.models[name] = Model(source, query, config)

    def build(self, *select: str, full_refresh: bool = False, check: bool = True) -> dict[str, str]:
        """Runs the models, or those named. Gives the errors by model; keeps `messages` and `counts`.

        Raises:
            AssertionError: a model failed and `check` is true.
        """
        failed = {}
        self.messages = {}
        self.builds += 1
        for name in select or self.models:
            macros = self._macros(name, full_refresh)
            try:
                done = macros["cdc_apply"](self.models[name].query)
                self.messages[name], self.counts[name] = done["message"], done["counts"]
                self.views[name] = done["views"]
            except CompilationError as error:
                failed[name] = str(error)
            finally:
                macros["cdc_release_session"]()
        assert not (check and failed), failed
        return failed

    def explain(self, model: str, key: Any, **arguments: Any) -> list[str]:
        """Lines of `dbt run-operation cdc_explain`."""
        self.lines.clear()
        self._macros(next(iter(self.models)), full_refresh=False)["cdc_explain"](model, key, **arguments)
        return list(self.lines)

    def travelled(self, macro: str, model: str, *arguments: Any, **named: Any) -> str:
        """SQL of a macro that reads a model at another time."""
        return self._macros(model, full_refresh=False)[macro](Relation(self.schema, model, "view"), *arguments, **named)

    def rows(self, name: str, columns: Iterable[str] | str = "*") -> list[dict[str, Any]]:
        """Rows of a view or table as dictionaries."""
        listed = columns if isinstance(columns, str) else ", ".join(columns)
        return [row.dict() for row in self.warehouse.select(f"select {listed} from {self.schema}.{name}").rows]

    def execute(self, sql: str) -> None:
        """A statement by hand, on a storage table a commit as Delta would make it."""
        self.warehouse.connection.execute(transpile(sql))
        for table in self.warehouse.tables:
            if table in sql:
                self.warehouse.commit(table, "BY HAND")

    def version(self, name: str) -> int:
        """Latest version of a storage table."""
        return self.warehouse.tables[f"{self.schema}.{name}"].version

    def data_commits(self, name: str) -> int:
        """How many commits wrote rows."""
        commits = self.warehouse.tables[f"{self.schema}.{name}"].commits
        return sum(operation.startswith(("MERGE", "WRITE", "CREATE")) for operation, _ in commits)

    def _macros(self, name: str, full_refresh: bool) -> dict[str, Callable[..., Any]]:
        """The engine's macros in dbt's context of one model."""
        model, warehouse = self.models[name], self.warehouse

        class Adapter:
            @staticmethod
            def get_columns_in_relation(relation: Relation) -> list[Column]:
                return [Column(*column) for column in warehouse.columns(str(relation))]

            @staticmethod
            def cache_added(relation: Relation) -> None: ...

            @staticmethod
            def check_schema_exists(database: None, schema: str) -> bool:
                return True

            @staticmethod
            def drop_relation(relation: Relation) -> None:
                warehouse._drop(relation.type, str(relation))

        source = f"source.lab.bronze.{model.source}"
        nodes = {
            f"model.lab.{each}": {
                "unique_id": f"model.lab.{each}", "resource_type": "model", "name": each, "alias": each,
                "schema": self.schema, "config": {"incremental_strategy": None, **self.models[each].config},
                "raw_code": self.models[each].query,
                "depends_on": {"nodes": [f"model.lab.{self.models[each].source}"]},
            }
            for each in self.models
        }  # fmt: skip
        context = {
            "adapter": Adapter,
            "api": {"Relation": Relation},
            "config": _Config(model.config),
            "exceptions": _Exceptions(self.warnings),
            "execute": True,
            "flags": {"WHICH": "run"},
            "fromjson": json.loads,
            "graph": {"nodes": nodes, "sources": {source: {"schema": self.schema, "identifier": model.source}}},
            "invocation_args_dict": {},
            "invocation_id": f"invocation {self.builds}",
            "load_cached_relation": warehouse.listed,
            "local_md5": lambda text: hashlib.md5(text.encode()).hexdigest(),
            "log": lambda message, info=False: self.lines.append(message),
            "model": {
                "columns": {}, "depends_on": {"nodes": [source]}, "description": "",
                "unrendered_config": model.config,
            },
            "modules": {"datetime": DATETIME, "re": re},
            "post_hooks": self.post_hooks,
            "render": lambda text: text,
            "run_query": warehouse.query,
            "should_full_refresh": lambda: full_refresh,
            "target": {"threads": 1},
            "this": Relation(self.schema, name, "view"),
            "tojson": lambda value, sort_keys=False: json.dumps(value, sort_keys=sort_keys),
            "var": self.vars.get,
            "zip": zip,
        }  # fmt: skip
        return load("cdc", context=context, edit=self._edit)
