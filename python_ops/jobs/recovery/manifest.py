"""A snapshot's manifest: everything that it consists of, with checksums; and the store that holds snapshots.

    snapshots/<id>.json               the manifest, written last: without it there is no snapshot
    drafts/<id>.json                  what an interrupted copy had done; the next one goes on from there
    files/<schema>/<table>/<key>/…    data files and deletion vectors, shared by all snapshots that refer to them
    blobs/<sha256>                    log entries, ledgers, waiting landing files: named by their content

All names are relative, so that the store can be moved or copied as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from python_ops.lake.config import PROJECT_ROOT, is_address
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.records import made
from python_ops.lake.storage import Checksum, Folder, MissingFile, folder_at

FORMAT = 1
SNAPSHOTS, DRAFTS, FILES, BLOBS = "snapshots/", "drafts/", "files/", "blobs/"


@dataclass(frozen=True)
class StoredFile:
    """A file of a snapshot.

    Attributes:
        path: Relative to what it belongs to: the table's folder, the state folder, the landing folder.
        object: Its name in the store.
        bytes: Size.
        sha256: Hash of its bytes; None where S3 copied it and did not say.
        etag: S3's tag of the copy.
        modified: Milliseconds, as the log has it; None where it does not.
    """

    path: str
    object: str
    bytes: int
    sha256: str | None = None
    etag: str | None = None
    modified: int | None = None

    @property
    def checksum(self) -> Checksum:
        """What a copy of it must have."""
        return Checksum(self.bytes, self.sha256, self.etag)


@dataclass(frozen=True)
class StoredTable:
    """A table at its pinned version.

    Attributes:
        layer: `bronze`, `silver`, …: the schema without its prefix.
        table: Name of the Delta table.
        table_id: Delta's identifier.
        rows: Rows that a reader sees; None where the log does not say.
        files: Data files and deletion vectors.
        log: Log entries that the version needs.
    """

    layer: str
    table: str
    table_id: str
    version: int
    rows: int | None
    files: tuple[StoredFile, ...]
    log: tuple[StoredFile, ...]

    @property
    def name(self) -> str:
        """Layer and table."""
        return f"{self.layer}.{self.table}"

    @property
    def bytes(self) -> int:
        """Size of its files and log entries."""
        return sum(file.bytes for file in (*self.files, *self.log))


@dataclass(frozen=True)
class Snapshot:
    """A snapshot.

    Attributes:
        id: Its name: the time it was pinned, and a few random digits.
        pinned_at: ISO 8601, UTC; every table is as it was at this moment.
        completed_at: When its last file was copied.
        source: Home that it was copied from.
        schema_prefix: Of the tables there.
        state: Ledgers of ingestion, relative to the state folder.
        landing: Delivered files that no committed batch had, relative to the landing folder.
        watermarks: Watermarks of extraction, by source.
        erased: Records of people who were erased, so that a lake that is restored elsewhere keeps them out too.
        copied_bytes: What this snapshot added to the store; the rest was there.
    """

    id: str
    pinned_at: str
    completed_at: str
    source: str
    environment: str
    schema_prefix: str
    tables: tuple[StoredTable, ...]
    state: tuple[StoredFile, ...] = ()
    landing: tuple[StoredFile, ...] = ()
    watermarks: Mapping[str, Any] = field(default_factory=dict)
    erased: Mapping[str, Any] = field(default_factory=dict)
    copied_files: int = 0
    copied_bytes: int = 0
    copied_log_bytes: int = 0
    seconds: float = 0.0

    @property
    def age_seconds(self) -> float:
        """What would be lost now: the time since it was pinned."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.pinned_at)).total_seconds()

    @property
    def bytes(self) -> int:
        """Size of everything that it consists of, shared or not."""
        return sum({file.object: file.bytes for _, file in self.files()}.values())

    def files(self) -> Iterator[tuple[str, StoredFile]]:
        """All files, with the name of what each belongs to."""
        for table in self.tables:
            for file in (*table.files, *table.log):
                yield table.name, file
        for file in self.state:
            yield "state", file
        for file in self.landing:
            yield "landing", file

    def only(self, tables: tuple[str, ...]) -> tuple[StoredTable, ...]:
        """Tables by name, as `layer.table`; all when none is named.

        Raises:
            ConfigError: the snapshot has no such table.
        """
        known = {table.name for table in self.tables}
        if unknown := sorted(set(tables) - known):
            raise ConfigError(f"Snapshot {self.id} has no {', '.join(unknown)}. It has {', '.join(sorted(known))}.")
        return tuple(table for table in self.tables if not tables or table.name in tables)


def store_of(lake: Lake) -> Folder:
    """The folder that holds an environment's snapshots.

    Raises:
        ConfigError: `recovery` is neither a path nor an `s3://` address.
    """
    if not lake.settings.recovery:
        return folder_at(lake.home / "snapshots" / lake.settings.schema_prefix)
    place = f"{lake.settings.recovery.rstrip('/')}/{lake.settings.schema_prefix}".rstrip("/")
    return folder_at(place if is_address(place) else PROJECT_ROOT / place, lake.settings.recovery_region)


def identifiers(store: Folder) -> list[str]:
    """Snapshots of a store, oldest first."""
    found = (name.removeprefix(SNAPSHOTS) for name in store.names(SNAPSHOTS))
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json") and "/" not in name)


def load(store: Folder, identifier: str | None = None) -> Snapshot:
    """A snapshot; the newest when no identifier is given.

    Raises:
        ConfigError: there is no such snapshot.
        OpsError: its manifest is garbled.
    """
    if identifier is None:
        known = identifiers(store)
        if not known:
            raise ConfigError(f"{store.url} holds no snapshot. `lakeops snapshot create` makes one.")
        identifier = known[-1]
    return _read(store, SNAPSHOTS, identifier)


def drafts(store: Folder) -> list[Snapshot]:
    """What interrupted copies had done; a draft that is garbled counts as none."""
    found = []
    for name in store.names(DRAFTS):
        try:
            found.append(_read(store, DRAFTS, name.removeprefix(DRAFTS).removesuffix(".json")))
        except OpsError:
            continue
    return found


def save(store: Folder, snapshot: Snapshot, kind: str = SNAPSHOTS) -> None:
    """Writes a manifest."""
    body = asdict(snapshot)
    data = {"format": FORMAT, "sha256": _hash(body), "snapshot": body}
    store.write(f"{kind}{snapshot.id}.json", json.dumps(data, indent=1, ensure_ascii=False).encode())


def _read(store: Folder, kind: str, identifier: str) -> Snapshot:
    try:
        data = json.loads(store.read(f"{kind}{identifier}.json"))
    except MissingFile as exc:
        known = ", ".join(identifiers(store)[-5:]) or "none"
        raise ConfigError(f"{store.url} has no snapshot {identifier}. The newest: {known}.") from exc
    except ValueError as exc:
        raise _garbled(store, kind, identifier, "is not JSON") from exc
    try:
        body = data["snapshot"]
        if data["format"] != FORMAT:
            raise _garbled(store, kind, identifier, f"has format {data['format']}, not {FORMAT}")
        if data["sha256"] != _hash(body):
            raise _garbled(store, kind, identifier, "does not have the checksum that it was written with")
        return made(Snapshot, body)
    except (KeyError, TypeError, ValueError) as exc:
        raise _garbled(store, kind, identifier, f"lacks what a manifest has ({exc!r})") from exc


def _hash(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _garbled(store: Folder, kind: str, identifier: str, why: str) -> OpsError:
    return OpsError(
        f"The manifest {store.url}/{kind}{identifier}.json {why}. Nothing was changed. Use another snapshot "
        "(`lakeops snapshot list`), or the bucket's own version of this file."
    )
