"""dbt's connections have a Spark session each, on the Spark that runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from dbt.adapters.spark import session as stock
from dbt.plugins import PluginManager
from dbt_common.exceptions import DbtRuntimeError
from pyspark.errors import NumberFormatException

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
    with pytest.raises(NumberFormatException) as failed:
        ask(mine, "select cast(amount as int) from (select 'abc' as amount)")
    assert "'abc'" in str(failed.value) and "cast(amount as int)" in str(failed.value), "the value and the column"


def test_closing_frees_what_a_failed_node_left_cached(spark: SparkSession, connect: Any) -> None:
    mine = connect()
    mine.cursor().execute("cache table left_behind as select 20261128 as x")
    same = spark.sql("select 20261128 as x")
    assert same.storageLevel.useMemory
    mine.close()
    assert not spark.sql("select 20261128 as x").storageLevel.useMemory
    with pytest.raises(DbtRuntimeError, match="left_behind"):
        ask(mine, "select * from left_behind")  # a new session, as after dbt opens the connection again
