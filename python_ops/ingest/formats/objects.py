"""Rows as JSON objects, one per line: jsonl, and the rows of parquet and avro files, to typed rows with a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.contracts import Contract
from python_ops.ingest.formats import dms
from python_ops.ingest.formats.rows import (
    check_record,
    column_checks,
    finish,
    parse_json,
    unknown_version,
    value_columns,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def objects(lines: DataFrame, contract: Contract) -> DataFrame:
    """Parses and checks JSON objects, as python_ops.ingest.projection.project says."""
    is_dms = contract.format == "dms"
    carried = ["raw", "_file", "_line", "is_object", "unknown_version"]
    known = [dms.OPERATION, contract.timestamp_column or ""] if is_dms else []
    rows = parse_json(lines).selectExpr("*", "event as row", unknown_version(contract))
    if is_dms:
        rows = rows.selectExpr(
            "*",
            f"try_variant_get(event, '$.{dms.OPERATION}', 'string') as given_op",
            f"try_variant_get(event, '$.{contract.timestamp_column}', 'string') as given_at",
        ).selectExpr("*", *dms.positions())
        carried += dms.CARRIED
    typed = value_columns(
        rows, dms.without_zones(contract) if is_dms else contract, carried, numeric_dates=False, known=known
    )
    checks = [*check_record(), *(dms.checks() if is_dms else [])]
    for column in contract.columns:
        applies = "true" if column.name in contract.key or not is_dms else "_op <> 'd'"
        checks += column_checks(contract, column, applies)
    return finish(
        dms.only_keys_of_deletes(typed, contract) if is_dms else typed,
        contract, checks, ignored="trim(raw) = ''", **(dms.METADATA if is_dms else {"op": "'u'"}),
    )  # fmt: skip
