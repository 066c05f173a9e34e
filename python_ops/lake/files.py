"""Files that are replaced whole or not at all, and logs that stay bounded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_KEEP_BYTES = 16 * 1024 * 1024


def write_whole(path: Path, content: str | bytes) -> Path:
    """Replaces a file, and makes its folder: a crash leaves the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_bytes(content.encode() if isinstance(content, str) else content)
    return settle(draft, path)


def settle(draft: Path, path: Path) -> Path:
    """Gives a draft in the same folder its name. Its bytes and its name are on the disk when this returns."""
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


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Appends lines to a log; a full one becomes `<name>.old.<suffix>`, in place of the one before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _KEEP_BYTES:
        path.replace(before(path))
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def before(path: Path) -> Path:
    """Where a log's older lines are."""
    return path.with_suffix(f".old{path.suffix}")
