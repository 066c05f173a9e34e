"""One writing process per home: a file lock that the kernel releases when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from python_ops.config import Settings
from python_ops.errors import BusyError
from python_ops.lineage import job_run


@contextmanager
def exclusive(settings: Settings, command: str) -> Iterator[None]:
    """Holds the home's lock while `command` works, as one run of the job `lakeops <command>` in the lineage.

    Spark's Derby metastore admits one process at a time, so all writing commands share one lock.

    Raises:
        BusyError: another process holds it; the text says which, and since when.
    """
    settings.state.mkdir(parents=True, exist_ok=True)
    path = settings.home_path / "state" / "lock.json"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.seek(0)
            try:
                holder = json.loads(file.read())
                who = f"`lakeops {holder['command']}` (process {holder['pid']}, since {holder['since']})"
            except (ValueError, KeyError):
                who = "another process"
            raise BusyError(f"{settings.home_path} is in use by {who}. Wait for it to end, then run again.") from exc
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"command": command, "pid": os.getpid(), "since": since}))
        file.flush()
        try:
            with job_run(settings, f"lakeops {command}"):
                yield
        finally:
            file.truncate(0)
