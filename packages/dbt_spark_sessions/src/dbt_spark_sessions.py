"""dbt-spark's session method with a Spark session of its own for each of dbt's connections, which is each node.

dbt-spark 1.11 (session.py) runs every statement of every thread on the one session of the process: settings and
temporary views of one model are those of all others, and stay for the next. It also turns ANSI mode off
(connections.py), so that a cast that fails is NULL. Here a connection gets a session beside the process's own: the same
Spark, catalog and caches; its own settings and temporary views, which end with it; and ANSI mode as Spark has it, on
since Spark 4. What Spark says of a row it refuses is told without the row's values, which dbt would print, log and keep
in run_results.json.

dbt loads modules named `dbt_*` that have a list `plugins` (dbt-core 1.11, plugins/manager.py), so being installed is
enough. Delete this when dbt-spark does the same.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbt.adapters.spark import session as stock
from dbt.plugins import dbtPlugin
from dbt_common.exceptions import DbtRuntimeError
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

MARK = "dbt.session.own"  # set on every such session: macros that need one ask for it
FORCED = "spark.sql.ansi.enabled"  # dbt-spark writes "false" over what the profile says

_starting = threading.Lock()


class Connection(stock.Connection):  # type: ignore[misc]
    """One node's connection: its Spark session is made by the first statement and ended by `close`."""

    def __init__(self, *, server_side_parameters: dict[str, Any] | None = None) -> None:
        super().__init__(server_side_parameters=server_side_parameters)
        self._session: SparkSession | None = None

    @property
    def session(self) -> SparkSession:
        """The session, with the profile's settings. Static ones count only where this starts Spark; a server has had
        its settings since its start, and is not asked for each of them."""
        if self._session is None:
            given = {} if "SPARK_REMOTE" in os.environ else self.server_side_parameters
            settings = {name: value for name, value in given.items() if name != FORCED}
            self._session = _session_of_its_own(settings)
            for name, value in settings.items():
                if self._session.conf.isModifiable(name):
                    self._session.conf.set(name, value)
            self._session.conf.set(MARK, "true")
        return self._session

    def cursor(self) -> Cursor:
        """A cursor on this connection's session."""
        return Cursor(self)

    def close(self) -> None:
        """Ends the session: what a failed node left cached is freed."""
        if self._session is None:
            return
        session, self._session = self._session, None
        for view in session.sql("show views in global_temp").collect():  # the session's too, and no metastore is asked
            if not view["namespace"]:
                session.catalog.dropTempView(view["viewName"])
        if "SPARK_REMOTE" in os.environ:
            session.stop()  # this client's session on the server; in one process it would stop Spark


class Cursor(stock.Cursor):  # type: ignore[misc]
    """dbt-spark's cursor, on its connection's session."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(server_side_parameters=connection.server_side_parameters)
        self._connection = connection

    def execute(self, sql: str, *parameters: Any) -> None:
        """Runs a statement.

        Raises:
            DbtRuntimeError: Spark refuses the statement.
        """
        with _told_by_spark():
            self._df = self._connection.session.sql(sql % parameters if parameters else sql)

    def fetchall(self) -> Any:
        """All rows.

        Raises:
            DbtRuntimeError: Spark refuses one.
        """
        with _told_by_spark():
            return super().fetchall()

    def fetchone(self) -> Any:
        """The next row.

        Raises:
            DbtRuntimeError: Spark refuses one.
        """
        with _told_by_spark():
            return super().fetchone()


class ConnectionWrapper(stock.SessionConnectionWrapper):  # type: ignore[misc]
    """What dbt holds; closing it closes the connection too."""

    def close(self) -> None:
        """Called by dbt when a node is done, or has failed."""
        super().close()
        self.handle.close()


class SessionsPlugin(dbtPlugin):  # type: ignore[misc]
    """Puts these in the place of dbt-spark's, which looks them up when it opens a connection."""

    def initialize(self) -> None:
        """Called by dbt at the start of each invocation."""
        stock.Cursor = Cursor
        stock.Connection = Connection
        stock.SessionConnectionWrapper = ConnectionWrapper
        for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
            PySparkLogger.getLogger(name).disabled = True  # prints each error, with values, as JSON beside dbt's lines


plugins = [SessionsPlugin]


# Conditions whose text has types, names and SQL beside a value in single quotes or a number. The text of any other data
# exception and violated constraint may be a row.
_KNOWN = re.compile(
    r"CAST_|NUMERIC_|DIVIDE_BY_ZERO|ARITHMETIC_|INTERVAL_|CANNOT_PARSE_TIMESTAMP|DATETIME_|INVALID_ARRAY|"
    r"INVALID_PARAMETER|MERGE_CARDINALITY|NOT_NULL|DELTA_"
)
# What a machine says and no row: a full disk, a refused file, no memory.
_OF_THE_MACHINE = re.compile(r"java\.(io|nio|net)\.|java\.lang\.OutOfMemory|software\.amazon\.|org\.apache\.hadoop\.")

_FRAME = r"\n\s+at [\w.$/<>]+\("  # of a stack trace


def told(error: object) -> str:
    """What Spark says, without the JVM's stack trace and with `***` for values of rows.

    Of nested errors, the innermost with a condition in brackets, and what the machine says below it. Values are hidden
    in data exceptions and violated constraints (SQLSTATE 22 and 23); types and the piece of SQL that is shown stay.
    """
    causes = re.findall(
        rf"(?ms)^(?:An error occurred while calling \S+\n: |Caused by: )([\w.$]+): (.*?)(?={_FRAME}|\Z)", str(error)
    )
    if not causes:
        return _without_values(re.split(rf"{_FRAME}|\n+JVM stacktrace:", str(error))[0].rstrip())
    kind, last = causes[-1]
    chosen = next((text for _, text in reversed(causes) if re.match(r"\[[A-Z]", text)), None)
    if chosen is None:
        first = causes[0][1].split(", most recent failure:")[0] if len(causes) > 1 else ""
        chosen = ": ".join(filter(None, (_hidden(first), kind)))
    below = f": {last.rstrip()}" if _OF_THE_MACHINE.match(kind) else ""
    return _without_values(chosen.rstrip()) + below


def _without_values(message: str) -> str:
    """The text before the last SQLSTATE of a data exception is hidden: a value may have that word too."""
    found = re.fullmatch(r"(?s)(.*?\[([A-Z][\w.]+)\] )(.*)(SQLSTATE: 2[23].*)", message)
    if not found:
        return message
    if not _KNOWN.match(found[2]):
        return f"{found[1]}Its text may hold values of a row and is not shown. {found[4]}"
    return f"{found[1]}{_hidden(found[3])}{found[4]}"


def _hidden(text: str) -> str:
    text = re.sub(r"(?s)'.*'", "'***'", text)
    text = re.sub(r"(?s)(values:).*", r"\1 *** ", text)  # a row, column by column
    text = re.sub(r"\[[^\]]*\]", "[***]", text)
    return re.sub(r"(?<![\w.(\"*])-?\d[\d.,eE+-]*[LDF]?(?![\w\")*])", "***", text)


@contextmanager
def _told_by_spark() -> Iterator[None]:
    try:
        yield
    except (PySparkException, Py4JJavaError) as exc:
        raise DbtRuntimeError(told(exc)) from None  # a traceback would print the values


def _session_of_its_own(settings: dict[str, Any]) -> SparkSession:
    """A session beside the process's, which is started if there is none."""
    if "SPARK_REMOTE" in os.environ:
        return SparkSession.builder.remote(os.environ["SPARK_REMOTE"]).create()
    with _starting:
        builder = SparkSession.builder.enableHiveSupport()
        if SparkContext._active_spark_context is None:
            for name, value in settings.items():
                builder = builder.config(name, value)
        return builder.getOrCreate().newSession()
