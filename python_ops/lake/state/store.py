"""What a store of records must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from python_ops.lake.errors import BusyError


@dataclass(frozen=True)
class Record:
    """A record as it was read.

    Attributes:
        revision: Grows by one with every write; 0 where there is no record.
    """

    value: Mapping[str, Any]
    revision: int


def rival(what: str) -> BusyError:
    """The error of a writer that was not the first."""
    return BusyError(f"{what} was changed by another process meanwhile. Nothing was written; run again.")


class Store(Protocol):
    """Records by kind (`watermark`, `generation`, `lease`) and name.

    Attributes:
        place: Tells stores apart: a folder, or a table and the prefix of the names in it.
    """

    place: str

    def get(self, kind: str, name: str) -> Record | None:
        """A record, or None."""

    def names(self, kind: str) -> list[str]:
        """Names of all records of a kind, sorted."""

    def put(
        self, kind: str, name: str, value: Mapping[str, Any], revision: int, expires_at: int | None = None
    ) -> Record:
        """Replaces a record that still has `revision` (0: that is not there).

        Args:
            value: JSON values.
            revision: The revision that the writer read.
            expires_at: Unix seconds after which a store may drop the record.

        Raises:
            BusyError: another writer was first.
        """

    def delete(self, kind: str, name: str, revision: int) -> None:
        """Removes a record that still has `revision`.

        Raises:
            BusyError: another writer was first.
        """
