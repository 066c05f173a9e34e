"""From a contract to one Spark projection: records in, typed rows with a verdict out. No UDF, one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.contracts import Column, Contract
from python_ops.ingest.formats.delimited import delimited
from python_ops.ingest.formats.envelopes import debezium
from python_ops.ingest.formats.objects import objects

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

METADATA = (
    Column(
        "_op", "string", "Operation as Debezium names it: c, u, d, r (snapshot), t (truncate); u for rows without one."
    ),
    Column("_source_generation", "int", "Grows when a source starts its positions anew."),
    Column(
        "_source_lsn",
        "bigint",
        "Log position of the change (Debezium source.lsn, microseconds of a DMS commit); NULL for plain rows.",
    ),
    Column(
        "_source_position",
        "bigint",
        "Place inside one log position; 0 for PostgreSQL, file and line for DMS; NULL for plain rows.",
    ),
    Column("_source_ts", "timestamp", "Commit time of the change in the source; NULL for plain rows."),
    Column("_source_tx", "bigint", "Transaction of the change in the source; NULL for plain rows."),
    Column("_unsent", "array<string>", "Columns whose value the event did not carry; NULL when it carried all."),
    Column("_extra", "string", "JSON object of delivered columns that the contract lacks; NULL when none."),
    Column("_file", "string", "Landing file of the row."),
    Column("_line", "bigint", "Line of the row in its file, from 1."),
    Column("_contract_version", "string", "Contract that the row was checked against."),
    Column("_arrived_at", "timestamp", "When the batch was taken."),
    Column("_batch_id", "bigint", "Number of the batch; grows in commit order, per source."),
)

DLQ_COLUMNS = (
    Column("_batch_id", "bigint", "Number of the batch."),
    Column("file", "string", "Landing file of the record."),
    Column("line", "bigint", "Line of the record, from 1; NULL when the file as a whole was rejected."),
    Column("raw", "string", "The line exactly as received."),
    Column("reason", "string", "Why the record was rejected."),
    Column("column", "string", "Column that the reason is about, if one."),
    Column("contract_version", "string", "Contract that the record was checked against."),
    Column("arrived_at", "timestamp", "When the batch was taken."),
)

DLQ_STATE = (
    Column("replayed_batch", "bigint", "Batch that a replay put the record into; NULL while it is open."),
    Column("replayed_at", "timestamp", "When that was."),
)


def project(lines: DataFrame, contract: Contract, layout: tuple[str, ...] = ()) -> DataFrame:
    """Parses and checks records.

    Args:
        lines: `_raw` string (rows of parquet and avro files as JSON), `_file` string, `_line` bigint.
        contract: The source's contract.
        layout: Names of a csv record's fields in their order; empty for JSON.

    Returns:
        One row per record: `_kind` (`event`, `rejected`, `unknown`: of a layout version that the contract does not
        know, or `ignored`: tombstones, blank lines), `_reason` and `_column` of the first fault, `_changes`: what was
        changed to take the record, `_raw`, `_origin` (schema of its table), then the contract's columns and METADATA up
        to `_line`.
    """
    if contract.format == "debezium_json":
        return debezium(lines, contract)
    if layout or contract.format == "csv":
        return delimited(lines, contract, layout or tuple(column.name for column in contract.columns))
    return objects(lines, contract)
