"""A fingerprint of a table that two engines compute alike, each in its own SQL.

It is a set of named aggregates: row count; per column the count of values; per exact number the sum; per floating-point
number the extremes; and one hash over all other columns of all rows, independent of their order. Floating-point
numbers stay out of the hash, because engines write them as text differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from python_ops.errors import ConfigError

Fingerprint = Mapping[str, int | Decimal | float | None]

ROWS, HASH = "rows", "hash"


class Kind(StrEnum):
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
    "tinyint": Kind.INTEGER, "smallint": Kind.INTEGER, "int": Kind.INTEGER, "bigint": Kind.INTEGER,
    "float": Kind.FLOAT, "double": Kind.FLOAT, "string": Kind.TEXT, "boolean": Kind.BOOLEAN, "binary": Kind.BINARY,
    "date": Kind.DATE, "timestamp": Kind.TIMESTAMP, "timestamp_ntz": Kind.TIMESTAMP_NTZ,
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
    def kind(self) -> Kind:
        """How it is fingerprinted.

        Raises:
            ConfigError: a nested type.
        """
        if self.type.startswith("decimal"):
            return Kind.DECIMAL
        if self.type.startswith(("char", "varchar")):
            return Kind.TEXT
        try:
            return _KINDS[self.type]
        except KeyError as exc:
            raise ConfigError(
                f"Column {self.name} is of type {self.type}, which is not published. "
                "Give the model scalar columns, or take it out of publish_to."
            ) from exc


@dataclass(frozen=True)
class Dialect:
    """SQL of one engine.

    Attributes:
        quote: The character around identifiers.
        text: Per kind, the value `{0}` as text that every engine writes alike: strings after their length in bytes,
            so that no two rows make one text; NULL for NULL.
        total: The exact sum of `{}`; NULL where the source's numbers end.
        hash: 32 bits of the MD5 of the text `{}` as a number; 2^31 of them sum up to a bigint.
    """

    quote: str
    text: Mapping[Kind, str]
    total: str
    hash: str

    def name(self, identifier: str) -> str:
        """The identifier, quoted."""
        return self.quote + identifier.replace(self.quote, self.quote * 2) + self.quote

    def aggregates(self, fields: Sequence[Field]) -> dict[str, str]:
        """The fingerprint's parts as SQL aggregates."""
        parts = {ROWS: "count(*)"}
        for field in fields:
            column = self.name(field.name)
            parts[f"values of {field.name}"] = f"count({column})"
            if field.kind in (Kind.INTEGER, Kind.DECIMAL):
                parts[f"sum of {field.name}"] = self.total.format(column)
            elif field.kind is Kind.FLOAT:
                parts[f"least {field.name}"] = f"min({column})"
                parts[f"greatest {field.name}"] = f"max({column})"
        # Spark writes small decimals with an exponent; their sum tells a change.
        hashed = [field for field in fields if field.kind not in (Kind.FLOAT, Kind.DECIMAL)]
        if hashed:
            parts[HASH] = f"sum({self.hash.format(self._row(hashed))})"
        return parts

    def _row(self, fields: Sequence[Field]) -> str:
        """A row as one text from which each value could be told again; `-` is NULL."""
        texts = [self.text[field.kind].format(self.name(field.name)) for field in fields]
        values = ", '|', ".join(f"coalesce({text}, '-')" for text in texts)
        return f"concat({values}, '')"


_PLAIN = "cast({} as string)"

SPARK = Dialect(
    quote="`",
    text={
        Kind.INTEGER: _PLAIN,
        Kind.DECIMAL: _PLAIN,
        Kind.TEXT: "cast(octet_length({0}) as string) || ':' || {0}",
        Kind.BOOLEAN: _PLAIN,
        Kind.BINARY: "hex({})",
        Kind.DATE: "cast(unix_date({}) as string)",
        Kind.TIMESTAMP: "cast(unix_micros({}) as string)",
        Kind.TIMESTAMP_NTZ: "cast(unix_micros(cast({} as timestamp)) as string)",
    },
    total="try_sum({})",
    hash="cast(conv(substr(md5({}), 1, 8), 16, 10) as bigint)",
)

DUCKDB = Dialect(
    quote='"',
    text={
        Kind.INTEGER: _PLAIN,
        Kind.DECIMAL: _PLAIN,
        Kind.TEXT: "cast(strlen({0}) as string) || ':' || {0}",
        Kind.BOOLEAN: _PLAIN,
        Kind.BINARY: "hex({})",
        Kind.DATE: "cast({} - date '1970-01-01' as string)",
        Kind.TIMESTAMP: "cast(epoch_us({}) as string)",
        Kind.TIMESTAMP_NTZ: "cast(epoch_us({}) as string)",
    },
    total="sum({})",
    hash="cast(concat('0x', substr(md5({}), 1, 8)) as ubigint)",
)


def differences(source: Fingerprint, copy: Fingerprint) -> list[str]:
    """Parts that the source has a value for and the copy another.

    Names only: sums and extremes may tell personal data. A part without a value is an aggregate of no values, or a sum
    too large for the source.
    """
    return [part for part, value in source.items() if value is not None and not _same(value, copy.get(part))]


def _same(one: int | Decimal | float, other: int | Decimal | float | None) -> bool:
    return one == other or (one != one and other is not None and other != other)  # NaN is NaN here
