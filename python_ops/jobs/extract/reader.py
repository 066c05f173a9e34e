"""What the reader of every system does, and how the time and key of a row are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Protocol

from python_ops.jobs.extract.sources import Source
from python_ops.lake.errors import OpsError
from python_ops.lake.http import Client

Row = Mapping[str, Any]
"""A row's values by the contract's column names."""


class SourceLostError(OpsError):
    """A source did not answer, or went away while it was read. Worth trying again."""


class Reader(Protocol):
    """An open connection to one source.

    Attributes:
        in_order: Rows come in the order of (time, key), so that each file moves the watermark.
        tag: What the source calls the state that it gave (an ETag); set before `pages` to what was last seen.
    """

    in_order: bool
    tag: str

    def now(self) -> datetime:
        """The time by the source's own clock; this machine's may be wrong."""

    def warnings(self, now: datetime) -> list[str]:
        """Warnings about rows that no pull can deliver, such as rows without a time. Counts, never values."""

    def pages(self, since: datetime | None, until: datetime) -> Iterator[Sequence[Row]]:
        """Rows whose time is from `since` (None: the beginning) to `until`, both included, some thousand at a time."""


class HttpReader:
    """What readers over HTTP have in common: rows in no order, which ingestion checks one by one.

    Args:
        limit: Bytes of the largest answer that is taken.
        sleep: Waits between tries.
    """

    in_order = False

    def __init__(self, source: Source, limit: int, sleep: Callable[[float], None]) -> None:
        self.source, self.tag = source, ""
        self.client = Client(source.name, source.timeout_seconds, limit, sleep)

    def warnings(self, now: datetime) -> list[str]:
        return []

    def close(self) -> None:
        self.client.close()


def moment(value: Any) -> datetime | None:
    """A watermark column's value as a time in UTC, or None. A value without a zone is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None


def key_of(source: Source, row: Row) -> str:
    """A row's key as one text."""
    return "|".join(str(row.get(name)) for name in source.contract.key)
