"""Records as JSON files, replaced atomically under a lock: for processes of one machine."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from python_ops.lake.errors import BusyError, OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.state.store import Record


class FileStore:
    """A folder for each kind, a file for each record.

    Args:
        folder: Made on first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder)

    def get(self, kind: str, name: str) -> Record | None:
        """A record and its revision.

        Raises:
            OpsError: the file is not a record.
        """
        path = self._path(kind, name)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return Record(data["value"], int(data["revision"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as exc:
            raise OpsError(
                f"{path} is not a record of state ({exc!r}). Restore it from a snapshot, or move it away: "
                f"without it, {kind} {name} starts anew."
            ) from exc

    def names(self, kind: str) -> list[str]:
        return sorted(unquote(path.stem) for path in (self.folder / kind).glob("*.json"))

    def put(
        self, kind: str, name: str, value: Mapping[str, Any], revision: int, expires_at: int | None = None
    ) -> Record:
        """Writes a record; nothing expires by itself in files."""
        with self._locked():
            self._refuse_rival(kind, name, revision)
            record = {"revision": revision + 1, "value": dict(value)}
            write_whole(self._path(kind, name), json.dumps(record, indent=1))
        return Record(value, revision + 1)

    def delete(self, kind: str, name: str, revision: int) -> None:
        with self._locked():
            self._refuse_rival(kind, name, revision)
            self._path(kind, name).unlink(missing_ok=True)

    def _refuse_rival(self, kind: str, name: str, revision: int) -> None:
        given = self.get(kind, name)
        if (given.revision if given else 0) != revision:
            raise BusyError(f"{kind} {name} was changed by another process meanwhile. Nothing was written; run again.")

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{quote(name, safe='')}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
