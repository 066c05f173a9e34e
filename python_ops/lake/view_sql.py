"""A view's text, and what it is in another engine's SQL.

It is Spark SQL. Other engines get it in their own (`Resolved.sql`): sqlglot translates it, and every column
is cast to the type that it has in Spark, because an engine's functions give types of their own (a day added to a date
makes a timestamp in DuckDB). sqlglot takes a tenth of a second to import: import this module where it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import ErrorLevel, exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify

from python_ops.lake.errors import OpsError, first_line

Types = Mapping[str, str]
"""Spark's types by the name of their column, in order."""


@dataclass(frozen=True)
class View:
    """A view of the lake.

    Attributes:
        name: Schema and name.
        comments: Description of each column, by its name, in order; empty where it has none.
        comment: Description of the view.
        query: Its SELECT, as Spark parses it.
    """

    name: str
    comments: Mapping[str, str]
    comment: str
    query: exp.Query

    def reads(self) -> frozenset[str]:
        """Tables and views that it reads directly, as `schema.name`."""
        return frozenset(f"{table.db}.{table.name}" for table in self.query.find_all(exp.Table) if table.db)

    def resolved(self, of: Callable[[str], Types]) -> Resolved:
        """The view with the types of its columns.

        Args:
            of: Gives the types of a table or view that it reads.

        Raises:
            OpsError: a type cannot be told from the text.
        """
        schema: dict[str, Any] = {}
        for name in self.reads():
            layer, _, table = name.partition(".")
            schema.setdefault(layer, {})[table] = dict(of(name))
        try:
            query = annotate_types(qualify(self.query.copy(), schema=schema, dialect="spark"), schema, dialect="spark")
        except SqlglotError as exc:
            raise OpsError(f"The columns of {self.name} cannot be told: {first_line(exc, 200)}") from exc
        assert isinstance(query, exp.Query)
        types = dict(zip(self.comments, map(_type, query.selects), strict=True))
        if unknown := sorted(name for name, type_ in types.items() if type_ in ("unknown", "null")):
            raise OpsError(
                f"The type of {', '.join(unknown)} of {self.name} cannot be told from its SQL. Write "
                f"`cast({unknown[0]} as …)` in the model, then run `dbt build --select {self.name.partition('.')[2]}`."
            )
        return Resolved(self.name, types, query)


@dataclass(frozen=True)
class Resolved:
    """A view whose columns have types.

    Attributes:
        types: Of its columns.
        query: Its SELECT, every name in it qualified and every expression typed.
    """

    name: str
    types: Types
    query: exp.Query

    def sql(self, dialect: str) -> str:
        """Its SELECT in another engine's SQL, each column of its type.

        Args:
            dialect: As sqlglot names it.

        Raises:
            OpsError: the text says what that engine does not have.
        """
        columns = [
            exp.cast(exp.column(name, quoted=True), exp.DataType.build(type_, dialect="spark")).as_(name, quoted=True)
            for name, type_ in self.types.items()
        ]
        made = exp.TableAlias(
            this=exp.to_identifier("made"), columns=[exp.to_identifier(name, quoted=True) for name in self.types]
        )
        inner = self.query.transform(_as_spark_means_it)
        whole = exp.select(*columns).from_(exp.Subquery(this=inner, alias=made))
        try:
            text = whole.sql(dialect=dialect, comments=False, unsupported_level=ErrorLevel.RAISE)
            sqlglot.parse_one(text, dialect=dialect)
        except SqlglotError as exc:
            raise OpsError(f"{self.name} cannot be said in the SQL of {dialect}: {first_line(exc, 200)}") from exc
        return text

    def types_in(self, dialect: str) -> Types:
        """Types of its columns as another engine names them."""
        return {
            name: exp.DataType.build(type_, dialect="spark").sql(dialect).lower() for name, type_ in self.types.items()
        }


def _type(column: exp.Expr) -> str:
    return column.type.sql("spark").lower().replace(", ", ",") if column.type else "unknown"


def _as_spark_means_it(node: exp.Expression) -> exp.Expression:
    """What sqlglot would translate otherwise: Spark's date_add gives a date, and a sequence of dates goes by days."""
    if isinstance(node, exp.TsOrDsAdd):
        return exp.cast(node, "date")
    if isinstance(node, exp.GenerateSeries) and node.args["start"].is_type("date") and not node.args.get("step"):
        day = exp.Interval(this=exp.Literal.string("1"), unit=exp.var("day"))
        return exp.GenerateDateArray(start=node.args["start"], end=node.args["end"], step=day)
    return node


def parsed(text: str) -> Iterator[View]:
    """The views that statements of Spark make.

    Raises:
        OpsError: sqlglot cannot read them.
    """
    try:
        statements = sqlglot.parse(text, dialect="spark")
    except SqlglotError as exc:
        raise OpsError(f"its statements cannot be read: {first_line(exc, 200)}") from exc
    for made in statements:
        if isinstance(made, exp.Create) and isinstance(made.expression, exp.Query):
            (table,) = itertools.islice(made.this.find_all(exp.Table), 1)
            listed = made.this.expressions if isinstance(made.this, exp.Schema) else []
            yield View(
                name=f"{table.db}.{table.name}",
                comments={column.name: _comment(column) for column in listed}
                or dict.fromkeys(made.expression.named_selects, ""),
                comment=next((each.this.name for each in made.find_all(exp.SchemaCommentProperty)), ""),
                query=made.expression,
            )


def _comment(column: exp.Expression) -> str:
    return next((each.this.name for each in column.find_all(exp.CommentColumnConstraint)), "")
