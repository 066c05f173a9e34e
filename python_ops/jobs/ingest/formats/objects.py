"""Rows as JSON objects, one per line: jsonl, and the rows of parquet and avro files, to typed rows with a verdict."""

from __future__ import annotations

from python_ops.jobs.ingest.formats.format import Format
from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.jobs.ingest.formats.rows import (
    NUL_IN_JSON,
    changes,
    check_record,
    column_checks,
    finish,
    member,
    parse_json,
    unknown_version,
    value_columns,
)
from python_ops.lake.contracts import Contract


def objects(lines: Pipe, contract: Contract, format_: Format) -> Pipe:
    """Parses and checks JSON objects, as python_ops.jobs.ingest.projection.project says."""
    rows = parse_json(lines).select("*", "_event as _row", unknown_version(contract))
    given = format_.given(
        contract,
        lambda name: f"try_variant_get({member('_event', name)}, '$', 'string')",
        lambda name: f"{member('_event', name)} is not null",
    )
    if given:
        rows = rows.select("*", *given).select("*", *format_.positions(contract))
    typed = value_columns(
        rows,
        format_.read_as(contract),
        ["_raw", "_file", "_line", "_is_object", "_unknown_version", *format_.carried],
        known=list(format_.fields(contract)),
    ).select("*", changes(contract, NUL_IN_JSON))
    checks = [*check_record(), *format_.checks()]
    for column in contract.columns:
        checks += column_checks(contract, column, format_.is_sent(contract, column))
    return finish(
        format_.as_sent(typed, contract), contract, checks, ignored="trim(_raw) = ''", **format_.metadata
    )  # fmt: skip
