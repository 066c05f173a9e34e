"""Messages that a receiver refuses for good: kept with the reason, so that later ones can be sent.

One file per receiver, `state/refused/<receiver>.jsonl`. Nothing sends it again, and `lakeops run` and `lakeops doctor`
tell of it until somebody has looked and deleted it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.lake.files import append_lines
from python_ops.lake.lake import Lake


def keep(lake: Lake, receiver: str, reason: str, value: Any) -> Path:
    """Keeps a JSON value that `receiver` refuses for good; returns the file."""
    path = _folder(lake) / f"{receiver}.jsonl"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    append_lines(path, [json.dumps({"at": at, "reason": reason, "value": value}, ensure_ascii=False)])
    return path


def told(lake: Lake) -> list[str]:
    """A sentence for each receiver that has refused something."""
    found = []
    for path in sorted(_folder(lake).glob("*.jsonl")):
        if path.name.endswith(".old.jsonl"):
            continue
        kept = []
        for line in path.read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError):  # the line of a process that was killed
                kept.append(json.loads(line))
        if kept:
            found.append(
                f"{len(kept)} messages were refused for good, the last at {kept[-1]['at']}: {kept[-1]['reason']}. They "
                f"are in {path}; correct the cause, then delete it."
            )
    return found


def _folder(lake: Lake) -> Path:
    return lake.state / "refused"
