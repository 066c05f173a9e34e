"""What a receiver will never take, whenever it is sent: kept with its reason, so that what comes after it is sent.

One file per receiver, `state/refused/<receiver>.jsonl`. Nothing sends it again, and `lakeops run` and `lakeops doctor`
tell of it until somebody has looked and deleted it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.config import Settings
from python_ops.files import append_lines


def keep(settings: Settings, receiver: str, reason: str, value: Any) -> Path:
    """Keeps a JSON value that `receiver` refuses for good; returns the file."""
    path = _folder(settings) / f"{receiver}.jsonl"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    append_lines(path, [json.dumps({"at": at, "reason": reason, "value": value}, ensure_ascii=False)])
    return path


def told(settings: Settings) -> list[str]:
    """A sentence for each receiver that has refused something."""
    found = []
    for path in sorted(_folder(settings).glob("*.jsonl")):
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        if lines and not path.name.endswith(".old.jsonl"):
            last = json.loads(lines[-1])
            found.append(
                f"{len(lines)} messages were refused for good, the last at {last['at']}: {last['reason']}. They are in "
                f"{path}; correct the cause, then delete it."
            )
    return found


def _folder(settings: Settings) -> Path:
    return settings.state / "refused"
