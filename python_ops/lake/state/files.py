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
from python_ops.lake.errors import BusyError, OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.state.store import Record, rival


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
            return self._parsed(path, path.read_bytes())
        except FileNotFoundError:
            return None

    @staticmethod
    def _parsed(path: Path, content: bytes) -> Record:
        kind, name = path.parent.name, unquote(path.stem)
        try:
            data = json.loads(content)
            return Record(data["value"], int(data["revision"]))
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
            write_whole(self._path(kind, name), _text(value, revision + 1))
        return Record(value, revision + 1)

    def delete(self, kind: str, name: str, revision: int) -> None:
        with self._locked():
            self._refuse_rival(kind, name, revision)
            self._path(kind, name).unlink(missing_ok=True)

    def _refuse_rival(self, kind: str, name: str, revision: int) -> None:
        given = self.get(kind, name)
        if (given.revision if given else 0) != revision:
            raise rival(f"{kind} {name}")

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{quote(name, safe='')}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class BucketStore(FileStore):
    """The same in a bucket. S3 removes nothing on a condition, so a record that was removed stays as an empty object.

    Args:
        folder: A path in a bucket.
    """

    def get(self, kind: str, name: str) -> Record | None:
        return self._given(kind, name)[0]

    def names(self, kind: str) -> list[str]:
        return sorted(unquote(e.name.removesuffix(".json")) for e in buckets.listed(self.folder / kind) if e.bytes)

    def put(
        self, kind: str, name: str, value: Mapping[str, Any], revision: int, expires_at: int | None = None
    ) -> Record:
        self._swap(kind, name, _text(value, revision + 1), revision)
        return Record(value, revision + 1)

    def delete(self, kind: str, name: str, revision: int) -> None:
        self._swap(kind, name, "", revision)

    def _swap(self, kind: str, name: str, content: str, revision: int) -> None:
        given, tag = self._given(kind, name)
        if (given.revision if given else 0) != revision:
            raise rival(f"{kind} {name}")
        try:
            buckets.swap(self._path(kind, name), content.encode(), tag)
        except BusyError as exc:
            raise rival(f"{kind} {name}") from exc

    def _given(self, kind: str, name: str) -> tuple[Record | None, str | None]:
        path = self._path(kind, name)
        try:
            content, tag = buckets.read(path)
        except FileNotFoundError:
            return None, None
        return self._parsed(path, content) if content else None, tag


def _text(value: Mapping[str, Any], revision: int) -> str:
    return json.dumps({"revision": revision, "value": dict(value)}, indent=1)
