"""Text in SQL."""

from __future__ import annotations


def escaped(text: str) -> str:
    """Text as it stands between the quotes of one of Spark's string literals."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
