"""The ledger of one source: a manifest per batch, written before the batch is read and closed after its commit.

A manifest that is frozen and not closed is what an interrupted run left: the next run takes it up, with the same files
and the same number. Delivered files that came later make the next batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from python_ops.lake.errors import OpsError
from python_ops.lake.files import read_all, swap
from python_ops.lake.landing import LandingFile
from python_ops.lake.offsets import Offsets
from python_ops.lake.records import made
from python_ops.lake.rejections import Rejection, from_texts


class BatchState(StrEnum):
    """Where a batch stands.

    `lost`: committed once, and gone since the table was restored; its files are new again. `halted`: a threshold was
    crossed, nothing of it is visible, and the source waits for a decision. `released`: halted once, taken again under
    another number. `discarded`: halted once, and its files are never taken.
    """

    FROZEN = "frozen"
    COMMITTED = "committed"
    LOST = "lost"
    HALTED = "halted"
    RELEASED = "released"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Batch:
    """One batch of one source: landing files, or records of a Kafka topic.

    Attributes:
        counts: Records by outcome: read = accepted + quarantined + ignored. `generated` are deletes that a complete
            snapshot implies, which nobody delivered; `behind` are events before positions that were already taken.
        arrived_at: ISO 8601, UTC; the `_arrived_at` of its rows.
        generation: The `_source_generation` of its rows.
        snapshot_at: When the source was as these files say, if they are a complete snapshot; ISO 8601, UTC.
        approves: Halted batch that this one takes after all.
        replays: Dead letters that this batch takes again: the table's version, and batch numbers (all when empty).
        rejected: Rejected records by reason and column.
        changes: Accepted records by what was changed to take them.
        positions: Lowest and highest source position.
        origins: Schemas of the tables whose events it holds.
        halted_by: Why it is halted.
        judged_by: Fingerprint of the contract and generation that halted it. If it changes, the batch is judged again.
    """

    batch_id: int
    source: str
    contract_version: str
    arrived_at: str
    files: tuple[LandingFile, ...]
    state: BatchState = BatchState.FROZEN
    counts: dict[str, int] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()
    offsets: tuple[Offsets, ...] = ()
    generation: int = 1
    snapshot_at: str | None = None
    approves: int | None = None
    replays: dict[str, Any] | None = None
    rejected: tuple[Rejection, ...] = ()
    changes: dict[str, int] = field(default_factory=dict)
    positions: tuple[int, int] | None = None
    origins: tuple[str, ...] = ()
    halted_by: str | None = None
    judged_by: str | None = None

    @property
    def rows(self) -> int:
        """Rows of the batch in bronze."""
        return self.counts.get("accepted", 0) + self.counts.get("generated", 0)


class Ledger:
    """Manifests of one source under `folder`, oldest first."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder / source
        self.source = source
        self.manifests: list[Batch] = []
        self._tags: dict[int, str | None] = {}
        for path, content, tag in read_all(self.folder, "batch_*.json"):
            manifest = self._parsed(path, content)
            self.manifests.append(manifest)
            self._tags[manifest.batch_id] = tag

    @property
    def open_batch(self) -> Batch | None:
        """The batch that an interrupted run left."""
        return next((m for m in self.manifests if m.state is BatchState.FROZEN), None)

    @property
    def halted(self) -> Batch | None:
        """The batch that waits for a decision."""
        return next((m for m in self.manifests if m.state is BatchState.HALTED), None)

    @property
    def committed(self) -> list[Batch]:
        """Batches whose rows are in the tables."""
        return [m for m in self.manifests if m.state is BatchState.COMMITTED]

    @property
    def committed_rows(self) -> int:
        """Rows that bronze should have."""
        return sum(manifest.rows for manifest in self.committed)

    @property
    def last_number(self) -> int:
        """The highest number that was ever given; 0 at the beginning."""
        return max((m.batch_id for m in self.manifests), default=0)

    def taken(self) -> dict[str, LandingFile]:
        """Files of all batches that were not given up, by name."""
        given_up = (BatchState.LOST, BatchState.RELEASED)
        return {file.name: file for m in self.manifests if m.state not in given_up for file in m.files}

    def taken_offsets(self) -> tuple[Offsets, ...]:
        """Records of Kafka topics in the batches that were not given up."""
        done = (BatchState.COMMITTED, BatchState.HALTED, BatchState.DISCARDED)
        return tuple(given for m in self.manifests if m.state in done for given in m.offsets)

    def freeze(
        self,
        batch_id: int,
        contract_version: str,
        files: Sequence[LandingFile] = (),
        offsets: Sequence[Offsets] = (),
        **others: Any,
    ) -> Batch:
        """Writes the manifest of a new batch; `others` are further attributes of Manifest."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        given = {"files": tuple(files), "offsets": tuple(offsets), **others}
        return self.save(Batch(batch_id, self.source, contract_version, now, **given))

    def set_state(self, manifest: Batch, state: BatchState, **changes: Any) -> Batch:
        """Writes the manifest again with its new state."""
        return self.save(replace(manifest, state=state, **changes))

    def save(self, manifest: Batch) -> Batch:
        """Writes a manifest so that a crash leaves the old one or the new one.

        Raises:
            BusyError: the ledger is in a bucket, and another process has written this manifest since it was read.
        """
        path = self.folder / f"batch_{manifest.batch_id:06d}.json"
        content = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
        self._tags[manifest.batch_id] = swap(path, content, self._tags.get(manifest.batch_id))
        self.manifests = sorted(
            [m for m in self.manifests if m.batch_id != manifest.batch_id] + [manifest], key=lambda m: m.batch_id
        )
        return manifest

    def _parsed(self, path: Path, content: bytes) -> Batch:
        try:
            data = json.loads(content)
            if "reasons" in data:  # of before 2026-11-28
                data["rejected"] = from_texts(data.pop("reasons"))
            return made(Batch, data)
        except (ValueError, TypeError, AttributeError, RecursionError) as exc:
            raise OpsError(
                f"{path} is not a batch manifest ({exc}). Move it away: the next run rebuilds the ledger from bronze "
                "when all manifests of the source are gone."
            ) from exc
