"""Generations of a source: a new one begins when the source starts its positions anew.

A new replication slot, a restored or migrated database or a repeated full load is a new generation.
`_source_generation` comes first in every order of changes, so what comes from it is later than everything before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from python_ops.lake.ledger import Ledger


@dataclass(frozen=True)
class Generation:
    """A source's generation.

    Attributes:
        number: From 1.
        declared_at: ISO 8601, UTC; None for the first.
    """

    source: str
    number: int = 1
    declared_at: str | None = None


def current(lake: Lake, ledger: Ledger) -> Generation:
    """The generation of files that are taken from now on: the one declared, and never one before those in bronze."""
    record = lake.store.get("generation", ledger.source)
    taken = max((manifest.generation for manifest in ledger.committed), default=1)
    if record is None or int(record.value["number"]) < taken:
        return Generation(ledger.source, taken)
    return Generation(ledger.source, int(record.value["number"]), record.value["declared_at"])


def declare(lake: Lake, ledger: Ledger) -> Generation:
    """Begins a new generation: files that are taken from now on belong to it.

    Raises:
        BusyError: another process declared one meanwhile.
    """
    store = lake.store
    record = store.get("generation", ledger.source)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = Generation(ledger.source, current(lake, ledger).number + 1, now)
    value = {"number": new.number, "declared_at": now}
    store.put("generation", ledger.source, value, record.revision if record else 0)
    return new
