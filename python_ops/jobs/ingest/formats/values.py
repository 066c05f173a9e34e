"""Typed values as SQL: what a JSON value or a text says exactly, NULL where it says no such value."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from dataclasses import replace
from typing import NamedTuple

from python_ops.lake.contracts import Column
from python_ops.lake.rejections import Kind
from python_ops.lake.sql import escaped


class Check(NamedTuple):
    """What rejects a row: a SQL condition, the kind of reason, the reason in words, and the column it is about."""

    condition: str
    kind: Kind
    reason: str
    column: str | None = None


UNAVAILABLE = "__debezium_unavailable_value"
"""What Debezium puts in place of an unchanged TOAST value (`unavailable.value.placeholder`)."""

_BYTES = UNAVAILABLE.encode()
_BASE64 = base64.b64encode(_BYTES).decode()
_NAMED = uuid.UUID(bytes=hashlib.md5(_BYTES, usedforsecurity=False).digest(), version=3)
UNAVAILABLE_SPELLINGS = (
    UNAVAILABLE,
    _BASE64,
    base64.urlsafe_b64encode(_BYTES).decode(),
    _BYTES.hex(),
    *(
        json.dumps(given, separators=(",", ":"))
        for given in ([UNAVAILABLE], [_BASE64], [_BYTES.hex()], [str(_NAMED)], list(_BYTES), {UNAVAILABLE: UNAVAILABLE})
    ),
)
"""The placeholder as each type has it: text, bytea by binary.handling.mode, arrays of texts, bytes, numbers and UUIDs,
hstore. Source: UnchangedToastedPlaceholder in Debezium's PostgreSQL connector."""

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""A longer record is rejected: no table column, message or notebook holds it."""

MAX_EXTRA_COLUMNS = 1000
"""A record with more columns that the contract lacks is rejected: it is another table, or an attack."""

# A file that grows more than this, and past this size, is an attack or a mistake. Texts compress up to 50 times.
MAX_INFLATION, MAX_INFLATED_BYTES = 200, 64 * 1024 * 1024

# Days from 1970-01-01 to 0001-01-01 and to 9999-12-31.
FIRST_DAY, LAST_DAY = -719162, 2932896
FIRST_MICROSECOND, LAST_MICROSECOND = FIRST_DAY * 86_400_000_000, (LAST_DAY + 1) * 86_400_000_000 - 1

_PER_SECOND = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
# As text, as days, and as the numbers of each unit (PGStatement.DATE_POSITIVE_INFINITY and its like).
_INFINITY = "^([+]?infinity|2147483647|9223372036825200(000)?|9223372036854775807|[+]294247-.*)$"
_MINUS_INFINITY = "^(-infinity|-2147483648|-9223372036832400(000)?|-9223372036854775808|-290308-.*)$"
_NOT_NUMBERS = "'nan', 'infinity', '-infinity', '+infinity', 'inf', '-inf'"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?"
# A JSON number with an exponent, or of more digits than a decimal has, is read as a double, which keeps 15 digits.
_MORE_THAN_A_DOUBLE = ':[^0-9A-Za-z"]*[0-9]([.]?[0-9]){15,}([eE]|([.]?[0-9]){23})'

# What was changed so that a value could be taken; each is counted per batch.
NORMALISATIONS = (
    "NUL characters removed", "NaN or Infinity taken as NULL", "boolean written as another text",
    "number with thousands separators", "number with an exponent", "time without a zone taken as UTC",
    "infinite time taken as NULL or as the last day", "nanoseconds cut to microseconds",
    "decimal written as a floating-point number (decimal.handling.mode=double)",
    "text of lob_max_kb, perhaps cut off by DMS", "number with a decimal comma",
)  # fmt: skip
(
    NUL, NOT_A_NUMBER, LISTED_BOOLEAN, THOUSANDS, EXPONENT, NO_ZONE, INFINITE, NANOSECONDS, FLOATING, CUT, COMMA,
) = NORMALISATIONS  # fmt: skip


def bomb(inflated: int, size: int) -> str | None:
    """Why a file of `size` bytes is not read that holds so many, or more; None where it may be."""
    if inflated <= MAX_INFLATED_BYTES or inflated <= MAX_INFLATION * size:
        return None
    return f"inflates to more than {MAX_INFLATION} times its size"


def from_variant(column: Column, value: str, kind: str, text: str) -> str:
    """The typed value of a JSON value, or NULL where it is of another kind or does not fit.

    Args:
        column: What is wanted.
        value: SQL of the variant.
        kind: SQL of its `schema_of_variant`.
        text: SQL of its text; of a number that is to be whole it may be NULL.
    """
    number = f"try_variant_get({value}, '$', 'bigint')"
    if column.type == "string":
        return f"case when {kind} = 'STRING' and {text} <> '{UNAVAILABLE}' then {without_nul(text)} end"
    if column.type == "boolean":
        typed = f"try_variant_get({value}, '$', 'boolean')"
        return (
            f"case when {kind} = 'BOOLEAN' then {typed} when {kind} in ('STRING', 'BIGINT')"
            f" then {from_text(column, text)} end"
        )
    if column.type in ("int", "bigint"):
        return f"case when {kind} = 'BIGINT' then try_cast({number} as {column.type}) end"
    if column.type == "timestamp" and (unit := epoch(column)):
        moment = from_epoch(number, unit)
        return f"case when {kind} = 'BIGINT' then {moment} when {kind} = 'STRING' then {from_text(column, text)} end"
    if column.precision_and_scale:
        numbers = f"{kind} in ('STRING', 'BIGINT') or {kind} like 'DECIMAL%'"
        if "exponent" in column.accepts:
            numbers += f" or {kind} = 'DOUBLE' and not _raw rlike '{_MORE_THAN_A_DOUBLE}'"
        if "decimal_comma" not in column.accepts:
            return f"case when {numbers} then {from_text(column, text)} end"
        of_json = replace(column, accepts=tuple(way for way in column.accepts if way != "decimal_comma"))
        as_text = f"when {kind} = 'STRING' then {from_text(column, text)}"  # a JSON number has its point
        return f"case {as_text} when {numbers} then {from_text(of_json, text)} end"
    return f"case when {kind} = 'STRING' then {from_text(column, text)} end"


def plain_text(column: Column, value: str, kind: str) -> str:
    """SQL of a JSON value's text. A whole number's is not asked for: it is not read, and each
    `variant_get` of a scalar costs 0.4 µs (measured 2026-11-29, Spark 4.1).
    """
    text = f"try_variant_get({value}, '$', 'string')"
    return f"case when {kind} = 'STRING' then {text} end" if column.type in ("int", "bigint") else text


def without_nul(text: str) -> str:
    """SQL of a text without NUL characters, which no warehouse takes."""
    return f"replace({text}, '\\0', '')"


def is_unavailable(text: str) -> str:
    """SQL of whether a text is the placeholder, in one of its spellings."""
    spellings = ", ".join(f"'{escaped(spelling)}'" for spelling in UNAVAILABLE_SPELLINGS)
    return f"{text} in ({spellings})"


def from_text(column: Column, text: str) -> str:
    """The typed value of a text, or NULL where it does not say exactly such a value."""
    if column.precision_and_scale:
        return _decimal(column, text)
    if column.type == "timestamp":
        zone = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)" + ("?" if "no_zone" in column.accepts else "")
        cases = f"{far_end(column, text)} when {text} rlike '{_TIME}{zone}$' then try_cast({text} as timestamp)"
        if unit := epoch(column):
            cases += f" when {text} rlike '^-?[0-9]+$' then {from_epoch(f'try_cast({text} as bigint)', unit)}"
        return f"case {cases} end"
    if column.type == "date":
        is_day = f"{text} rlike '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$'"
        return f"case {far_end(column, text)} when {is_day} then try_cast({text} as date) end"
    if column.type in ("int", "bigint"):
        return f"case when {text} rlike '^-?[0-9]+$' then try_cast({text} as {column.type}) end"
    if column.type == "boolean":
        return (
            f"case when lower({text}) in ('true', 't', 'yes', 'y', '1') then true"
            f" when lower({text}) in ('false', 'f', 'no', 'n', '0') then false end"
        )
    return text


def _decimal(column: Column, text: str) -> str:
    assert column.precision_and_scale is not None
    scale = column.precision_and_scale[1]
    point, group = (",", ".") if "decimal_comma" in column.accepts else (".", ",")

    def number(text: str, type_: str = column.type) -> str:
        with_point = text if point == "." else f"replace({text}, '{point}', '.')"
        return f"try_cast({with_point} as {type_})"

    # More digits after the point than the column keeps would be lost without a word.
    fraction = rf"([{point}][0-9]{{0,{scale}}}0*)?$"
    cases = f"when {text} rlike '^-?[0-9]+{fraction}' then {number(text)}"
    if "thousands" in column.accepts:
        grouped = rf"^-?[0-9]{{1,3}}([{group}][0-9]{{3}})+{fraction}"
        without_groups = f"replace({text}, '{group}', '')"
        cases += f" when {text} rlike '{grouped}' then {number(without_groups)}"
    if "exponent" in column.accepts:
        # Equal to the same number with all its digits: else the scale would cut it.
        exact = f"{number(text)} = {number(text, 'decimal(38,18)')}"
        cases += f" when {text} rlike '^-?[0-9]+([{point}][0-9]+)?[eE][+-]?[0-9]+$' and {exact} then {number(text)}"
    return f"case {cases} end"


def far_end(column: Column, text: str) -> str:
    """Cases of PostgreSQL's infinity as the last day and the first, where the contract takes it so."""
    if "infinity_as_9999" not in column.accepts:
        return ""
    moments = {_INFINITY: "9999-12-31", _MINUS_INFINITY: "0001-01-01"}
    return " ".join(f"when {text} rlike '{one}' then {column.type} '{day}'" for one, day in moments.items())


def taken_as_null(column: Column, text: str) -> str:
    """Whether a text is taken as NULL: NaN and infinity, which no decimal holds; an infinite time, by the contract."""
    if column.required:
        return "false"
    if column.precision_and_scale:
        return f"coalesce(lower({text}) in ({_NOT_NUMBERS}), false)"
    if "infinity_as_null" in column.accepts:
        return f"coalesce({text} rlike '{_INFINITY}' or {text} rlike '{_MINUS_INFINITY}', false)"
    return "false"


def normalised(column: Column, text: str, value: str, is_text: str = "true") -> list[tuple[str, str]]:
    """Changes of a value's writing when it is taken: their names, and SQL of the conditions.

    Args:
        column: What is wanted.
        text: SQL of the value's text.
        value: SQL of the typed value.
        is_text: SQL of whether it was delivered as a text: a JSON number has its point, whatever the contract accepts.
    """
    found = []
    if column.type == "boolean":
        found.append((LISTED_BOOLEAN, f"{value} is not null and lower({text}) not in ('true', 'false')"))
    if "thousands" in column.accepts:
        group = "." if "decimal_comma" in column.accepts else ","
        found.append((THOUSANDS, f"{is_text} and {value} is not null and contains({text}, '{group}')"))
    if "decimal_comma" in column.accepts:
        found.append((COMMA, f"{value} is not null and contains({text}, ',')"))
    if "exponent" in column.accepts:
        found.append((EXPONENT, f"{value} is not null and {text} rlike '[eE]'"))
    if "no_zone" in column.accepts:
        found.append((NO_ZONE, f"{value} is not null and {text} rlike '{_TIME}$'"))
    if column.precision_and_scale and not column.required:
        found.append((NOT_A_NUMBER, taken_as_null(column, text)))
    if "infinity_as_null" in column.accepts:
        found.append((INFINITE, taken_as_null(column, text)))
    if "infinity_as_9999" in column.accepts:
        found.append((INFINITE, f"{text} rlike '{_INFINITY}' or {text} rlike '{_MINUS_INFINITY}'"))
    if "epoch_ns" in column.accepts:
        found.append(
            (NANOSECONDS, f"{value} is not null and {text} rlike '^-?[0-9]+$' and not endswith({text}, '000')")
        )
    return found


def range_checks(column: Column, applies: str) -> list[Check]:
    """Days outside of what the contract takes."""
    return [
        Check(
            f"{applies} and cast(`{column.name}` as date) {sign} date '{day}'", Kind.RANGE, f"{word} {day}", column.name
        )
        for sign, word, day in (("<", "before", column.earliest), (">", "after", column.latest))
        if day is not None
    ]


def first_of(checks: list[Check]) -> str:
    """SQL of the first check that rejects the row: a struct of kind, reason and column, or NULL."""
    cases = ", ".join(
        f"case when {check.condition} then named_struct('kind', '{check.kind}', 'reason', '{escaped(check.reason)}',"
        f" 'column', {_text_or_null(check.column)}) end"
        for check in checks
    )
    return f"coalesce({cases})"


def epoch(column: Column) -> str | None:
    """The unit in which a number is a time, if the contract says one."""
    return next((unit for unit in _PER_SECOND if unit in column.accepts), None)


def from_epoch(number: str, unit: str) -> str:
    """The time that a number is, in a unit of `accepts`; what is finer than microseconds is cut, towards the past."""
    per_second = _PER_SECOND[unit]
    first, last = (moment * per_second // 1_000_000 for moment in (FIRST_MICROSECOND, LAST_MICROSECOND))
    if per_second <= 1_000_000:
        microseconds = f"{number} * {1_000_000 // per_second}"
        return f"case when {number} between {first} and {last} then timestamp_micros({microseconds}) end"
    finer = per_second // 1_000_000
    return f"timestamp_micros(({number} - pmod({number}, {finer})) div {finer})"


def _text_or_null(text: str | None) -> str:
    return "cast(null as string)" if text is None else f"'{text}'"
