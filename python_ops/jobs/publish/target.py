"""What publishing needs of a warehouse. A new one is a class with these three methods and a `Dialect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from python_ops.jobs.publish.fingerprint import ROWS, Field, Fingerprint
from python_ops.lake.artifacts import Model


@dataclass(frozen=True)
class Version:
    """A state of a Delta table.

    Attributes:
        table_id: Delta's identifier of the table: a table that was dropped and created again has another.
    """

    table_id: str
    number: int


@dataclass(frozen=True)
class Served:
    """What a warehouse's ledger says of a table.

    Attributes:
        published_at: ISO 8601, UTC.
        personal: What was done with personal columns; empty: nothing, or there are none.
    """

    version: Version
    rows: int
    published_at: str
    personal: str = ""


@dataclass(frozen=True)
class StagedTable:
    """A version of a table as parquet files, with what Spark counted while writing them.

    Attributes:
        folder: Folder of the parquet files.
        seconds: Time that staging took.
        personal: What was done with its personal columns; empty: nothing, or there are none.
    """

    model: Model
    version: Version
    fields: tuple[Field, ...]
    folder: Path
    fingerprint: Fingerprint
    seconds: float
    personal: str = ""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self.fingerprint[ROWS] or 0)

    @property
    def comments(self) -> list[tuple[str, str]]:
        """Columns that the model describes, each with its description."""
        present = {field.name.lower() for field in self.fields}
        return [(c.name, c.description) for c in self.model.columns if c.description and c.name.lower() in present]


@dataclass(frozen=True)
class Loaded:
    """What loading one table took.

    Attributes:
        sent: Rows that went to the warehouse: all of them, or those that differed.
    """

    seconds: float
    sent: int


class Warehouse(Protocol):
    """A warehouse that tables are published to."""

    def served(self) -> dict[str, Served]:
        """The ledger by `schema.table`; empty where nothing was ever published."""

    def prepare(self) -> None:
        """Makes sure that the warehouse can be written, before minutes are spent on staging."""

    def replace(self, tables: Sequence[StagedTable], ledger: Mapping[str, Served]) -> dict[str, Loaded]:
        """Loads, audits and serves the tables and writes the ledger, all in one transaction or not at all.

        Args:
            ledger: The ledger that the plan was made from. If the warehouse has another one, another run has published.

        Returns:
            What each table took, by `schema.table`.
        """
