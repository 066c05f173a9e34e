"""From a contract to one Spark projection: records in, typed rows with a verdict out. No UDF, one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.jobs.ingest.formats import format_of
from python_ops.jobs.ingest.formats.delimited import delimited
from python_ops.jobs.ingest.formats.envelopes import debezium
from python_ops.jobs.ingest.formats.objects import objects
from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.lake.contracts import Contract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def project(
    lines: DataFrame, contract: Contract, layout: tuple[str, ...] = (), is_wrapped: bool = True, delimiter: str = ","
) -> DataFrame:
    """Parses and checks records.

    Args:
        lines: `_raw` string (rows of parquet and avro files as JSON), `_file` string, `_line` bigint.
        contract: The source's contract.
        layout: Names of a csv record's fields in their order; empty for JSON.
        is_wrapped: Debezium's events may be wrapped with their schema, or as CloudEvents.
        delimiter: What is between the fields of a csv record, as `delimited` takes it.

    Returns:
        One row per record: `_kind` (`event`, `rejected`, `unknown`: of a layout version that the contract does not
        know, or `ignored`: tombstones, blank lines), `_reason_kind`, `_reason` and `_column` of the first fault,
        `_unknown_version`, `_changes`: what was changed to take the record, `_raw`, `_origin` (schema of its table),
        then the contract's columns and METADATA up to `_line`.
    """
    records, format_ = Pipe(lines), format_of(contract)
    if contract.format == "debezium_json":
        rows = debezium(records, contract, is_wrapped)
    elif layout or contract.format == "csv":
        names = layout or tuple(column.name for column in contract.columns)
        rows = delimited(records, contract, names, format_, delimiter)
    else:
        rows = objects(records, contract, format_)
    return rows.frame()
