"""What all databases have in common: one ordered query between two times, read in pages; errors by their codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

from python_ops.jobs.extract.reader import Row, SourceLostError, moment
from python_ops.jobs.extract.sources import Source
from python_ops.lake.errors import OpsError
from python_ops.lake.secrets import Secret

_FIRST = datetime(1, 1, 1, tzinfo=UTC)


class DatabaseReader(ABC):
    """A reader of one table or view, in the order of (watermark, key).

    The session is in UTC, so that a column without a zone and the bounds mean the same.
    """

    in_order = True
    system: ClassVar[str]
    clock: ClassVar[str]

    def __init__(self, source: Source, secret: Secret) -> None:
        self.source, self.tag = source, ""
        self.connect(secret)

    @abstractmethod
    def connect(self, secret: Secret) -> None:
        """Opens the connection. The driver's own exception is not caught."""

    @abstractmethod
    def one(self, sql: str) -> Sequence[Any]:
        """The first row of a query."""

    @abstractmethod
    def stream(self, sql: str) -> Iterator[Sequence[Sequence[Any]]]:
        """Pages of a query, one at a time."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    @classmethod
    @abstractmethod
    def is_refused(cls, error: Exception) -> bool:
        """Whether the credentials were refused."""

    @classmethod
    @abstractmethod
    def is_lost(cls, error: Exception) -> bool:
        """Whether the server did not answer or went away."""

    @classmethod
    @abstractmethod
    def told(cls, error: Exception) -> str:
        """An error's class and code; its text only if that cannot hold values of rows."""

    def quoted(self, name: str) -> str:
        """A column's name, quoted. sources.schema.json and contract.schema.json allow no quotes in names."""
        return f'"{name}"'

    def column(self, name: str) -> str:
        """The source's name of a contract's column, quoted."""
        return self.quoted(self.source.columns.get(name, name))

    @property
    def relation(self) -> str:
        """The table, quoted."""
        return ".".join(self.quoted(part) for part in self.source.relation.split("."))

    def now(self) -> datetime:
        with self.errors("the clock"):
            found = moment(self.one(self.clock)[0])
        assert found is not None
        return found

    def warnings(self, now: datetime) -> list[str]:
        at, first = self.column(self.source.watermark), _literal(_FIRST)
        with self.errors("rows without a time"):
            none, ahead = self.one(
                f"select sum(case when {at} is null or {at} < {first} then 1 else 0 end), "
                f"sum(case when {at} > {_literal(now)} then 1 else 0 end) from {self.relation} "
                f"where {at} is null or {at} < {first} or {at} > {_literal(now)}"
            )
        found = []
        if none:
            found.append(
                f"{int(none)} rows have no usable {self.source.watermark} and are never extracted: the source must "
                "set it"
            )
        if ahead:
            found.append(
                f"{int(ahead)} rows have their {self.source.watermark} after the source's clock; they land when it "
                "gets there"
            )
        return found

    def pages(self, since: datetime | None, until: datetime) -> Iterator[Sequence[Row]]:
        names = [column.name for column in self.source.contract.columns]
        with self.errors("the rows"):
            for page in self.stream(self.query(since, until)):
                yield [dict(zip(names, row, strict=True)) for row in page]

    def query(self, since: datetime | None, until: datetime) -> str:
        """The query of a pull. Rows of the time `since` are read again: others of that time may have come late."""
        at = self.column(self.source.watermark)
        listed = ", ".join(self.column(column.name) for column in self.source.contract.columns)
        order = ", ".join(dict.fromkeys([at, *(self.column(name) for name in self.source.contract.key)]))
        return (
            f"select {listed} from {self.relation} where {at} >= {_literal(since or _FIRST)} "
            f"and {at} <= {_literal(until)} order by {order}"
        )

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turns the driver's exceptions into ours."""
        try:
            yield
        except Exception as exc:  # drivers raise what they like when a server goes away
            kind = SourceLostError if self.is_lost(exc) else OpsError
            raise kind(
                f"{self.source.name}: {self.system} did not give {what} of {self.source.relation}: {self.told(exc)}."
            ) from exc


def _literal(at: datetime) -> str:
    return f"timestamp '{at.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ', timespec='microseconds')}'"
