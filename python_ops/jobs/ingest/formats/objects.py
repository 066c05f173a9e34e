"""Rows as JSON objects, one per line: jsonl, and the rows of parquet and avro files, to typed rows with a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.jobs.ingest.formats import dms
from python_ops.jobs.ingest.formats.rows import (
    check_record,
    column_checks,
    finish,
    parse_json,
    unknown_version,
    value_columns,
)
from python_ops.lake.contracts import Contract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def objects(lines: DataFrame, contract: Contract) -> DataFrame:
    """Parses and checks JSON objects, as python_ops.jobs.ingest.projection.project says."""
    is_dms = contract.format == "dms"
    carried = ["_raw", "_file", "_line", "_is_object", "_unknown_version"]
    known = [dms.OPERATION, contract.timestamp_column or ""] if is_dms else []
    rows = parse_json(lines).selectExpr("*", "_event as _row", unknown_version(contract))
    if is_dms:
        rows = rows.selectExpr(
            "*",
            f"try_variant_get(_event, '$.{dms.OPERATION}', 'string') as _given_op",
            f"try_variant_get(_event, '$.{contract.timestamp_column}', 'string') as _given_at",
        ).selectExpr("*", *dms.positions())
        carried += dms.CARRIED
    typed = value_columns(
        rows, dms.without_zones(contract) if is_dms else contract, carried, is_debezium=False, known=known
    )
    checks = [*check_record(), *(dms.checks() if is_dms else [])]
    for column in contract.columns:
        applies = "true" if column.name in contract.key or not is_dms else "_op <> 'd'"
        checks += column_checks(contract, column, applies)
    return finish(
        dms.only_keys_of_deletes(typed, contract) if is_dms else typed,
        contract, checks, ignored="trim(_raw) = ''", **(dms.METADATA if is_dms else {"op": "'u'"}),
    )  # fmt: skip
