"""Where events go: a file, or an HTTP receiver such as Marquez. What that does not take is sent next time, in order."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.config import Settings

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

_BUDGET_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
_KEEP_BYTES = 16 * 1024 * 1024


class Sink:
    """Takes the events of one command. Safe for threads. Nothing that happens here fails a run.

    Args:
        settings: The environment: `lineage` is `file` or `http`, `lineage_url` the receiver's base address.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.state / "lineage"
        self.url = f"{settings.lineage_url.rstrip('/')}/api/v1/lineage" if settings.lineage == "http" else None
        self.lock = threading.Lock()
        self.spent = 0.0
        self.is_down = False

    def send(self, event: RunEvent) -> None:
        """Appends an event to the file, or posts it."""
        from openlineage.client.serde import Serde

        line = Serde.to_json(event)
        with self.lock, suppress(OSError):  # a full disk fails the tables' own writes, with a message
            if self.url is None:
                _append(self.folder / "events.jsonl", [line])
            elif self.is_down or not self._drain() or not self._post(line):
                self.is_down = True  # until the command ends: a receiver that hangs must not be asked for each event
                _append(self.folder / "spool.jsonl", [line])

    def _drain(self) -> bool:
        """Posts what earlier commands could not, oldest first; whether all of it is gone."""
        spool = self.folder / "spool.jsonl"
        if not spool.exists():
            return True
        lines = [line for line in spool.read_text(encoding="utf-8").split("\n") if line]
        sent = 0
        while sent < len(lines) and self._post(lines[sent]):
            sent += 1
        spool.unlink()
        if sent < len(lines):
            _append(spool, lines[sent:])
        return sent == len(lines)

    def _post(self, line: str) -> bool:
        import requests

        left = _BUDGET_SECONDS - self.spent
        if left <= 0 or self.url is None:
            return False
        started = time.monotonic()
        try:
            answer = requests.post(
                self.url, data=line.encode(), headers={"Content-Type": "application/json"},
                timeout=min(_TIMEOUT_SECONDS, left),
            )  # fmt: skip
            return answer.status_code < 300
        except requests.RequestException:
            return False
        finally:
            self.spent += time.monotonic() - started


def _append(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _KEEP_BYTES:
        path.replace(path.with_suffix(".old.jsonl"))
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
