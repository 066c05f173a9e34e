"""A Delta table's log, read without a JVM: which files one version consists of, and which log entries say so.

Spark writes deletion vectors, which `deltalake` does not list; so the log is read here: the last complete checkpoint
(one file, several parts, or with sidecars), and the commits after it. Specification: PROTOCOL.md of Delta Lake.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import unquote

from python_ops.lake.errors import OpsError
from python_ops.lake.storage import Folder, MissingFile, Readable

LOG = "_delta_log/"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(
    r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})\.parquet|\.[0-9a-f-]{36}\.(?:parquet|json)|\.parquet)"
)
# What is read of a checkpoint. Its `remove`s are tombstones of files that were removed before.
_COLUMNS = [
    "add.path", "add.size", "add.modificationTime", "add.deletionVector", "add.stats", "add.stats_parsed.numRecords",
    "metaData", "protocol", "sidecar",
]  # fmt: skip

# Features that leave a version's files where the log says; with any other, this module does not know what to copy.
_KNOWN = frozenset({
    "columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint",
    "vacuumProtocolCheck", "variantType", "variantType-preview", "variantShredding-preview",
})  # fmt: skip

# The alphabet of Delta's base 85 (Z85), and Python's.
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


Read = Callable[[int, int], bytes]
"""Gives so many bytes of a file from an offset."""


class UnreadableLog(OpsError):
    """A log entry is missing or garbled."""


@dataclass(frozen=True)
class LiveFile:
    """A data file or a file of deletion vectors.

    Attributes:
        path: Relative to the table's folder, as it is on disk.
        bytes: Size; None where the log does not say (deletion vectors).
        modified: When it was written, milliseconds; None for deletion vectors.
        vectors: Offset and size of each deletion vector in use.
    """

    path: str
    bytes: int | None
    modified: int | None
    vectors: tuple[tuple[int, int], ...] = ()

    def damage(self, read: Read) -> str | None:
        """What is wrong with the file's content, as far as its two ends and its checksums tell; None if nothing.

        Args:
            read: Gives so many bytes from an offset; a negative offset counts from the end.
        """
        if self.bytes is not None:
            is_parquet = self.path.endswith(".parquet")
            return "is not a parquet file" if is_parquet and read(-4, 4) not in (b"PAR1", b"PARE") else None
        for offset, size in self.vectors:
            head, data, told = read(offset, 4), read(offset + 4, size), read(offset + 4 + size, 4)
            if int.from_bytes(head, "big") != size or int.from_bytes(told, "big") != zlib.crc32(data):
                return f"holds a garbled deletion vector at {offset}"
        return None


@dataclass(frozen=True)
class TableVersion:
    """One version of a table.

    Attributes:
        metadata: The `metaData` action; its `id` is the table's identifier.
        protocol: The `protocol` action.
        files: What the version consists of, by path.
        entries: Names of the log's files that say so, relative to the table's folder.
        rows: Rows that a reader sees; None where the log does not say.
    """

    version: int
    metadata: Mapping[str, Any]
    protocol: Mapping[str, Any]
    files: Mapping[str, LiveFile]
    entries: tuple[str, ...]
    rows: int | None

    @property
    def table_id(self) -> str:
        """Delta's identifier of the table."""
        return str(self.metadata["id"])


def last_version(names: Iterable[str]) -> int | None:
    """Highest version among names of a log's files; None where there is no log."""
    found = [version for name in names if (version := _version(name)) is not None]
    return max(found, default=None)


def read_version(folder: Readable, version: int | None = None) -> TableVersion:
    """Reads one version of a table.

    Args:
        version: The version; the last when None.

    Raises:
        UnreadableLog: an entry is missing or garbled, or the table has a feature that is not known here.
    """
    names = folder.names(LOG)
    wanted = last_version(names) if version is None else version
    if wanted is None:
        raise UnreadableLog(f"{folder.url} has no Delta log.")
    checkpoint, entries = _entries(folder, names, wanted)
    replay = _Replay(folder)
    for name in checkpoint:
        for row in _checkpoint_rows(folder, name):
            if sidecar := row.get("sidecar"):
                entries.append(f"{LOG}_sidecars/{sidecar['path'].rsplit('/', 1)[-1]}")
                for inner in _checkpoint_rows(folder, entries[-1]):
                    replay.take(inner, entries[-1])
            else:
                replay.take(row, name)
    after = int(_CHECKPOINT.match(checkpoint[0].removeprefix(LOG)).group(1)) if checkpoint else -1  # type: ignore[union-attr]
    for name in entries:
        number = _COMMIT.fullmatch(name.removeprefix(LOG))
        if number and int(number.group(1)) > after:
            for row in _lines(folder, name):
                replay.take(row, name)
    return replay.result(wanted, entries)


def damage(folder: Folder, told: TableVersion, content: bool = True) -> list[str]:
    """What is wrong with the files that a version consists of, deletion vectors among them; none if it can be read.

    Args:
        told: The version.
        content: Look into the files as well (`LiveFile.damage`), not only for them.
    """
    there, found = folder.names(), []
    for path, file in told.files.items():
        if path not in there:
            found.append(f"{path} is gone")
        elif file.bytes is not None and there[path] != file.bytes:
            found.append(f"{path} has {there[path]} bytes, the log says {file.bytes}")
        elif content and (fault := file.damage(partial(folder.part, path))):
            found.append(f"{path} {fault}")
    return found


def _entries(folder: Readable, names: Mapping[str, int], version: int) -> tuple[list[str], list[str]]:
    """Files of the last complete checkpoint up to a version, and all entries that the version needs."""
    # Parts by version and number of parts: a checkpoint of one file, or all parts of another, is complete.
    parts: dict[tuple[int, int], list[str]] = {}
    for name in sorted(names):
        if (found := _CHECKPOINT.fullmatch(name.removeprefix(LOG))) and int(found[1]) <= version:
            parts.setdefault((int(found[1]), int(found[3] or 0)), []).append(name)
    whole = {(n, -count): files[: count or 1] for (n, count), files in parts.items() if count in (0, len(files))}
    (base, _), checkpoint = max(whole.items(), default=((-1, 0), list[str]()))
    # A checkpoint's own commit may have been cleaned up; with it, history and time travel begin there.
    first = base if base >= 0 and f"{LOG}{base:020}.json" in names else base + 1
    commits = [f"{LOG}{number:020}.json" for number in range(first, version + 1)]
    if missing := [name for name in commits if name not in names]:
        raise UnreadableLog(
            f"{folder.url}: log entry {missing[0]} is missing, so version {version} is not known. Restore the table "
            "from a snapshot (docs/runbooks/dr_restore.md)."
        )
    extra = [name for name in (f"{LOG}{version:020}.crc",) if name in names]
    return checkpoint, [*checkpoint, *commits, *extra]


def _version(name: str) -> int | None:
    base = name.removeprefix(LOG)
    found = _COMMIT.fullmatch(base) or _CHECKPOINT.fullmatch(base)
    return int(found.group(1)) if found else None


def _checkpoint_rows(folder: Readable, name: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name.endswith(".json"):
        yield from _lines(folder, name)
        return
    try:
        file = pq.ParquetFile(io.BytesIO(folder.read(name)))
        for batch in file.iter_batches(columns=_COLUMNS):
            for row in batch.to_pylist():
                yield {kind: value for kind, value in row.items() if value is not None}
    except MissingFile as exc:
        raise UnreadableLog(f"{exc} It is part of a checkpoint.") from exc
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise _garbled(folder, name, exc) from exc


def _lines(folder: Readable, name: str) -> list[dict[str, Any]]:
    try:
        text = folder.read(name).decode("utf-8")
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        if rows and all(isinstance(row, dict) for row in rows):
            return rows
        raise ValueError("no actions")
    except ValueError as exc:  # UnicodeDecodeError and JSONDecodeError are such
        raise _garbled(folder, name, exc) from exc


def _garbled(folder: Readable, name: str, cause: Exception) -> UnreadableLog:
    return UnreadableLog(
        f"{folder.url}: log entry {name} is garbled ({type(cause).__name__}). Restore the table from a snapshot "
        "(docs/runbooks/dr_restore.md)."
    )


class _Replay:
    """Applies actions in the order of the log, by the protocol's rules: a file is its path and its deletion vector."""

    def __init__(self, folder: Readable) -> None:
        self.folder = folder
        self.metadata: Mapping[str, Any] | None = None
        self.protocol: Mapping[str, Any] | None = None
        self.live: dict[tuple[str, str], Mapping[str, Any]] = {}

    def take(self, row: Mapping[str, Any], entry: str) -> None:
        """Takes one action."""
        try:
            if add := row.get("add"):
                self.live[add["path"], _vector_id(add)] = add
            elif remove := row.get("remove"):
                self.live.pop((remove["path"], _vector_id(remove)), None)
            elif metadata := row.get("metaData"):
                self.metadata = metadata
            elif protocol := row.get("protocol"):
                self._refuse_unknown(protocol)
                self.protocol = protocol
        except (KeyError, TypeError, AttributeError) as exc:
            raise _garbled(self.folder, entry, exc) from exc

    def result(self, version: int, entries: list[str]) -> TableVersion:
        """The version that the actions make."""
        if self.metadata is None or self.protocol is None:
            raise UnreadableLog(f"{self.folder.url}: the log up to version {version} has no metadata or no protocol.")
        files: dict[str, LiveFile] = {}
        rows: int | None = 0
        for add in self.live.values():
            path = self._relative(unquote(add["path"]))
            files[path] = LiveFile(path, int(add["size"]), int(add["modificationTime"]))
            vector = add.get("deletionVector")
            if vector and (where := _vector_path(vector)):
                file = files.setdefault(self._relative(where), LiveFile(where, None, None))
                spot = (int(vector.get("offset") or 0), int(vector["sizeInBytes"]))
                files[where] = replace(file, vectors=(*file.vectors, spot))
            rows = None if rows is None or (n := _rows(add)) is None else rows + n
        return TableVersion(version, self.metadata, self.protocol, files, tuple(entries), rows)

    def _refuse_unknown(self, protocol: Mapping[str, Any]) -> None:
        unknown = set(protocol.get("readerFeatures") or ()) - _KNOWN
        if unknown or int(protocol["minReaderVersion"]) > 3:
            raise UnreadableLog(
                f"{self.folder.url} has the Delta features {', '.join(sorted(unknown)) or 'of a newer protocol'}, "
                "which this program does not know how to copy. Nothing was done with it."
            )

    def _relative(self, path: str) -> str:
        if ":" in path.split("/", 1)[0] or path.startswith("/") or ".." in path.split("/"):
            raise UnreadableLog(
                f"{self.folder.url} refers to {path}, outside its folder (a shallow clone?). Only tables that hold "
                "their own files are copied."
            )
        return path


def _vector_id(action: Mapping[str, Any]) -> str:
    vector = action.get("deletionVector")
    return f"{vector['storageType']}{vector['pathOrInlineDv']}@{vector.get('offset')}" if vector else ""


def _vector_path(vector: Mapping[str, Any]) -> str | None:
    """Path of the file that holds a deletion vector; None where the vector stands in the log itself."""
    kind, text = vector["storageType"], str(vector["pathOrInlineDv"])
    if kind == "i":
        return None
    if kind == "p":
        return text
    prefix, encoded = text[:-20], text[-20:]
    number = base64.b85decode(encoded.encode().translate(bytes.maketrans(_Z85, _B85))).hex()
    name = f"deletion_vector_{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}.bin"
    return f"{prefix}/{name}" if prefix else name


def _rows(add: Mapping[str, Any]) -> int | None:
    stats, vector = add.get("stats"), add.get("deletionVector")
    parsed = json.loads(stats) if stats else add.get("stats_parsed") or {}
    count = parsed.get("numRecords")
    return None if count is None else int(count) - (int(vector["cardinality"]) if vector else 0)
