"""From a contract to one Spark projection: lines in, typed rows with a verdict out. No UDF, one pass.

JSON is read as `variant`: it keeps integers and decimals exact, refuses duplicated keys, and tells a string from a
number, so that a changed type is seen. Column names come from the contract, whose schema admits `[a-z][a-z0-9_]*` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_ops.contracts import Column, Contract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Check = tuple[str, str, str | None]
"""A SQL condition that rejects the row, the reason, and the column it is about."""

UNAVAILABLE = "__debezium_unavailable_value"
"""What Debezium puts in place of an unchanged TOAST value (`unavailable.value.placeholder`)."""

METADATA = (
    Column("_op", "string", "Operation as Debezium names it: c, u, d, r (snapshot), t (truncate); u for csv."),
    Column("_source_generation", "int", "Grows when a source starts its positions anew."),
    Column("_source_lsn", "bigint", "Log position of the change (Debezium source.lsn); NULL for csv."),
    Column("_source_position", "bigint", "Place inside one log position; 0 for PostgreSQL, NULL for csv."),
    Column("_source_ts", "timestamp", "Commit time of the change in the source; NULL for csv."),
    Column("_source_tx", "bigint", "Transaction of the change in the source; NULL for csv."),
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

# Days from 1970-01-01 to 0001-01-01 and to 9999-12-31.
FIRST_DAY, LAST_DAY = -719162, 2932896
FIRST_MICROSECOND, LAST_MICROSECOND = FIRST_DAY * 86_400_000_000, (LAST_DAY + 1) * 86_400_000_000 - 1


def project(lines: DataFrame, contract: Contract) -> DataFrame:
    """Parses and checks lines.

    Args:
        lines: `raw` string, `_file` string, `_line` bigint.
        contract: The source's contract.

    Returns:
        One row per line: `_kind` (`event`, `rejected`, or `ignored`: tombstones, headers, blank lines), `_reason` and
        `_column` of the first fault, `raw`, then the contract's columns and METADATA up to `_line`.
    """
    return _debezium(lines, contract) if contract.format == "debezium_json" else _csv(lines, contract)


def _debezium(lines: DataFrame, contract: Contract) -> DataFrame:
    # In brackets, because the parser stops at the end of the first value: a second one on the line would be lost.
    # A byte order mark at the start of the file is not data.
    text = "case when is_valid_utf8(raw) then concat('[', regexp_replace(raw, '^\\uFEFF', ''), ']') end"
    events = lines.selectExpr("*", f"try_parse_json({text}) as parsed").selectExpr(
        "*",
        "case when try_variant_get(parsed, '$[1]', 'variant') is null"
        " then try_variant_get(parsed, '$[0]', 'variant') end as event",
    )
    envelopes = events.selectExpr(
        "*",
        "event is not null and schema_of_variant(event) like 'OBJECT%' as is_object",
        "try_variant_get(event, '$.value', 'variant') as value",
        "try_variant_get(event, '$.key', 'variant') as key",
        "try_variant_get(event, '$.value.op', 'string') as _op",
        "try_variant_get(event, '$.value.source.table', 'string') as source_table",
        _integer_at("$.value.source.lsn", "_source_lsn"),
        _integer_at("$.value.source.ts_us", "source_us"),
        _integer_at("$.value.source.txId", "_source_tx"),
    )
    rows = envelopes.selectExpr(
        "*",
        "is_object and value is not null and is_variant_null(value) and key is not null and not is_variant_null(key)"
        " as is_tombstone",
        "case when _op = 'd' then key when _op in ('c', 'u', 'r') then try_variant_get(value, '$.after', 'variant') end"
        " as row",
    )
    names = ", ".join(f"'{column.name}'" for column in contract.columns)
    values = rows.selectExpr(
        "*",
        *[
            f"try_variant_get(row, '$.{column.name}', 'variant') as `value_{column.name}`"
            for column in contract.columns
        ],
        "map_filter(try_cast(row as map<string, variant>),"
        f" (name, _) -> not array_contains(array({names}), name)) as extra",
    )
    typed = values.selectExpr(
        "raw", "_file", "_line", "is_object", "is_tombstone", "value", "row", "_op", "source_table", "_source_lsn",
        "source_us", "_source_tx",
        "case when _op <> 'd' and size(extra) > 0 then to_json(extra) end as _extra",
        *[f"schema_of_variant(`value_{c.name}`) as `kind_{c.name}`" for c in contract.columns],
        *[f"{_from_variant(c)} as `{c.name}`" for c in contract.columns],
        *[_is_unsent(c) for c in contract.columns],
    )  # fmt: skip
    checks: list[Check] = [
        ("not is_valid_utf8(raw)", "not valid UTF-8", None),
        ("not coalesce(is_object, false)", "not one JSON object, or a key is there twice", None),
        ("value is null", "no value in the event", None),
        ("_op is null or _op not in ('c', 'u', 'd', 'r', 't')", "unknown operation", None),
        (f"not source_table <=> '{_quoted(contract.table or '')}'", "event of another table", None),
        ("_source_lsn is null", "no log position (source.lsn)", None),
        (
            f"source_us is null or source_us not between {FIRST_MICROSECOND} and {LAST_MICROSECOND}",
            "no commit time (source.ts_us), or out of range",
            None,
        ),
        ("_op <> 't' and (row is null or is_variant_null(row))", "no row in the event", None),
    ]
    for column in contract.columns:
        checks += _debezium_column_checks(contract, column)
    unsent = ", ".join(f"case when `unsent_{c.name}` then '{c.name}' end" for c in contract.columns)
    return typed.selectExpr("*", f"{_first_of(checks)} as verdict").selectExpr(
        "case when trim(raw) = '' or is_tombstone then 'ignored' when verdict is null then 'event' else 'rejected' end"
        " as _kind",
        "verdict.reason as _reason",
        "verdict.column as _column",
        "raw",
        *[f"`{column.name}`" for column in contract.columns],
        "_op",
        "1 as _source_generation",
        "_source_lsn",
        "cast(0 as bigint) as _source_position",
        "timestamp_micros(source_us) as _source_ts",
        "_source_tx",
        f"nullif(array_compact(array({unsent})), cast(array() as array<string>)) as _unsent",
        "_extra",
        "_file",
        "_line",
    )


def _debezium_column_checks(contract: Contract, column: Column) -> list[Check]:
    name = column.name
    applies = "_op <> 't'" if name in contract.key else "_op in ('c', 'u', 'r')"
    given = f"{applies} and not `unsent_{name}`"
    checks: list[Check] = []
    if name in contract.key:
        checks.append((f"{applies} and `unsent_{name}`", "the key was not sent", name))
    if column.required:
        checks.append((f"{given} and `kind_{name}` is null", "a required column is missing", name))
        checks.append((f"{given} and `kind_{name}` = 'VOID'", "a required value is null", name))
    if name in contract.key and column.type == "string":
        checks.append((f"{given} and trim(`{name}`) = ''", "the key is blank", name))
    checks.append((f"{given} and `kind_{name}` <> 'VOID' and `{name}` is null", f"not a {column.type}", name))
    return checks


def _from_variant(column: Column) -> str:
    """The typed value, or NULL where the JSON value is of another kind or does not fit."""
    kind = f"schema_of_variant(`value_{column.name}`)"
    text = f"try_variant_get(`value_{column.name}`, '$', 'string')"
    number = f"try_variant_get(`value_{column.name}`, '$', 'bigint')"
    if column.type == "string":
        return f"case when {kind} = 'STRING' and {text} <> '{UNAVAILABLE}' then {text} end"
    if column.type == "boolean":
        return f"case when {kind} = 'BOOLEAN' then try_variant_get(`value_{column.name}`, '$', 'boolean') end"
    if column.type in ("int", "bigint"):
        return f"case when {kind} = 'BIGINT' then try_cast({number} as {column.type}) end"
    if column.type == "date":
        in_range = f"{number} between {FIRST_DAY} and {LAST_DAY}"
        return f"case when {kind} = 'BIGINT' and {in_range} then date_from_unix_date(cast({number} as int)) end"
    return f"case when {kind} = 'STRING' then {_from_text(column, text)} end"


def _from_text(column: Column, text: str) -> str:
    """The typed value of a text, or NULL where it does not say exactly such a value."""
    if column.precision_and_scale:
        scale = column.precision_and_scale[1]
        # More digits after the point than the column keeps would be lost without a word.
        plain = rf"^-?[0-9]+([.][0-9]{{0,{scale}}}0*)?$"
        return f"case when {text} rlike '{plain}' then try_cast({text} as {column.type}) end"
    if column.type == "timestamp":
        zoned = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-][0-9]{2}:?[0-9]{2})$"
        return f"case when {text} rlike '{zoned}' then try_cast({text} as timestamp) end"
    if column.type == "date":
        return f"case when {text} rlike '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$' then try_cast({text} as date) end"
    if column.type in ("int", "bigint"):
        return f"case when {text} rlike '^-?[0-9]+$' then try_cast({text} as {column.type}) end"
    if column.type == "boolean":
        return f"case lower({text}) when 'true' then true when 'false' then false end"
    return text


def _is_unsent(column: Column) -> str:
    value = f"`value_{column.name}`"
    return (
        f"coalesce(_op <> 'd' and schema_of_variant({value}) = 'STRING'"
        f" and try_variant_get({value}, '$', 'string') = '{UNAVAILABLE}', false) as `unsent_{column.name}`"
    )


def _integer_at(path: str, name: str) -> str:
    found = f"try_variant_get(event, '{path}', 'variant')"
    return (
        f"case when schema_of_variant({found}) = 'BIGINT' then try_variant_get(event, '{path}', 'bigint') end as {name}"
    )


def _csv(lines: DataFrame, contract: Contract) -> DataFrame:
    fields = ", ".join(f"`{column.name}` string" for column in contract.columns)
    options = "map('mode', 'PERMISSIVE', 'columnNameOfCorruptRecord', '_corrupt', 'emptyValue', '')"
    parsed = lines.selectExpr(
        "*", f"from_csv(case when is_valid_utf8(raw) then raw end, '{fields}, _corrupt string', {options}) as text"
    )
    typed = parsed.selectExpr(
        "raw", "_file", "_line", "text._corrupt is not null as is_corrupt",
        *[f"text.`{c.name}` as `text_{c.name}`" for c in contract.columns],
        *[f"{_from_text(c, f'text.`{c.name}`')} as `{c.name}`" for c in contract.columns],
    )  # fmt: skip
    checks: list[Check] = [
        ("not is_valid_utf8(raw)", "not valid UTF-8", None),
        ("is_corrupt", "wrong number of fields, or an unbalanced quote", None),
    ]
    for column in contract.columns:
        name = column.name
        if column.required:
            checks.append((f"`text_{name}` is null or trim(`text_{name}`) = ''", "a required value is null", name))
        checks.append((f"`text_{name}` is not null and `{name}` is null", f"not a {column.type}", name))
    return typed.selectExpr("*", f"{_first_of(checks)} as verdict").selectExpr(
        # The header was compared with the contract when the file was taken.
        "case when _line = 1 or trim(raw) = '' then 'ignored' when verdict is null then 'event' else 'rejected' end"
        " as _kind",
        "verdict.reason as _reason",
        "verdict.column as _column",
        "raw",
        *[f"`{column.name}`" for column in contract.columns],
        "'u' as _op",
        "1 as _source_generation",
        "cast(null as bigint) as _source_lsn",
        "cast(null as bigint) as _source_position",
        "cast(null as timestamp) as _source_ts",
        "cast(null as bigint) as _source_tx",
        "cast(null as array<string>) as _unsent",
        "cast(null as string) as _extra",
        "_file",
        "_line",
    )


def _first_of(checks: list[Check]) -> str:
    cases = ", ".join(
        f"case when {condition} then named_struct('reason', '{_quoted(reason)}', 'column', {_text_or_null(column)}) end"
        for condition, reason, column in checks
    )
    return f"coalesce({cases})"


def _text_or_null(text: str | None) -> str:
    return "cast(null as string)" if text is None else f"'{text}'"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
