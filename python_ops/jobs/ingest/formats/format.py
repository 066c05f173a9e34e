"""What the format of a contract means for the files and rows of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.jobs.ingest.formats.values import Check
from python_ops.lake.contracts import Column, Contract


class Format:
    """Plain rows: each is how the row of its key is now. Formats of changes say more and override what differs.

    Args:
        kinds: What the files may be: `lines`, `csv`, `parquet`, `avro`.
    """

    has_changes = False
    """Whether rows say what was done, and when; the others only say how a row is."""

    null_text: str | None = None
    """What a csv file writes for NULL, besides nothing."""

    metadata: Mapping[str, str] = {"op": "'u'"}
    """SQL of METADATA's columns, as `formats.rows.finish` takes it; the others are NULL."""

    carried: tuple[str, ...] = ()
    """Columns besides those of the table that `checks` and `metadata` read."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def name_fault(self, name: str) -> str | None:
        """Why the rows of a file cannot be ordered by its name; None when they can."""
        return None

    def is_full_load(self, name: str) -> bool:
        """Whether a file is part of a full load, which comes before every change of its generation."""
        return False

    def fields(self, contract: Contract) -> tuple[str, ...]:
        """Names of the fields that a row may have beside the table's columns."""
        return ()

    def has_header(self, first: Sequence[str], contract: Contract) -> bool:
        """Whether the first line of a csv file is a header."""
        return True

    def layout(self, first: Sequence[str], contract: Contract) -> tuple[tuple[str, ...], bool] | str | None:
        """Names of a csv file's fields, and whether its first line is a header, from that line; a fault as text.

        None where the first line is the header, and is to be checked as one.
        """
        return None

    def given(self, contract: Contract, value: Callable[[str], str], has: Callable[[str], str]) -> list[str]:
        """SQL of what a row gives beside the table's columns.

        Args:
            contract: The source's contract.
            value: Makes the SQL of a field's text.
            has: Makes the SQL of whether the row's file has a field.
        """
        return []

    def positions(self, contract: Contract) -> tuple[str, ...]:
        """SQL of `_op`, `_source_ts` and the place in the order, from what `given` gives, `_file` and `_line`."""
        return ()

    def checks(self) -> list[Check]:
        """What every row must have, besides what the contract asks for."""
        return []

    def read_as(self, contract: Contract) -> Contract:
        """The contract as its values are written here."""
        return contract

    def is_sent(self, contract: Contract, column: Column) -> str:
        """SQL of whether a row carries a value of the column, which is checked only then."""
        return "true"

    def as_sent(self, typed: Pipe, contract: Contract) -> Pipe:
        """Rows without values that they do not really carry."""
        return typed


class Debezium(Format):
    """Events of Debezium: envelopes.py reads them."""

    has_changes = True
