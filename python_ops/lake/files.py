"""Files that are replaced whole or not at all, and logs that stay bounded, in a folder or in a bucket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from python_ops.lake import buckets
from python_ops.lake.buckets import Entry, on_bucket
from python_ops.lake.errors import BusyError

_KEEP_BYTES = 16 * 1024 * 1024
_KEEP_BYTES_OF_OBJECT = 1024 * 1024  # an object has no end to append to: each time it is written anew
_TRIES = 20


def write_whole(path: Path, content: str | bytes) -> Path:
    """Replaces a file, and makes its folder: a crash leaves the old content or the new."""
    data = content.encode() if isinstance(content, str) else content
    if on_bucket(path):
        buckets.write(path, data)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_bytes(data)
    return settle(draft, path)


def draft_of(path: Path) -> Path:
    """Where a file is written before `settle`: hidden beside it, or on this machine when it goes to a bucket."""
    if on_bucket(path):
        handle, name = tempfile.mkstemp(prefix="lakeops-", suffix=".tmp")
        os.close(handle)
        return Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.tmp")


def settle(draft: Path, path: Path) -> Path:
    """Gives a draft its name: in the same folder, or in a bucket. Its bytes and its name last when this returns."""
    if on_bucket(path):
        buckets.write(path, draft)
        draft.unlink()
        return path
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)
    return path


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def on_this_machine(path: Path) -> Iterator[Path]:
    """A file for programs that read only files of this machine; of one in a bucket, a copy while the block runs.

    Raises:
        FileNotFoundError: there is none.
    """
    if not on_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lakeops-") as folder:
        copy = Path(folder, path.name)
        copy.write_bytes(buckets.read(path)[0])
        yield copy


def names(folder: Path) -> list[str]:
    """Names of what is in a folder, in order.

    Raises:
        FileNotFoundError: there is no such folder; in a bucket one without objects is empty.
        OSError: it cannot be listed.
    """
    if on_bucket(folder):
        return sorted(entry.name for entry in buckets.listed(folder))
    return sorted(entry.name for entry in folder.iterdir())


def files_under(folder: Path) -> dict[str, Entry]:
    """All files in a folder and in those below it, by their paths in the folder."""
    if on_bucket(folder):
        return dict(buckets.walked(folder))
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # gone since it was listed
            if path.is_file():
                status = path.stat()
                found[str(path.relative_to(folder))] = Entry(path.name, status.st_size, status.st_mtime)
    return found


def read_all(folder: Path, pattern: str) -> list[tuple[Path, bytes, str | None]]:
    """Files of a folder in name order, with their bytes and the tags that `swap` wants."""
    paths = sorted(folder.glob(pattern))
    if not on_bucket(folder):
        return [(path, path.read_bytes(), None) for path in paths]
    with ThreadPoolExecutor(max_workers=16) as pool:
        return [(path, *found) for path, found in zip(paths, pool.map(buckets.read, paths), strict=True)]


def swap(path: Path, content: str, tag: str | None) -> str | None:
    """Replaces a file that is as it was read. In a folder, the lock of the home keeps other writers away.

    Args:
        content: Its new content.
        tag: What `read_all` or `swap` gave; None for a file that was not there, or is in a folder.

    Returns:
        Its new tag.

    Raises:
        BusyError: another writer was first.
    """
    if on_bucket(path):
        return buckets.swap(path, content.encode(), tag)
    write_whole(path, content)
    return None


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Appends lines to a log; a full one becomes `<name>.old.<suffix>`, in place of the one before it.

    Raises:
        BusyError: the log is in a bucket, and other processes append to it all the time.
    """
    text = "".join(line + "\n" for line in lines)
    if on_bucket(path):
        _append_to_object(path, text.encode())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _KEEP_BYTES:
        path.replace(before(path))
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _append_to_object(path: Path, data: bytes) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            given, tag = buckets.read(path)
        except FileNotFoundError:
            given, tag = b"", None
        if len(given) > _KEEP_BYTES_OF_OBJECT:
            buckets.write(before(path), given)
            given = b""
        try:
            buckets.swap(path, given + data, tag)
            return
        except BusyError:
            if attempt == _TRIES:
                raise


def before(path: Path) -> Path:
    """Where a log's older lines are."""
    return path.with_suffix(f".old{path.suffix}")
