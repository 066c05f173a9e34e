"""How Debezium writes values in JSON, by its settings `decimal.handling.mode`, `time.precision.mode` and
`binary.handling.mode`: the contract says it, or the schema that the record carries.

Source: Debezium's page of each connector, "Data type mappings"; Kafka Connect's `Decimal`, whose bytes are the unscaled
number in two's complement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from python_ops.jobs.ingest.formats.values import (
    FIRST_DAY,
    LAST_DAY,
    epoch,
    far_end,
    from_epoch,
    from_text,
    from_variant,
    is_unavailable,
    plain_text,
    without_nul,
)
from python_ops.lake.contracts import MAX_PRECISION, Column
from python_ops.lake.contracts.events import DECIMAL, TIME_UNITS
from python_ops.lake.sql import escaped

_DIGITS, _INVERTED = "0123456789ABCDEF", "FEDCBA9876543210"


@dataclass(frozen=True)
class Encoding:
    """SQL of a column's text and value in an event.

    Args:
        has_schemas: `_types`, the semantic type and scale of each column, is there; it is NULL for a record without.
    """

    has_schemas: bool

    def text(self, column: Column, value: str, kind: str) -> str:
        """What the value says, as a text: a decimal's digits, however they are written."""
        text = plain_text(column, value, kind)
        if column.precision_and_scale is None:
            return text
        precision, scale = column.precision_and_scale
        cases = ""
        if is_base64 := self.is_base64(column):
            of_schema = f"coalesce({self._type(column)}.scale, {scale})" if self.has_schemas else str(scale)
            cases += f" when {kind} = 'STRING' and {is_base64} then {_unscaled(text, of_schema)}"
        if cases or precision == MAX_PRECISION:
            number, of_value = (
                f"try_variant_get({value}, '$.value', 'string')",
                f"try_variant_get({value}, '$.scale', 'int')",
            )
            cases += f" when {kind} like 'OBJECT<%' then {_unscaled(number, of_value)}"
        return f"case{cases} else {text} end" if cases else text

    def is_base64(self, column: Column) -> str:
        """Whether a text of the column is base64 of a decimal: as the schema says, else as the contract does."""
        says = "true" if "precise" in column.accepts else ""
        if not self.has_schemas:
            return says
        return f"coalesce({self._type(column)}.name = '{DECIMAL}', {says or 'false'})"

    def value(self, column: Column, value: str, kind: str, text: str) -> str:
        """The typed value, or NULL where it is of another kind or does not fit. `text` is what `text` gave."""
        number = f"try_variant_get({value}, '$', 'bigint')"
        if column.precision_and_scale:
            # A JSON number and one made of unscaled bytes have their point, whatever the contract accepts of texts.
            ways = (way for way in column.accepts if way not in ("decimal_comma", "thousands"))
            exact = replace(column, accepts=(*ways, "exponent"))
            is_number = f"{kind} in ('BIGINT', 'DOUBLE') or {kind} like 'DECIMAL%' or {kind} like 'OBJECT<%'"
            if is_base64 := self.is_base64(column):
                is_number += f" or {kind} = 'STRING' and {is_base64}"
            return (
                f"case when {is_number} then {from_text(exact, text)}"
                f" when {kind} = 'STRING' then {from_text(column, text)} end"
            )
        if column.type == "date":
            in_range = f"{number} between {FIRST_DAY} and {LAST_DAY}"
            without_zone = f"rtrim('Z', {text})"
            return (
                f"case {far_end(column, text)} when {kind} = 'BIGINT' and {in_range}"
                f" then date_from_unix_date(cast({number} as int))"
                f" when {kind} = 'STRING' then {from_text(column, without_zone)} end"
            )
        if column.type == "timestamp":
            moment = self._moment(column, number)
            return (
                f"case {far_end(column, text)} when {kind} = 'BIGINT' then {moment}"
                f" when {kind} = 'STRING' then {from_text(column, text)} end"
            )
        if column.type == "string":
            taken = f"{kind} = 'STRING' and not {is_unavailable(text)}"
            return f"case when {taken} then {_bytes_text(column, text)} end"
        return from_variant(column, value, kind, text)

    def _moment(self, column: Column, number: str) -> str:
        """The time that a number is; NULL where nothing says its unit."""
        said = epoch(column)
        moment = from_epoch(number, said) if said else "cast(null as timestamp)"
        if not self.has_schemas:
            return moment
        cases = " ".join(f"when '{name}' then {from_epoch(number, unit)}" for name, unit in TIME_UNITS.items())
        return f"case {self._type(column)}.name {cases} else {moment} end"

    def _type(self, column: Column) -> str:
        return f"try_element_at(_types, '{escaped(column.given_name)}')"


TYPES = """array<struct<field: string, name: string, parameters: map<string, string>,
    fields: array<struct<field: string, name: string, parameters: map<string, string>>>>>"""
"""The part of Kafka Connect's schema of a record that is read: its fields, and theirs in an envelope."""


def types(fields: str) -> str:
    """SQL of `_types` from the fields of a record's schema: those of an envelope's `after`, or of a row itself."""
    of_row = f"transform({fields}, f -> struct(f.field, f.name, f.parameters))"
    row = f"coalesce(try_element_at(filter({fields}, f -> f.field = 'after'), 1).fields, {of_row})"
    return (
        f"map_from_entries(transform({row}, f -> struct(f.field, named_struct('name', f.name,"
        " 'scale', try_cast(f.parameters['scale'] as int)))))"
    )


def _unscaled(text: str, scale: str) -> str:
    """Digits of a number whose unscaled bytes are base64. More than 16 bytes are no decimal of 38 digits: NULL."""
    hexed = f"nullif(hex(try_to_binary({text}, 'base64')), '')"
    # `~x` of a negative number is one less than its size. Three parts, because a bigint has 64 bits.
    steps = f"""
        transform(array({hexed}), h -> named_struct('negative', h rlike '^[89A-F]', 'digits', lpad(
            case when h rlike '^[89A-F]' then translate(h, '{_DIGITS}', '{_INVERTED}') else h end, greatest(32, length(h)), '0')))
    """  # noqa: E501
    size = (
        "try_add(try_add("
        f"try_multiply({_part('n.digits', 1, 8)}, cast('{2**96}' as decimal(38,0))),"
        f" try_multiply({_part('n.digits', 9, 12)}, cast('{2**48}' as decimal(38,0)))),"
        f" {_part('n.digits', 21, 12)} + case when n.negative then 1 else 0 end)"
    )
    numbers = f"""
        transform({steps.strip()}, n -> case when length(n.digits) = 32 then named_struct(
            'sign', case when n.negative then '-' else '' end, 'digits', cast({size} as string)) end)
    """
    padded = f"repeat('0', {scale} + 1 - length(n.digits)) || n.digits || repeat('0', -({scale}))"
    written = f"""
        transform({numbers.strip()}, n -> n.sign || case when {scale} > 0
            then left({padded}, length({padded}) - {scale}) || '.' || right({padded}, {scale}) else {padded} end)[0]
    """
    return " ".join(written.split())


def _part(digits: str, start: int, length: int) -> str:
    return f"cast(conv(substr({digits}, {start}, {length}), 16, 10) as decimal(20,0))"


def _bytes_text(column: Column, text: str) -> str:
    """A text, without NUL characters; bytes as base64, as Debezium writes them by default."""
    if "hex" in column.accepts:
        return f"case when {text} rlike '^([0-9A-Fa-f]{{2}})*$' then base64(unhex({text})) end"
    if "base64_url" in column.accepts:
        return f"translate({text}, '-_', '+/')"
    return without_nul(text)
