"""Text in SQL."""

from __future__ import annotations


def literal(value: str) -> str:
    """A string literal of standard SQL: only quotes are escaped, by doubling."""
    return "'" + value.replace("'", "''") + "'"


def escaped(text: str) -> str:
    """Text as it stands between the quotes of one of Spark's string literals."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
