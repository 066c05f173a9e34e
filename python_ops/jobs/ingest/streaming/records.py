"""Records of Kafka as the lines that the contract's projection reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from python_ops.lake.contracts import Contract
from python_ops.lake.contracts.export import avro_schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FORMATS = ("debezium_json", "jsonl")
_TIMES = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX", "timeZone": "UTC"}


def lines(records: DataFrame, contract: Contract, is_avro: bool = False) -> DataFrame:
    """`_raw`, `_file` (topic and partition) and `_line` (offset) of each record.

    Debezium's key and value are put together as they lie in a landing file, `{"key": …, "value": …}`; a value that is
    not one JSON text makes a line that is not one either, and is rejected. A record without a value is a blank line.

    Args:
        records: Rows of Spark's Kafka source.
        contract: The source's contract.
        is_avro: The value is Avro, written with the contract's schema; what cannot be decoded is kept in base64.
    """
    if is_avro:
        return _from_avro(records, contract)
    if contract.format == "debezium_json":
        key, value = (f"coalesce(cast({name} as string), 'null')" for name in ("key", "value"))
        raw = f"""concat('{{"key":', {key}, ',"value":', {value}, '}}')"""
    else:
        raw = "coalesce(cast(value as string), '')"
    return records.selectExpr(f"{raw} as _raw", *_PLACE)


def _from_avro(records: DataFrame, contract: Contract) -> DataFrame:
    from pyspark.sql.avro.functions import from_avro
    from pyspark.sql.functions import base64 as base64_of
    from pyspark.sql.functions import coalesce, col, concat, lit, to_json, when

    decoded = records.withColumn(
        "decoded", from_avro("value", json.dumps(avro_schema(contract)), {"mode": "PERMISSIVE"})
    )
    # What cannot be decoded comes back as a row of NULLs; a key column is never NULL in Avro.
    is_whole = col(f"decoded.{contract.key[0]}").isNotNull()
    raw = when(is_whole, to_json("decoded", _TIMES)).otherwise(concat(lit("base64:"), base64_of("value")))
    return decoded.withColumn("_raw", coalesce(raw, lit(""))).selectExpr("_raw", *_PLACE)


_PLACE = (
    "concat('kafka://', topic, '/', cast(partition as string)) as _file",
    "offset as _line",
)
