"""Where events go: a file, or an HTTP receiver such as Marquez.

What that does not take now is sent next time, in order; an event that it refuses for good is put aside
(`python_ops.lake.refused`), and the others go on.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.lake import refused
from python_ops.lake.errors import OpsError
from python_ops.lake.files import append_lines, before, write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.secrets import mask

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

_BUDGET_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
_REFUSED = (400, 413, 422)  # of this event, whenever it comes; every other status may be another one tomorrow


class Sink:
    """Takes the events of one command. Safe for threads. A failure here never fails a run.

    Args:
        lake: The environment: `lineage` is `file` or `http`, `lineage_url` the receiver's base address.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.folder = lake.state / "lineage"
        self.url = (
            f"{lake.settings.lineage_url.rstrip('/')}/api/v1/lineage" if lake.settings.lineage == "http" else None
        )
        self.is_addressed = bool(lake.settings.lineage_url)
        self.lock = threading.Lock()
        self.spent = 0.0
        self.is_down = False

    def send(self, event: RunEvent) -> None:
        """Appends an event to the file, or posts it. `waiting` tells what was not taken."""
        from openlineage.client.serde import Serde

        line = Serde.to_json(event)
        with (
            self.lock,
            suppress(OSError, OpsError),
        ):  # a full disk or a bucket fails the run's own writes, with a message
            if self.url is None:
                append_lines(self.folder / "events.jsonl", [line])
            elif self.is_down or not self._drain() or not self._post(line):
                self.is_down = True  # until the command ends: a receiver that hangs must not be asked for each event
                append_lines(self.folder / "spool.jsonl", [line])

    def _drain(self) -> bool:
        """Posts what earlier commands could not, oldest first; whether all of it is gone."""
        spool = self.folder / "spool.jsonl"
        lines = _lines(spool)
        sent = 0
        while sent < len(lines) and self._post(lines[sent]):
            sent += 1
        if sent:
            write_whole(spool, "".join(line + "\n" for line in lines[sent:]))
            before(spool).unlink(missing_ok=True)
        if sent == len(lines):
            spool.unlink(missing_ok=True)
        return sent == len(lines)

    def _post(self, line: str) -> bool:
        """Whether the receiver has answered this event."""
        import requests

        left = _BUDGET_SECONDS - self.spent
        if left <= 0 or self.url is None or not self.is_addressed:
            return False
        started = time.monotonic()
        try:
            answer = requests.post(
                self.url, data=line.encode(), headers={"Content-Type": "application/json"},
                timeout=min(_TIMEOUT_SECONDS, left),
            )  # fmt: skip
            if answer.status_code in _REFUSED:
                reason = mask(f"the lineage receiver answered {answer.status_code}: {answer.text[:200]}")
                refused.keep(self.lake, "lineage", reason, json.loads(line))
                return True
            return answer.status_code < 300
        except requests.RequestException:
            return False
        finally:
            self.spent += time.monotonic() - started


def waiting(lake: Lake) -> str:
    """What the receiver has not taken yet, and why where that is a setting; empty when nothing waits."""
    spool = lake.state / "lineage" / "spool.jsonl"
    count = len(_lines(spool))
    if lake.settings.lineage == "http" and not lake.settings.lineage_url:
        return (
            f"LAKEHOUSE_LINEAGE_URL is not set: {count} lineage events wait in {spool}. Set it to the receiver's base "
            "address, such as http://marquez:5000, or LAKEHOUSE_LINEAGE=file to keep events in a file."
        )
    if count:
        return f"{count} lineage events wait in {spool}: the receiver did not take them. The next command tries again."
    return ""


def _lines(spool: Path) -> list[str]:
    """Events that wait, oldest first."""
    text = "".join(path.read_text(encoding="utf-8") for path in (before(spool), spool) if path.exists())
    return [line for line in text.split("\n") if line]
