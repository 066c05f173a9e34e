"""Rows of batches, as pandas or Spark frames, with a column that says which rows carry values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from python_ops.lake.contracts import Contract
from python_ops.lake.contracts.metadata import METADATA
from python_ops.lake.delta import query
from python_ops.lake.errors import OpsError, missing_extra
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch
from python_ops.watch.quality.rules import AGE, HAS_KEY, HAS_VALUES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_MARKUP = '<>&"{}`'
_LONGEST = 60


def with_pandas(lake: Lake, contract: Contract, manifest: Batch) -> Any:
    """A batch as a pandas frame, read without a JVM.

    Raises:
        ConfigError: pandas is not installed.
        OpsError: the table cannot be read without Spark.
    """
    projection = _projection(contract, manifest, '"', "to_unixtime")
    rows = _read(lake, contract, [manifest.batch_id], projection)
    try:
        return rows.to_pandas(integer_object_nulls=True)
    except ImportError as exc:
        raise missing_extra("pandas", "quality") from exc


def with_spark(lake: Lake, contract: Contract, manifest: Batch) -> DataFrame:
    """A batch as a Spark frame."""
    rows = lake.spark.read.format("delta").load(str(lake.table_path("bronze", contract.source)))
    projection = _projection(contract, manifest, "`", "unix_seconds")
    return rows.where(f"_batch_id = {manifest.batch_id:d}").selectExpr(*projection)


def recent_values(
    lake: Lake, contract: Contract, batches: Sequence[int], names: Sequence[str]
) -> Mapping[str, Sequence[Any]]:
    """Values of columns in some batches, NULLs left out.

    Raises:
        OpsError: the table cannot be read without Spark.
    """
    table = _read(lake, contract, batches, [f'{_value(contract, name, chr(34))} as "{name}"' for name in names])
    return {name: [value for value in table.column(name).to_pylist() if value is not None] for name in names}


def _projection(contract: Contract, manifest: Batch, quote: str, seconds_of: str) -> list[str]:
    """The columns as both engines compute them: decimals as doubles, of unsent columns whether there are any."""
    found = []
    for column in (*contract.columns, *METADATA):
        name = f"{quote}{column.name}{quote}"
        text = f"{name} is not null" if column.name == "_unsent" else _value(contract, column.name, quote)
        found.append(f"{text} as {name}")
    if asked := contract.expectations.freshness:
        arrived = int(datetime.fromisoformat(manifest.arrived_at).timestamp())
        found.append(f"cast({arrived} - {seconds_of}({quote}{asked.column}{quote}) as double) / 60 as {AGE}")
    return [
        *found,
        f"cast(_op in ('c', 'u', 'r') and _unsent is null as int) as {HAS_VALUES}",
        f"cast(_op <> 't' as int) as {HAS_KEY}",
    ]


def _value(contract: Contract, name: str, quote: str) -> str:
    column = next((column for column in contract.columns if column.name == name), None)
    if column and column.precision_and_scale:
        return f"cast({quote}{name}{quote} as double)"
    if column and column.type == "string" and name in contract.expectations.drift:
        # These values are shown on pages, which put them into scripts as they are.
        return f"left(translate({quote}{name}{quote}, '{_MARKUP}', '{'_' * len(_MARKUP)}'), {_LONGEST})"
    return f"{quote}{name}{quote}"


def _read(lake: Lake, contract: Contract, batches: Sequence[int], projection: Sequence[str]) -> Any:
    path = lake.table_path("bronze", contract.source)
    numbers = ", ".join(str(int(batch)) for batch in batches)
    try:
        return query(path, f"select {', '.join(projection)} from t where _batch_id in ({numbers})")
    except OpsError as exc:
        raise OpsError(f"{exc} `lakeops ingest report {contract.source} --engine spark` reads it with Spark.") from exc
