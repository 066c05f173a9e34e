"""`lakeops sql`: one query over the lake's tables, without a JVM."""

from __future__ import annotations

import io
import json
import math
import sys
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.cli.tables import print_rows
from python_ops.lake.errors import ConfigError

if TYPE_CHECKING:
    from python_ops.jobs.query import Answer


class Format(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def sql(
    query: Annotated[
        str | None, typer.Argument(help="A SELECT in DuckDB's SQL; - reads it from the standard input.")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="A tag (`lakeops table tag`): its versions are read.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How the answer is printed.")] = Format.TABLE,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Answer a query over bronze, silver and gold as they are now, or as tagged. Starts no JVM and changes nothing.

    A name without a schema is looked for in gold, silver, bronze. The tables that the query names are read into memory.
    Without a query, the names are listed.

    Example: lakeops sql "select status, count(*) from fct_orders group by all"
    """
    from python_ops.jobs.query import names
    from python_ops.jobs.query import query as ask

    if form is Format.PARQUET and sys.stdout.isatty():
        raise ConfigError("Parquet is not for a terminal: send it to a file, `--format parquet > answer.parquet`.")
    lake = lake_of(env)
    if query is None:
        found = names(lake)
        if as_json:
            print_json([{"name": name, "kind": kind} for name, kind in found])
        else:
            print_rows(["name", "kind"], found)
        return
    answer = ask(lake, sys.stdin.read() if query == "-" else query, at)
    if form is Format.PARQUET:
        sys.stdout.buffer.write(_parquet(answer))
    elif as_json or form is Format.JSON:
        if twice := sorted({name for name in answer.columns if answer.columns.count(name) > 1}):
            raise ConfigError(f"Two columns are named {twice[0]}, and JSON takes one. Name them by `as`.")
        print_json([dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows()])
    elif form is Format.CSV:
        for row in (answer.columns, *answer.rows()):
            typer.echo(",".join(map(_field, row)))
    else:
        print_rows(answer.columns, [list(map(_plain, row)) for row in answer.rows()])


def _plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601, bytes in hexadecimal, what is no number as text."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def _field(value: Any) -> str:
    """A field by RFC 4180; NULL is nothing, an empty text is `""`, and what has parts is JSON."""
    if value is None:
        return ""
    plain = _plain(value)
    text = json.dumps(plain, default=str) if isinstance(plain, dict | list) else str(plain)
    return '"' + text.replace('"', '""') + '"' if not text or any(mark in text for mark in ',"\r\n') else text


def _parquet(answer: Answer) -> bytes:
    import pyarrow.parquet

    made = io.BytesIO()
    pyarrow.parquet.write_table(answer.table(), made)
    return made.getvalue()
