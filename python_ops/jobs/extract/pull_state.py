"""What extraction remembers of one source beside its watermark, under `state/extract/<source>/`.

- `pull_<n>.json`: the manifest of a landing file, written when the file is complete and before the watermark moves.
- `seen.bin`: hashes of the rows in the overlap, so that what is read again does not land again. It counts only for the
  watermark that it was written with: moved by hand, or lost, everything in the overlap lands once more, and the
  engine drops the duplicates.
- `last.json`: what the last run saw, for status and metrics.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from python_ops.jobs.extract.files import File
from python_ops.lake.errors import OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.records import made
from python_ops.lake.state.watermarks import Watermark

SEEN_ROWS = 500_000  # 8 MB in the file, about 60 MB in memory; beyond it the overlap lands again


@dataclass(frozen=True)
class PullRecord:
    """A landing file, and the watermark up to which it reaches.

    Attributes:
        since: The watermark before; None for the first pull.
        to: The watermark after.
        revision: Of the watermark's record before.
        until: Upper bound of the pull, by the source's clock.
        done: The watermark is saved.
    """

    number: int
    source: str
    file: File
    to: Watermark
    since: Watermark | None
    revision: int
    until: str
    contract_version: str
    done: bool = False


@dataclass
class Seen:
    """Rows that are in landing files already: hash of the key to hash of the row.

    Attributes:
        mark: The watermark that it belongs to.
        tag: What the source called its state.
    """

    mark: Watermark | None = None
    tag: str = ""
    rows: dict[int, int] = field(default_factory=dict)


class PullState:
    """Files of one source under `folder`."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder, self.source = folder / source, source

    def manifests(self) -> list[Path]:
        """Manifest files, oldest first."""
        return sorted(self.folder.glob("pull_*.json"))

    def last_manifest(self) -> PullRecord | None:
        """The newest manifest.

        Raises:
            OpsError: it cannot be read as one.
        """
        found = self.manifests()
        if not found:
            return None
        path = found[-1]
        try:
            return made(PullRecord, json.loads(path.read_text(encoding="utf-8")))
        except ValueError as exc:
            raise OpsError(
                f"{path} is not the manifest of a landing file ({type(exc).__name__}). Move it away: the source is "
                "then read again from its watermark."
            ) from exc

    def save(self, manifest: PullRecord) -> PullRecord:
        """Writes a manifest so that a crash leaves the old one or the new one."""
        text = json.dumps(asdict(manifest), indent=1)
        write_whole(self.folder / f"pull_{manifest.number:06d}.json", text.encode())
        return manifest

    def close(self, manifest: PullRecord) -> PullRecord:
        """Notes that the manifest's watermark is saved."""
        return self.save(replace(manifest, done=True))

    def seen(self, mark: Watermark | None) -> Seen:
        """Rows that have landed; none if they were kept for another watermark."""
        try:
            head, _, body = (self.folder / "seen.bin").read_bytes().partition(b"\n")
            given = json.loads(head)
            pairs = array("Q")
            pairs.frombytes(body)
            if mark is None or Watermark(**given["mark"]) != mark or given["order"] != sys.byteorder:
                return Seen()
            return Seen(mark, given["tag"], dict(zip(pairs[::2], pairs[1::2], strict=True)))
        except (OSError, ValueError, KeyError, TypeError):
            return Seen()

    def remember(self, seen: Seen) -> None:
        """Replaces what was seen."""
        if seen.mark is None:
            return
        head = json.dumps({"mark": asdict(seen.mark), "tag": seen.tag, "order": sys.byteorder})
        pairs = array("Q", (number for pair in seen.rows.items() for number in pair))
        write_whole(self.folder / "seen.bin", head.encode() + b"\n" + pairs.tobytes())

    def forget(self) -> None:
        """Drops what was seen: somebody was erased, and a hash without a key can be guessed. The overlap lands anew."""
        (self.folder / "seen.bin").unlink(missing_ok=True)

    def last(self) -> Mapping[str, Any]:
        """What the last run saw; empty before the first."""
        try:
            found = json.loads((self.folder / "last.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def figures(self, now: datetime) -> dict[str, float]:
        """What metrics keep of the last run; empty before the first."""
        last = self.last()
        if not last:
            return {}
        found = {
            "rows_extracted": float(last["rows"]),
            "bytes_extracted": float(last["bytes"]),
            "extract_failed": float(last["error"] is not None),
        }
        if last["at"]:
            found["extract_lag_seconds"] = (now - datetime.fromisoformat(last["at"])).total_seconds()
        return found

    def note(self, values: Mapping[str, Any]) -> None:
        """Keeps what a run saw."""
        write_whole(self.folder / "last.json", json.dumps(dict(values), indent=1))
