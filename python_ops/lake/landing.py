"""Files of a landing folder: which are there, and how they looked when they were taken."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from python_ops.lake.buckets import listed, on_bucket
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError

SNAPSHOT = ".snapshot"
"""`<file>.snapshot` beside a file says that the file is a complete snapshot."""

WRAPPED = "wrapped"

# Larger files that were taken are not read again to see whether they were replaced by others of their size.
_READ_AGAIN = 16 * 1024 * 1024

_IN_FOLDER = "files in folders are not, but of DMS in folders that are named by a date. Move its files up"

# Folders of AWS DMS (DatePartitionEnabled), by DatePartitionSequence and DatePartitionDelimiter.
_DATED = re.compile(r"[0-9]{2,10}([_-][0-9]{2,4}){0,3}")


@dataclass(frozen=True)
class LandingFile:
    """A file as it was when its batch was fixed.

    Attributes:
        name: Path in the landing folder.
        bytes: Size.
        sha256: Hash of its bytes.
        fault: Why the whole file is rejected; None when it is taken.
        kind: `lines`, `csv`, `parquet` or `avro`.
        layout: Names of a csv file's fields.
        header: The first line is a header.
        multiline: A quoted field of a csv file holds line ends.
        schema: Hash of the schema of a parquet or avro file: files that differ are read apart. WRAPPED where lines of
            JSON carry their schema.
        delimiter: What is between the fields of a csv file; with a blank after it where blanks are not of the values.
        line_end: Of a text: LF (or CRLF), or CR alone.
        encoding: Of a text: UTF-8, UTF-16LE or UTF-16BE.
        left_out: Columns of a parquet file that are not read, which the contract lacks.
    """

    name: str
    bytes: int
    sha256: str
    fault: str | None = None
    kind: str = "lines"
    layout: tuple[str, ...] = ()
    header: bool = False
    multiline: bool = False
    schema: str = ""
    delimiter: str = ","
    line_end: str = "\n"
    encoding: str = "UTF-8"
    left_out: tuple[str, ...] = ()


def names(folder: Path, contract: Contract | None = None) -> list[str]:
    """Names of the delivered files in name order. Of `dms`, those in dated folders too (`2025/03/04/…`), with these.

    Hidden files, `_…` and `….tmp` are still being written. Links are never followed.

    Raises:
        OpsError: the folder cannot be read.
    """
    return sorted(name for name, why in _entries(folder, _is_dated(contract)) if why is None)


def left_outside(folder: Path, contract: Contract | None = None) -> list[str]:
    """Names in a landing folder that are not taken, each with the reason and what to do."""
    found = _entries(folder, _is_dated(contract))
    return [f"{folder / printable(name)} is not taken: {why}." for name, why in found if why]


def _is_dated(contract: Contract | None) -> bool:
    return contract is not None and contract.format == "dms"


def _entries(folder: Path, dated: bool, inside: str = "") -> Iterator[tuple[str, str | None]]:
    """Files of a landing folder, and what else is there with the reason why it is not taken."""
    place = folder / inside
    if on_bucket(place):
        yield from _objects(place, dated, inside)
        return
    try:
        found = sorted(place.iterdir()) if place.exists() else []
    except OSError as exc:
        raise OpsError(f"{place} cannot be read ({exc.strerror}). Give this user read and search permission.") from exc
    for path in found:
        name = inside + path.name
        if _is_unfinished(path.name):
            continue
        if path.is_symlink():
            yield name, "it is a link, and links are not followed. Deliver the file itself"
        elif any("\ud800" <= char <= "\udfff" for char in path.name):
            yield name, "its name is not UTF-8. Rename it"
        elif path.is_file():
            yield name, None
        elif path.is_dir() and dated and _DATED.fullmatch(path.name):
            yield from _entries(folder, dated, f"{name}/")
        elif path.is_dir() and _holds_anything(path):
            yield name, _IN_FOLDER


def _objects(place: Path, dated: bool, inside: str) -> Iterator[tuple[str, str | None]]:
    for entry in sorted(listed(place), key=lambda entry: entry.name):
        own = inside + entry.name
        if _is_unfinished(entry.name):
            continue
        if entry.bytes is not None:
            yield own, None
        elif dated and _DATED.fullmatch(entry.name):
            yield from _objects(place / entry.name, dated, f"{own}/")
        else:
            yield own, _IN_FOLDER


def _is_unfinished(name: str) -> bool:
    return name.startswith((".", "_")) or name.endswith((".tmp", SNAPSHOT))


def _holds_anything(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:  # nobody can tell
        return True


def replaced(folder: Path, taken: Mapping[str, LandingFile], written_after: Mapping[str, float]) -> list[str]:
    """Names of files that are no longer what was taken. One that is gone, or cannot be read, was taken all the same.

    Args:
        taken: What was taken, by name.
        written_after: Small files that were written after this time, in seconds since 1970, are read again.
    """
    return [
        name
        for name, (size, modified) in _sizes(folder, taken).items()
        if size != taken[name].bytes
        or (size <= _READ_AGAIN and modified > written_after[name] and _has_other_bytes(folder / name, taken[name]))
    ]


def _sizes(folder: Path, wanted: Iterable[str]) -> dict[str, tuple[int, float]]:
    """Bytes and time of files that are there. A bucket's are listed, not asked for one by one."""
    if on_bucket(folder):
        inside = {name.rpartition("/")[0] for name in wanted}
        listing = {f"{place}/{entry.name}".lstrip("/"): entry for place in inside for entry in listed(folder / place)}
        return {n: (entry.bytes or 0, entry.modified) for n in wanted if (entry := listing.get(n))}
    found = {}
    for name in wanted:
        with suppress(OSError):
            now = (folder / name).stat()
            found[name] = now.st_size, now.st_mtime
    return found


def _has_other_bytes(path: Path, taken: LandingFile) -> bool:
    try:
        return sha256(path) != taken.sha256
    except OSError:
        return False


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(text: str) -> str:
    """Text that is safe on a terminal, in a table or in a message: invisible characters are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
