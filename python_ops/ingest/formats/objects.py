"""Rows as JSON objects, one per line: jsonl, and the rows of parquet and avro files, to typed rows with a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.contracts import Column, Contract
from python_ops.ingest.formats import dms
from python_ops.ingest.formats.rows import check_record, finish, parse_json, unknown_version, value_columns
from python_ops.ingest.formats.values import Check, not_a_number, range_checks

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
        checks += _column_checks(contract, column)
    return finish(
        dms.only_keys_of_deletes(typed, contract) if is_dms else typed,
        contract, checks, ignored="trim(raw) = ''", **(dms.METADATA if is_dms else {"op": "'u'"}),
    )  # fmt: skip


def _column_checks(contract: Contract, column: Column) -> list[Check]:
    name = column.name
    applies = "true" if name in contract.key or contract.format != "dms" else "_op <> 'd'"
    checks: list[Check] = []
    if column.required:
        checks.append((f"{applies} and `kind_{name}` is null", "a required column is missing", name))
        checks.append((f"{applies} and `kind_{name}` = 'VOID'", "a required value is null", name))
    if name in contract.key and column.type == "string":
        checks.append((f"trim(`{name}`) = ''", "the key is blank", name))
    wrong = f"{applies} and `kind_{name}` <> 'VOID' and `{name}` is null"
    checks.append((f"{wrong} and not {not_a_number(column, f'`text_{name}`')}", f"not a {column.type}", name))
    return [*checks, *range_checks(column, applies)]
