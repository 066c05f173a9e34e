"""What an ingest run did to one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from python_ops.lake.errors import OpsError


@dataclass(frozen=True)
class IngestResult:
    """What happened to one source.

    Attributes:
        batch_id: Number of the batch, of the last where a complete snapshot made several; None when there was nothing
            new, or the source failed.
        read: Records; read = accepted + quarantined + ignored. Ignored are tombstones, headers and blank lines.
        generated: Deletes that a complete snapshot implies.
        rejected_files: Files that went to the dead-letter queue as a whole, with the reason.
        extra_columns: Delivered columns that the contract lacks; their values are in `_extra`.
        changes: Accepted records by what was changed to take them.
        warnings: What an operator should look at.
        error: Why the source failed or is halted; its files stay where they are.
        halted: Number of the batch that waits for a decision.
        seconds: How long it took; 0 where nothing was new.
    """

    source: str
    batch_id: int | None = None
    files: int = 0
    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    ignored: int = 0
    generated: int = 0
    rejected_files: dict[str, str] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()
    changes: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: OpsError | None = None
    halted: int | None = None
    seconds: float = 0.0


def together(results: Sequence[IngestResult]) -> IngestResult:
    """Batches of one source as one result."""
    first, *others = results
    for other in others:
        summed = {
            name: getattr(first, name) + getattr(other, name)
            for name in ("files", "read", "accepted", "quarantined", "ignored", "generated", "warnings")
        }
        first = replace(
            first,
            **summed,
            batch_id=other.batch_id or first.batch_id,
            rejected_files=first.rejected_files | other.rejected_files,
            extra_columns=tuple(sorted({*first.extra_columns, *other.extra_columns})),
            changes={
                name: first.changes.get(name, 0) + other.changes.get(name, 0)
                for name in {**first.changes, **other.changes}
            },
            error=other.error or first.error,
            halted=other.halted or first.halted,
        )
    return first
