"""Columns that ingestion adds to what a source delivered: to each row of bronze, and to each dead letter."""

from __future__ import annotations

from python_ops.lake.contracts import Column

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
    Column("kind", "string", "Kind of the reason: record, event, missing, type, base64, range, layout or file."),
    Column("contract_version", "string", "Contract that the record was checked against."),
    Column("arrived_at", "timestamp", "When the batch was taken."),
)

DLQ_STATE = (
    Column("replayed_batch", "bigint", "Batch that a replay put the record into; NULL while it is open."),
    Column("replayed_at", "timestamp", "When that was."),
)
