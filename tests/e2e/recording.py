"""The recording in a lake: what Spark has made of its batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from recorded_truth import BATCHES, ENTITIES, Entity, Row, differences, truth_after, truth_history

from python_ops.lake.contracts import Contract


def stored_rows(spark: SparkSession, entity: Entity, relation: str) -> dict[Row, Row]:
    """A relation's rows by key."""
    return entity.by_key(_collect(spark, entity.contract, relation, []))


def wrong_rows(spark: SparkSession, table: Callable[[str, str], DataFrame]) -> list[str]:
    """How the demo's silver tables differ from what PostgreSQL held after the last batch, and from its history.

    Args:
        spark: The session of the tables.
        table: Gives a Delta table by layer and name.
    """
    wrong = []
    for entity in ENTITIES:
        shown = visible(table("silver", f"{entity.history or entity.current}__cdc"))
        shown.createOrReplaceTempView("demo_history")
        shown.where("valid_to is null").createOrReplaceTempView("demo_current")
        wrong += differences(truth_after(entity, BATCHES[-1]), stored_rows(spark, entity, "demo_current"))
        if entity.history:
            expected = truth_history(entity, snapshot_time(table("bronze", entity.source)))
            wrong += differences(expected, stored_history(spark, entity, "demo_history"))
    return wrong


def snapshot_time(bronze: DataFrame) -> str:
    """When the snapshot of a source was taken, by its bronze rows."""
    shown = "date_format(max(_source_ts), \"yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'\") as at"
    return str(bronze.where("_op = 'r'").selectExpr(shown).collect()[0]["at"])


def visible(storage: DataFrame) -> DataFrame:
    """What a CDC model's view shows of its storage table, for a table that this session's catalog does not know."""
    names = storage.schema["_cdc_filled"].dataType.names if "_cdc_filled" in storage.columns else []
    filled = {name: f"case when _cdc_filled is null then `{name}` else _cdc_filled.`{name}` end" for name in names}
    times = {"_cdc_valid_from": "valid_from", "_cdc_valid_to": "valid_to"}
    return storage.where("_cdc_visible").selectExpr(
        *(f"{filled.get(name, f'`{name}`')} as `{times.get(name, name)}`" for name in storage.columns)
    )


def stored_history(spark: SparkSession, entity: Entity, relation: str) -> dict[Row, list[Row]]:
    """Versions by key of a history model."""
    return entity.versions_by_key(_collect(spark, entity.contract, relation, ["valid_from", "valid_to"]))


def _collect(spark: SparkSession, contract: Contract, relation: str, times: list[str]) -> list[dict[str, Any]]:
    types = {column.name: column.type for column in contract.columns} | dict.fromkeys(times, "timestamp")
    shown = [
        f"date_format(`{name}`, \"yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'\") as `{name}`"
        if type_ == "timestamp"
        else f"cast(`{name}` as string) as `{name}`"
        for name, type_ in types.items()
    ]
    return [row.asDict() for row in spark.table(relation).selectExpr(*shown).collect()]
