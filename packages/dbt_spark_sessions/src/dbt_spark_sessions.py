"""dbt-spark's session method with a Spark session of its own for each of dbt's connections, which is each node.

dbt-spark 1.11 (session.py) runs every statement of every thread on the one session of the process: settings and
temporary views of one model are those of all others, and stay for the next. It also turns ANSI mode off
(connections.py), so that a cast that fails is NULL. Here a connection gets a session beside the process's own: the same
Spark, catalog and caches; its own settings and temporary views, which end with it; and ANSI mode as Spark has it, on
since Spark 4.

dbt loads modules named `dbt_*` that have a list `plugins` (dbt-core 1.11, plugins/manager.py), so being installed is
enough. Delete this when dbt-spark does the same.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from dbt.adapters.spark import session as stock
from dbt.plugins import dbtPlugin
from dbt_common.exceptions import DbtRuntimeError
from pyspark import SparkContext
from pyspark.errors import AnalysisException
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
        text = sql % parameters if parameters else sql
        try:
            self._df = self._connection.session.sql(text)
        except AnalysisException as exc:
            raise DbtRuntimeError(str(exc)) from exc


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


plugins = [SessionsPlugin]


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
