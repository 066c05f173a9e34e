"""Verdicts as they are kept with the run's state: one small file per batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.records import made


@dataclass(frozen=True)
class Finding:
    """One expectation that does not hold: what was expected, and the count or share that was found, never a value."""

    expected: str
    found: str


@dataclass(frozen=True)
class Verdict:
    """How a batch was judged.

    Attributes:
        engine: `pandas` or `spark`; `none` for a batch without rows, of which nothing can be said.
        rows: Accepted rows of the batch.
        expectations: How many were judged.
        findings: Those that do not hold.
        not_judged: What could not be judged yet, and why.
        at: ISO 8601, UTC.
        page: Data Docs page of the batch; its index lists all.
    """

    source: str
    batch_id: int
    contract_version: str
    engine: str
    rows: int
    expectations: int
    findings: tuple[Finding, ...]
    not_judged: tuple[str, ...]
    seconds: float
    at: str
    page: str | None = None

    @property
    def good(self) -> bool:
        """Whether everything that could be judged holds."""
        return not self.findings


def read(lake: Lake, source: str, batch: int) -> Verdict | None:
    """The kept verdict on a batch; None if it was not judged or its file cannot be read (judging again renews it)."""
    try:
        return made(Verdict, json.loads(_path(lake, source, batch).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def read_all(lake: Lake) -> Iterator[Verdict]:
    """Every kept verdict."""
    for source in lake.contracts.sources:
        for path in sorted(_path(lake, source, 0).parent.glob("batch_*.json")):
            if found := read(lake, source, int(path.stem.removeprefix("batch_"))):
                yield found


def save(lake: Lake, verdict: Verdict) -> Verdict:
    """Keeps a verdict, whole or not at all."""
    path = _path(lake, verdict.source, verdict.batch_id)
    write_whole(path, json.dumps(asdict(verdict), indent=1, ensure_ascii=False))
    return verdict


def _path(lake: Lake, source: str, batch: int) -> Path:
    return lake.state / "quality" / source / f"batch_{batch:06d}.json"
