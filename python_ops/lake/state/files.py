"""Records as JSON files: in a folder replaced under a lock, in a bucket by conditional writes, for several machines."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from python_ops.lake import buckets
from python_ops.lake.buckets import on_bucket
from python_ops.lake.errors import BusyError, OpsError
from python_ops.lake.files import files_under, swap
from python_ops.lake.state.store import Record, rival


class FileStore:
    """A folder for each kind, a file for each record.

    S3 removes nothing on a condition, so in a bucket a record that was removed stays as an empty object.

    Args:
        folder: On this machine, where it is made on first write, or in a bucket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder)

    def get(self, kind: str, name: str) -> Record | None:
        """A record and its revision.

        Raises:
            OpsError: the file is not a record.
        """
        return self._given(kind, name)[0]

    def names(self, kind: str) -> list[str]:
        """Names of records. In a bucket one that was removed is an empty object; on a disk an empty file is damage."""
        files = files_under(self.folder / kind).items()
        return sorted(
            unquote(name.removesuffix(".json"))
            for name, file in files
            if name.endswith(".json") and (file.bytes or not on_bucket(self.folder))
        )

    def put(
        self, kind: str, name: str, value: Mapping[str, Any], revision: int, expires_at: int | None = None
    ) -> Record:
        """Writes a record; nothing expires by itself in files."""
        text = json.dumps({"revision": revision + 1, "value": dict(value)}, indent=1)
        self._replace(kind, name, text, revision)
        return Record(value, revision + 1)

    def delete(self, kind: str, name: str, revision: int) -> None:
        self._replace(kind, name, "", revision)

    def _replace(self, kind: str, name: str, content: str, revision: int) -> None:
        path = self._path(kind, name)
        with self._locked():
            given, tag = self._given(kind, name)
            if (given.revision if given else 0) != revision:
                raise rival(f"{kind} {name}")
            if not content and not on_bucket(path):
                path.unlink(missing_ok=True)
                return
            try:
                swap(path, content, tag)
            except BusyError as exc:
                raise rival(f"{kind} {name}") from exc

    def _given(self, kind: str, name: str) -> tuple[Record | None, str | None]:
        """A record, and the tag that `swap` wants."""
        path = self._path(kind, name)
        try:
            content, tag = buckets.read(path) if on_bucket(path) else (path.read_bytes(), None)
        except FileNotFoundError:
            return None, None
        if not content and on_bucket(path):
            return None, tag
        try:
            data = json.loads(content)
            return Record(data["value"], int(data["revision"])), tag
        except (ValueError, KeyError, TypeError) as exc:
            raise OpsError(
                f"{path} is not a record of state ({exc!r}). Restore it from a snapshot, or move it away: "
                f"without it, {kind} {name} starts anew."
            ) from exc

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{quote(name, safe='')}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if on_bucket(self.folder):
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
