"""Records of csv files to typed rows with a verdict. The layout says which field is which column."""

from __future__ import annotations

from python_ops.jobs.ingest.formats.format import Format
from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.jobs.ingest.formats.rows import changes, check_text, finish
from python_ops.jobs.ingest.formats.values import (
    MAX_RECORD_BYTES,
    Check,
    from_text,
    range_checks,
    taken_as_null,
    without_nul,
)
from python_ops.lake.contracts import Column, Contract
from python_ops.lake.rejections import Kind
from python_ops.lake.sql import escaped

# The parser fails, and the batch with it, on a record of more fields.
_MAX_FIELDS = 100_000

# An empty field is NULL, an empty text in quotes is an empty text: the parser gives this for the former.
_ABSENT = "\\u0002"
_OPTIONS = (
    "'mode', 'PERMISSIVE', 'columnNameOfCorruptRecord', '_corrupt', 'escape', '\"', 'emptyValue', '',"
    f" 'nullValue', '{_ABSENT}', 'maxCharsPerColumn', '-1', 'maxColumns', '{_MAX_FIELDS}'"
)


def delimited(lines: Pipe, contract: Contract, layout: tuple[str, ...], format_: Format, delimiter: str = ",") -> Pipe:
    """Parses and checks csv records, as python_ops.jobs.ingest.projection.project says.

    Args:
        lines: One record each; a quoted field may hold line ends.
        contract: The source's contract.
        layout: Name of each field, in the order of the file.
        format_: The contract's.
        delimiter: What is between the fields; with a blank after it, blanks around a value are not part of it.
    """
    split = lines.select("*", f"{parsed('_raw', layout, delimiter)} as _fields")
    wanted = {column.name for column in contract.columns} | set(format_.fields(contract))
    extra = [(name, number) for number, name in enumerate(layout) if name not in wanted]
    named = split.select(
        "_raw", "_file", "_line", "_fields is null or _fields._corrupt is not null as _is_corrupt",
        "cast(null as string) as _unknown_version",
        *[f"{_field(column.name, layout)} as `_text_{column.name}`" for column in contract.columns],
        f"{_extra(extra)} as _extra",
        *format_.given(contract, lambda name: _field(name, layout), lambda name: str(name in layout).lower()),
    )  # fmt: skip
    if positions := format_.positions(contract):
        named = named.select("*", *positions)
    if null_text := contract.null_text or format_.null_text:
        texts = [f"`_text_{column.name}`" for column in contract.columns]
        named = named.select(
            f"* except ({', '.join(texts)})",
            *[f"nullif({text}, '{escaped(null_text)}') as {text}" for text in texts],
        )
    typed = named.select(
        "*", *[f"{_clean(c)} as `{c.name}`" for c in format_.read_as(contract).columns]
    ).select("*", changes(contract, "contains(_raw, '\\0')", is_json=False))  # fmt: skip
    checks: list[Check] = [
        *check_text(),
        Check("_is_corrupt or length(_raw) - length(replace(_raw, '\"', '')) & 1 = 1",
              Kind.RECORD, "wrong number of fields, or an unbalanced quote"),
        *format_.checks(),
    ]  # fmt: skip
    for column in contract.columns:
        checks += _column_checks(contract, column, format_.is_sent(contract, column))
    return finish(
        format_.as_sent(typed, contract), contract, checks, ignored="trim(_raw) = ''", **format_.metadata
    )  # fmt: skip


def parsed(raw: str, layout: tuple[str, ...], delimiter: str) -> str:
    """SQL of a record's fields `f0`, `f1` and so on; `_corrupt` is there when their number is another."""
    fields = ", ".join(f"f{number} string" for number in range(len(layout)))
    unquoted = f"""regexp_replace({raw}, '"[^"]*"', '')"""
    few = f"({_count(delimiter[0], raw)} < {_MAX_FIELDS} or {_count(delimiter[0], unquoted)} < {_MAX_FIELDS})"
    small = f"is_valid_utf8({raw}) and octet_length({raw}) <= {MAX_RECORD_BYTES} and {few}"
    text = f"regexp_replace({raw}, '^\\uFEFF|\\r$', '')"
    blanks = ", 'ignoreLeadingWhiteSpace', 'true', 'ignoreTrailingWhiteSpace', 'true'" if delimiter[1:] else ""
    options = f"map('sep', '{delimiter[0]}', {_OPTIONS}{blanks})"
    return f"from_csv(case when {small} then {text} end, '{fields}, _corrupt string', {options})"


def _count(delimiter: str, text: str) -> str:
    return f"length({text}) - length(replace({text}, '{delimiter}', ''))"


def _clean(column: Column) -> str:
    text = f"`_text_{column.name}`"
    return without_nul(text) if column.type == "string" else from_text(column, text)


def _field(name: str, layout: tuple[str, ...]) -> str:
    return f"_fields.f{layout.index(name)}" if name in layout else "cast(null as string)"


def _extra(columns: list[tuple[str, int]]) -> str:
    if not columns:
        return "cast(null as string)"
    pairs = ", ".join(f"'{escaped(name)}', _fields.f{number}" for name, number in columns)
    return f"to_json(map({pairs}), map('ignoreNullFields', 'false'))"


def _column_checks(contract: Contract, column: Column, applies: str) -> list[Check]:
    name, text = column.name, f"`_text_{column.name}`"
    checks: list[Check] = []
    if column.required:
        checks.append(Check(f"{applies} and {text} is null", Kind.MISSING, "a required value is null", name))
    if column.required and (name in contract.key or column.type != "string"):
        checks.append(Check(f"{applies} and trim({text}) = ''", Kind.MISSING, "a required value is blank", name))
    empty = f"trim({text}) <> ''" if column.type != "string" else "true"
    wrong = f"{applies} and {text} is not null and {empty} and `{name}` is null and not {taken_as_null(column, text)}"
    checks.append(Check(wrong, Kind.TYPE, f"not a {column.type}", name))
    return [*checks, *range_checks(column, applies)]
