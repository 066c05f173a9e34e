"""Folders of files, local or in S3, under one protocol: what a snapshot is copied from and to.

A file appears whole or not at all: locally it is written beside its name and renamed, in S3 a put is atomic. Between
two buckets S3 copies by itself; nothing passes through this machine.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from python_ops.lake.aws import client, explained
from python_ops.lake.buckets import RIGHTS, on_bucket
from python_ops.lake.config import is_address
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.files import settle

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BLOCK = 1 << 20
_PARTIAL = ".partial"
_LARGEST_COPY = 5 * 1024**3  # S3 copies larger objects in parts only
_SCHEMES = ("s3://", "s3a://", "s3:/", "s3a:/")  # the latter are what pathlib makes of the former


class MissingFile(OpsError):
    """A file is not there."""


@dataclass(frozen=True)
class Checksum:
    """What is known of a file's content.

    Attributes:
        sha256: Hash of its bytes; None where S3 copied it and did not say.
        etag: S3's own tag of the object.
    """

    bytes: int
    sha256: str | None = None
    etag: str | None = None

    def differs(self, other: Checksum) -> str | None:
        """How another checksum differs from this one; None if it does not."""
        if self.bytes != other.bytes:
            return f"has {other.bytes} bytes, not {self.bytes}"
        if self.sha256 and other.sha256:
            return None if self.sha256 == other.sha256 else "has other bytes (sha256) than were copied"
        if self.etag and other.etag:
            return None if self.etag == other.etag else "is another object (etag) than was copied"
        return None if self.sha256 else "has no checksum that could be compared"


class Readable(Protocol):
    """Files by name; names have `/` and are relative to the folder."""

    @property
    def url(self) -> str:
        """Where it is."""

    def names(self, prefix: str = "") -> dict[str, int]:
        """Names that begin with `prefix`, with their sizes in bytes; half-written files are left out."""

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            MissingFile: there is none.
        """


class Folder(ABC):
    """Files that can be copied and removed as well; `names` and `read` are those of `Readable`."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is."""

    @abstractmethod
    def names(self, prefix: str = "") -> dict[str, int]:
        """Names that begin with `prefix`, with their sizes in bytes."""

    @abstractmethod
    def blocks(self, name: str) -> Iterator[bytes]:
        """A file's bytes, in blocks.

        Raises:
            MissingFile: there is none.
        """

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        return b"".join(self.blocks(name))

    @abstractmethod
    def part(self, name: str, offset: int, size: int) -> bytes:
        """Some bytes of a file; a negative offset counts from its end.

        Raises:
            MissingFile: there is none.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> Checksum:
        """Writes a file whole, over an older one."""

    @abstractmethod
    def take(self, source: Folder, source_name: str, name: str) -> Checksum:
        """Copies a file from another folder, over an older one.

        Raises:
            MissingFile: the source has none.
        """

    @abstractmethod
    def checksum(self, name: str, thorough: bool = True) -> Checksum:
        """A file's checksum.

        Args:
            thorough: Read every byte; otherwise compare the size, and the tag if there is one.

        Raises:
            MissingFile: there is none.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""


def folder_at(place: str | Path, region: str = "") -> Folder:
    """The folder at a path or an `s3://bucket/prefix` address.

    Args:
        place: Where it is.
        region: The bucket's region; the environment's when empty.

    Raises:
        ConfigError: an address of another kind.
    """
    text = str(place)
    for scheme in _SCHEMES:
        if text.startswith(scheme):
            bucket, _, prefix = text.removeprefix(scheme).partition("/")
            return S3Folder(bucket, prefix, region)
    if is_address(text):
        raise ConfigError(f"{text} is neither a path nor s3://bucket/prefix.")
    return LocalFolder(Path(text))


def clear(folder: Path) -> None:
    """Removes a folder with what is in it, if it is there."""
    if not on_bucket(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    found = folder_at(folder)
    for name in found.names():
        found.remove(name)


def fetch(folder: Path, place: Path) -> Path:
    """Copies a folder of a bucket to this machine, in place of what was there, and gives that place."""
    clear(place)
    found, copy = folder_at(folder), LocalFolder(place)
    for name in found.names():
        copy.take(found, name, name)
    return place


def move(folder: Path, place: Path) -> None:
    """Moves a folder: at once on this machine, file by file in a bucket, where what was moved stays twice for a moment.

    Args:
        place: Where it goes; must not exist.
    """
    if not on_bucket(folder):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, place)
        return
    old, new = folder_at(folder), folder_at(place)
    names = old.names()
    for name in names:
        new.take(old, name, name)
    for name in names:
        old.remove(name)


class LocalFolder(Folder):
    """A folder of this machine, or a mounted one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return str(self.path)

    def names(self, prefix: str = "") -> dict[str, int]:
        root = self.path / prefix if prefix.endswith("/") or not prefix else (self.path / prefix).parent
        found = {}
        for folder, _, files in os.walk(root):
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(self.path).as_posix()
                if name.startswith(prefix) and not file.endswith(_PARTIAL):
                    with suppress(FileNotFoundError):  # gone since it was listed
                        found[name] = path.stat().st_size
        return found

    def blocks(self, name: str) -> Iterator[bytes]:
        with _explained(self.path / name), (self.path / name).open("rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def part(self, name: str, offset: int, size: int) -> bytes:
        with _explained(self.path / name), (self.path / name).open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            file.seek(max(0, length + offset) if offset < 0 else offset)
            return file.read(size)

    def write(self, name: str, data: bytes) -> Checksum:
        return self._write(name, iter((data,)))

    def take(self, source: Folder, source_name: str, name: str) -> Checksum:
        return self._write(name, source.blocks(source_name))

    def checksum(self, name: str, thorough: bool = True) -> Checksum:
        if not thorough:
            with _explained(self.path / name):
                return Checksum((self.path / name).stat().st_size)
        return _summed(self.blocks(name))

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def clean(self, prefix: str) -> None:
        """Removes what killed writers left half-written."""
        for path in (self.path / prefix).rglob(f"*{_PARTIAL}"):
            path.unlink(missing_ok=True)

    def _write(self, name: str, blocks: Iterator[bytes]) -> Checksum:
        path = self.path / name
        draft = path.with_name(f"{path.name[:100]}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as file:
                    written = _summed(blocks, file)
                settle(draft, path)
            finally:
                draft.unlink(missing_ok=True)
        return written


class S3Folder(Folder):
    """A prefix of a bucket.

    Args:
        bucket: Name of the bucket.
        prefix: Key prefix, without `/` at either end.
        region: The bucket's region; the environment's when empty.
    """

    def __init__(self, bucket: str, prefix: str = "", region: str = "") -> None:
        self.bucket, self.prefix, self.region = bucket, prefix.strip("/"), region
        self._client: S3Client | None = None
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def names(self, prefix: str = "") -> dict[str, int]:
        begins, found = self._key(""), {}
        with self._explained(prefix):
            pages = self._made().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=begins + prefix)
            for page in pages:
                for item in page.get("Contents", ()):
                    found[item["Key"].removeprefix(begins)] = item["Size"]
        return found

    def blocks(self, name: str) -> Iterator[bytes]:
        with self._explained(name):
            yield from self._made().get_object(**self._at(name))["Body"].iter_chunks(_BLOCK)

    def part(self, name: str, offset: int, size: int) -> bytes:
        wanted = f"bytes={offset}" if offset < 0 else f"bytes={offset}-{offset + size - 1}"
        with self._explained(name):
            return self._made().get_object(**self._at(name), Range=wanted)["Body"].read()[:size]

    def write(self, name: str, data: bytes) -> Checksum:
        digest = hashlib.sha256(data)
        with self._explained(name):
            done = self._made().put_object(**self._at(name), Body=data, ChecksumSHA256=_base64(digest.digest()))
        return Checksum(len(data), digest.hexdigest(), done["ETag"])

    def take(self, source: Folder, source_name: str, name: str) -> Checksum:
        """Copies inside S3 from another bucket; sends a local file with its hash."""
        if isinstance(source, S3Folder):
            return self._copy(source, source_name, name)
        given = source.checksum(source_name)
        if not isinstance(source, LocalFolder) or given.sha256 is None:
            raise OpsError(f"{source.url} cannot be sent to {self.url}.")
        path = source.path / source_name
        with self._explained(name), _explained(path):
            if given.bytes < _LARGEST_COPY:
                with path.open("rb") as file:
                    told = _base64(bytes.fromhex(given.sha256))
                    self._made().put_object(**self._at(name), Body=file, ContentLength=given.bytes, ChecksumSHA256=told)
            else:
                self._made().upload_file(str(path), self.bucket, self._key(name))
        return Checksum(given.bytes, given.sha256, self.checksum(name, thorough=False).etag)

    def checksum(self, name: str, thorough: bool = True) -> Checksum:
        with self._explained(name):
            head = self._made().head_object(**self._at(name))
        told = _summed(self.blocks(name)) if thorough else Checksum(head["ContentLength"])
        return replace(told, etag=head["ETag"])

    def remove(self, name: str) -> None:
        with self._explained(name):
            self._made().delete_object(**self._at(name))

    def _copy(self, source: S3Folder, source_name: str, name: str) -> Checksum:
        given = source.checksum(source_name, thorough=False)
        place = source._at(source_name)
        with self._explained(name, source._key(source_name)):
            if given.bytes < _LARGEST_COPY:
                done = self._made().copy_object(
                    **self._at(name), CopySource=place, CopySourceIfMatch=given.etag or "", ChecksumAlgorithm="SHA256"
                )["CopyObjectResult"]
                told = done.get("ChecksumSHA256")
                sha256 = base64.b64decode(told).hex() if told and "-" not in told else None
                return Checksum(given.bytes, sha256, done["ETag"])
            self._made().copy(place, self.bucket, self._key(name), SourceClient=source._made())
        return self.checksum(name, thorough=False)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _at(self, name: str) -> Any:
        return {"Bucket": self.bucket, "Key": self._key(name)}

    def _explained(self, name: str, source_key: str = "") -> AbstractContextManager[None]:
        missing = MissingFile(f"{source_key or f'{self.url}/{name}'} is missing.")
        no_bucket = ConfigError(f"There is no bucket {self.bucket}. Make it, or correct the address.")
        known = {"NoSuchBucket": no_bucket, **dict.fromkeys(("NoSuchKey", "404", "InvalidRange"), missing)}
        return explained("S3", f"{self.url}/{name}", RIGHTS, known)

    def _made(self) -> S3Client:
        with self._guard:
            if self._client is None:
                self._client = client("s3", self.region, 5, 60, attempts=6, connections=32)
            return self._client


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise MissingFile(f"{path} is missing.") from exc
    except OSError as exc:
        raise OpsError(
            f"{path} could not be copied ({exc.strerror}). Free space or give permission; run again."
        ) from exc


def _summed(blocks: Iterable[bytes], file: IO[bytes] | None = None) -> Checksum:
    """The checksum of blocks, which go to a file if one is given."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        if file:
            file.write(block)
        digest.update(block)
        size += len(block)
    return Checksum(size, digest.hexdigest())


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
