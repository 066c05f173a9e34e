"""A fingerprint of a table: two engines compute the same one, each in its own SQL.

It is a set of named aggregates: row count; per column the count of values; per exact number the sum; per floating-point
number the extremes; and one hash over all other columns of all rows, independent of their order. Floating-point
numbers stay out of the hash, because engines write them as text differently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from python_ops.lake.errors import ConfigError

Fingerprint = Mapping[str, int | Decimal | float | None]

ROWS, HASH = "rows", "hash"


class ColumnKind(StrEnum):
    """Types that are fingerprinted in the same way."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    BOOLEAN = "boolean"
    BINARY = "binary"
    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMP_NTZ = "timestamp_ntz"


_KINDS = {
    "tinyint": ColumnKind.INTEGER,
    "smallint": ColumnKind.INTEGER,
    "int": ColumnKind.INTEGER,
    "bigint": ColumnKind.INTEGER,
    "float": ColumnKind.FLOAT,
    "double": ColumnKind.FLOAT,
    "string": ColumnKind.TEXT,
    "boolean": ColumnKind.BOOLEAN,
    "binary": ColumnKind.BINARY,
    "date": ColumnKind.DATE,
    "timestamp": ColumnKind.TIMESTAMP,
    "timestamp_ntz": ColumnKind.TIMESTAMP_NTZ,
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A column as Spark has it.

    Attributes:
        type: Spark's name of the type ("bigint", "decimal(38,10)").
    """

    name: str
    type: str

    @property
    def kind(self) -> ColumnKind:
        """How the column is fingerprinted.

        Raises:
            ConfigError: a nested type.
        """
        if self.type.startswith("decimal"):
            return ColumnKind.DECIMAL
        if self.type.startswith(("char", "varchar")):
            return ColumnKind.TEXT
        try:
            return _KINDS[self.type]
        except KeyError as exc:
            raise ConfigError(
                f"Column {self.name} is of type {self.type}, which is not published. "
                "Give the model scalar columns, or take it out of publish_to."
            ) from exc

    @property
    def scale(self) -> int:
        """Digits after the point."""
        return int(self.type.rstrip(")").split(",")[1]) if self.kind is ColumnKind.DECIMAL else 0


@dataclass(frozen=True)
class Dialect:
    """SQL of one engine.

    Attributes:
        quote: The character around identifiers.
        plain: The value `{}` as text that every engine writes alike; NULL for NULL.
        text: The same of kinds that need more than the cast: strings after their length in bytes, so that no two rows
            make one text.
        total: The exact sum of `{0}`, whose scale is `{1}`; NULL where the source's numbers end.
        hash: 32 bits of the MD5 of the text `{}` as a number; 2^31 of them sum up to a bigint.
        extreme: The floating-point number `{}` as a double, so that every driver hands over the same number.
        fold: How the engine itself writes a name that nobody quoted; names are quoted in that case, so that nobody
            has to quote them.
        concat: Whether CONCAT takes any number of texts; a chain of `||` copies the row once per column.
    """

    quote: str
    plain: str
    text: Mapping[ColumnKind, str]
    total: str
    hash: str
    extreme: str = "{}"
    fold: Literal["", "lower", "upper"] = ""
    concat: bool = True

    def name(self, identifier: str) -> str:
        """The identifier, quoted."""
        return self.quote + self.folded(identifier).replace(self.quote, self.quote * 2) + self.quote

    def folded(self, identifier: str) -> str:
        """The identifier in the engine's case."""
        return {"": identifier, "lower": identifier.lower(), "upper": identifier.upper()}[self.fold]

    def relation(self, schema: str, table: str) -> str:
        """A table's name, quoted."""
        return f"{self.name(schema)}.{self.name(table)}"

    def aggregates(self, fields: Sequence[Field]) -> dict[str, str]:
        """The fingerprint's parts as SQL aggregates."""
        parts = {ROWS: "count(*)"}
        for field in fields:
            column = self.name(field.name)
            parts[f"values of {field.name}"] = f"count({column})"
            if field.kind in (ColumnKind.INTEGER, ColumnKind.DECIMAL):
                parts[f"sum of {field.name}"] = self.total.format(column, field.scale)
            elif field.kind is ColumnKind.FLOAT:
                parts[f"least {field.name}"] = f"min({self.extreme.format(column)})"
                parts[f"greatest {field.name}"] = f"max({self.extreme.format(column)})"
        # Spark writes small decimals with an exponent; their sum tells a change.
        hashed = [field for field in fields if field.kind not in (ColumnKind.FLOAT, ColumnKind.DECIMAL)]
        if hashed:
            parts[HASH] = f"sum({self.hash.format(self._row(hashed))})"
        return parts

    def row_hash(self, fields: Sequence[Field]) -> str:
        """MD5 of a whole row, by which two engines find the rows that differ. Not for rows with floating-point numbers.

        If an engine writes a decimal differently, equal rows look different; different rows never look equal.
        """
        return f"md5({self._row(fields)})"

    def _row(self, fields: Sequence[Field]) -> str:
        """A row as one text, from which each value could be read again; `-` is NULL."""
        texts = [self.text.get(field.kind, self.plain).format(self.name(field.name)) for field in fields]
        values = [f"coalesce({text}, '-')" for text in texts]
        joined = ", '|', ".join(values)
        return f"concat({joined}, '')" if self.concat else _pairwise(values)


SPARK = Dialect(
    quote="`",
    plain="cast({} as string)",
    text={
        ColumnKind.TEXT: "cast(octet_length({0}) as string) || ':' || {0}",
        ColumnKind.BINARY: "hex({})",
        ColumnKind.DATE: "cast(unix_date({}) as string)",
        ColumnKind.TIMESTAMP: "cast(unix_micros({}) as string)",
        ColumnKind.TIMESTAMP_NTZ: "cast(unix_micros(cast({} as timestamp)) as string)",
    },
    total="try_sum({})",
    hash="cast(conv(substr(md5({}), 1, 8), 16, 10) as bigint)",
)

DUCKDB = Dialect(
    quote='"',
    plain="cast({} as string)",
    text={
        ColumnKind.TEXT: "cast(strlen({0}) as string) || ':' || {0}",
        ColumnKind.BINARY: "hex({})",
        ColumnKind.DATE: "cast({} - date '1970-01-01' as string)",
        ColumnKind.TIMESTAMP: "cast(epoch_us({}) as string)",
        ColumnKind.TIMESTAMP_NTZ: "cast(epoch_us({}) as string)",
    },
    total="sum({})",
    hash="cast(concat('0x', substr(md5({}), 1, 8)) as ubigint)",
)


def _pairwise(values: Sequence[str]) -> str:
    """Texts joined by `||`, halves first."""
    if len(values) == 1:
        return values[0]
    middle = len(values) // 2
    return f"({_pairwise(values[:middle])} || '|' || {_pairwise(values[middle:])})"


_TWO_VALUED = "case when {0} then 'true' when not {0} then 'false' end"
# In two parts, because a double does not hold the microseconds of year 9999.
_MICROS = (
    "cast(cast(date_part('epoch', date_trunc('minute', {0})) as bigint) * 1000000 "
    "+ cast(date_part('microseconds', {0}) as bigint) as varchar)"
)
# Redshift's microseconds are those after the second, and its epoch has no fraction.
_REDSHIFT_MICROS = (
    "cast(cast(extract(epoch from date_trunc('second', {0})) as bigint) * 1000000 "
    "+ cast(to_char({0}, 'US') as integer) as varchar)"
)

POSTGRES = Dialect(
    quote='"',
    plain="cast({} as varchar)",
    text={
        ColumnKind.TEXT: "cast(octet_length({0}) as varchar) || ':' || {0}",
        ColumnKind.BOOLEAN: _TWO_VALUED,
        ColumnKind.BINARY: "upper(encode({}, 'hex'))",
        ColumnKind.DATE: "cast({} - date '1970-01-01' as varchar)",
        ColumnKind.TIMESTAMP: _MICROS,
        ColumnKind.TIMESTAMP_NTZ: _MICROS,
    },
    total="sum({})",
    hash="cast(cast('x' || substr(md5({}), 1, 8) as bit(32)) as bigint)",
    extreme="cast({} as double precision)",
    fold="lower",
    concat=False,  # of at most 100
)

REDSHIFT = replace(
    POSTGRES,
    text={**POSTGRES.text, ColumnKind.TIMESTAMP: _REDSHIFT_MICROS, ColumnKind.TIMESTAMP_NTZ: _REDSHIFT_MICROS},
    hash="strtol(substring(md5({}), 1, 8), 16)",
)

# Snowflake reads hexadecimal numbers with TO_NUMBER(…, 'XXXXXXXX'). This says the same, and runs in its stand-in too.
_DIGITS = " + ".join(
    f"(charindex(substr(md5({{0}}), {place}, 1), '0123456789abcdef') - 1) * {16 ** (8 - place)}"
    for place in range(1, 9)
)

SNOWFLAKE = Dialect(
    quote='"',
    plain="cast({} as varchar)",
    text={
        ColumnKind.TEXT: "cast(cast(length(hex_encode({0})) / 2 as integer) as varchar) || ':' || {0}",
        ColumnKind.BOOLEAN: _TWO_VALUED,
        ColumnKind.BINARY: "hex_encode({})",
        ColumnKind.DATE: "cast(datediff('day', cast('1970-01-01' as date), {}) as varchar)",
        ColumnKind.TIMESTAMP: "cast(date_part('epoch_microsecond', {}) as varchar)",
        ColumnKind.TIMESTAMP_NTZ: "cast(date_part('epoch_microsecond', {}) as varchar)",
    },
    total="sum(cast({0} as number(38, {1})))",
    hash=f"cast({_DIGITS} as number(38, 0))",
    fold="upper",
)


def differences(source: Fingerprint, copy: Fingerprint) -> list[str]:
    """Names of the parts whose value differs between source and copy.

    Only names, because sums and extremes may show personal data. A part for which the source has no value (an aggregate
    of no values, or a sum too large for it) is not compared.
    """
    return [part for part, value in source.items() if value is not None and not _same(value, copy.get(part))]


def _same(one: int | Decimal | float, other: int | Decimal | float | None) -> bool:
    if isinstance(one, float) and isinstance(other, float):  # a driver may round the last digits of a double
        return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return one == other
