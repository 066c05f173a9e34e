"""dbt's connections have a Spark session each, on the Spark that runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dbt.adapters.spark import session as stock
from dbt.plugins import PluginManager
from dbt_common.exceptions import DbtRuntimeError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture
def connect() -> Any:
    """Makes what dbt's manager makes, after the plugin was loaded as dbt loads it."""
    PluginManager.from_modules("another_project")
    opened = []

    def _open(**parameters: str) -> Any:
        opened.append(
            stock.SessionConnectionWrapper(
                stock.Connection(server_side_parameters={"spark.sql.ansi.enabled": "false", **parameters})
            )
        )
        return opened[-1]

    yield _open
    for connection in opened:
        connection.close()


def ask(connection: Any, sql: str) -> Any:
    """First value of the first row."""
    cursor = connection.cursor()
    cursor.execute(sql)
    return cursor.fetchall()[0][0]


def test_settings_and_temporary_views_of_one_thread_are_not_anothers(spark: SparkSession, connect: Any) -> None:
    def work(number: int) -> tuple[str, int]:
        mine = connect()
        mine.cursor().execute(f"set spark.databricks.delta.commitInfo.userMetadata = {number}")
        mine.cursor().execute(f"create temporary view mine as select {number} as x")
        cursor = mine.cursor()
        cursor.execute("set spark.databricks.delta.commitInfo.userMetadata")
        return cursor.fetchall()[0]["value"], ask(mine, "select x from mine")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == [(str(number), number) for number in range(8)]
    assert spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None


def test_the_profiles_settings_reach_it_and_ansi_mode_is_sparks_own(spark: SparkSession, connect: Any) -> None:
    mine = connect(**{"spark.sql.shuffle.partitions": "7"})
    cursor = mine.cursor()
    cursor.execute("set spark.sql.shuffle.partitions")
    assert cursor.fetchall()[0]["value"] == "7"
    assert spark.conf.get("spark.sql.shuffle.partitions") != "7"


def test_an_error_says_the_column_and_no_value(
    spark: SparkSession, connect: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Given values that cannot be cast, When read or written, Then dbt is told neither value nor stack trace."""
    mine = connect()
    mine.cursor().execute("create temporary view person as select 'ada@x.de' as email, 77123 as amount")
    write = f"create table delta.`{tmp_path}/t` using delta as select cast(email as int) as n from person"
    told = []
    for sql in ("select cast(email as int) from person", write, "select cast(amount as decimal(4, 2)) from person"):
        with pytest.raises(DbtRuntimeError) as failed:
            ask(mine, sql)
        told.append(str(failed.value))
        assert failed.value.__suppress_context__, "a traceback would print Spark's own words"
    for text in told[:2]:
        assert "[CAST_INVALID_INPUT] The value '***' of the type \"STRING\"" in text and "cast(email as int)" in text
    assert "*** cannot be represented as Decimal(4, 2)" in told[2]
    shown = "".join(told) + "".join(capfd.readouterr())
    assert "ada@x.de" not in shown and "77123" not in shown and "\tat " not in shown


def test_an_error_is_printed_by_nobody_but_its_catcher(spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    """PySpark has a logger of its own for each error, with the values of the row."""
    with pytest.raises(Exception, match="CAST_INVALID_INPUT"):
        spark.sql("select cast(x as int) from values ('ada@x.de') as t(x)").collect()
    assert capfd.readouterr().err == ""


def test_closing_frees_what_a_failed_node_left_cached(spark: SparkSession, connect: Any) -> None:
    mine = connect()
    mine.cursor().execute("cache table left_behind as select 20261128 as x")
    same = spark.sql("select 20261128 as x")
    assert same.storageLevel.useMemory
    mine.close()
    assert not spark.sql("select 20261128 as x").storageLevel.useMemory
    with pytest.raises(DbtRuntimeError, match="left_behind"):
        ask(mine, "select * from left_behind")  # a new session, as after dbt opens the connection again
