"""A prefix of an S3 bucket as a path, for a home that is `s3://bucket/prefix`.

Paths are those of universal-pathlib, bytes go through obstore. Credentials, region and endpoint come from the AWS_*
variables, or from the role of the machine. An object appears whole or not at all. Who replaces one gives the tag (ETag)
of what was read; if another writer was first, S3 refuses.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from python_ops.lake.errors import BusyError, ConfigError, OpsError

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode
    from obstore.store import S3Store

RETRY_SECONDS = 60  # for an answer, over all tries
RIGHTS = "This role needs s3:GetObject, PutObject, ListBucket and DeleteObject there."
METADATA_SERVICE = "169.254.169.254"  # asked for a role where no variable has credentials


def bucket_path(address: str) -> Path:
    """The path of an `s3://bucket/prefix` address. It is used as a `Path` is, and `on_bucket` tells it from one."""
    from upath import UPath

    _register()
    return cast(Path, UPath(address, **_options(os.environ.get("AWS_ENDPOINT_URL"))))


def on_bucket(path: Path) -> bool:
    """Whether a path is in a bucket and not in a folder."""
    return not isinstance(path, Path)


def read(path: Path) -> tuple[bytes, str]:
    """An object's bytes and its tag.

    Raises:
        FileNotFoundError: there is none.
    """
    found = read_unless(path, None)
    assert found is not None
    return found


def read_unless(path: Path, tag: str | None) -> tuple[bytes, str] | None:
    """An object's bytes and its tag; None where it still has a tag that is known.

    Raises:
        FileNotFoundError: there is none.
    """
    from obstore.exceptions import NotModifiedError

    store, key = _place(path)
    with explained(str(path)):
        try:
            found = store.get(key, options={"if_none_match": tag} if tag else None)
        except NotModifiedError:
            return None
        return found.bytes().to_bytes(), str(found.meta["e_tag"])


def delta_options() -> dict[str, str]:
    """What deltalake needs beside the AWS_* variables, which it reads itself."""
    return {"allow_http": "true"} if (os.environ.get("AWS_ENDPOINT_URL") or "").startswith("http://") else {}


def write(path: Path, content: bytes | Path) -> None:
    """Writes an object whole, over an older one; a file of this machine goes up in parts if it is large."""
    store, key = _place(path)
    with explained(str(path)):
        store.put(key, content)


def swap(path: Path, content: bytes, tag: str | None) -> str:
    """Replaces an object that still has `tag` (None: that is not there).

    A write whose answer got lost is tried again and then refused; it is known by its content.

    Returns:
        Its new tag.

    Raises:
        BusyError: another writer was first.
    """
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    store, key = _place(path)
    condition: PutMode = "create"
    if tag is not None:
        condition = {"e_tag": tag}
    with explained(str(path)):
        try:
            done = store.put(key, content, mode=condition)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as exc:
            if "NoSuchBucket" in str(exc):
                raise
            with suppress(FileNotFoundError):
                found, own = read(path)
                if found == content:
                    return own
            raise BusyError(
                f"{path} was changed by another process meanwhile. Nothing was written; run again."
            ) from exc
    return str(done["e_tag"])


@dataclass(frozen=True)
class Entry:
    """What is in a folder of a bucket.

    Attributes:
        bytes: Size; None for a folder.
        modified: When it was written, seconds since 1970.
    """

    name: str
    bytes: int | None = None
    modified: float = 0.0


def listed(folder: Path) -> Iterator[Entry]:
    """What is in a folder. One request for 1000 names."""
    store, key = _place(folder)
    prefix = f"{key.rstrip('/')}/"
    with explained(str(folder)):
        found = store.list_with_delimiter(prefix)
    for name in found["common_prefixes"]:
        yield Entry(name.rstrip("/").rpartition("/")[2])
    for _, entry in _files(found["objects"], prefix):
        yield entry


def walked(folder: Path) -> Iterator[tuple[str, Entry]]:
    """All that is in a folder and in those below it, by its path in the folder."""
    store, key = _place(folder)
    prefix = f"{key.rstrip('/')}/"
    with explained(str(folder)):
        for page in store.list(prefix):
            yield from _files(page, prefix)


def _files(items: Iterable[ObjectMeta], prefix: str) -> Iterator[tuple[str, Entry]]:
    """Objects of a listing, without the one that S3A writes for an empty folder."""
    for item in items:
        if item["path"] != prefix[:-1]:
            name = item["path"].removeprefix(prefix)
            yield name, Entry(name.rpartition("/")[2], item["size"], item["last_modified"].timestamp())


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Says in the project's errors what S3 refuses. What is not there stays FileNotFoundError.

    Raises:
        ConfigError: there is no such bucket, or there are no credentials.
        OpsError: S3 refuses this role, or does not answer.
    """
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as exc:
        raise OpsError(f"S3 refused {what}. {RIGHTS}") from exc
    except (FileNotFoundError, BaseError) as exc:
        if "NoSuchBucket" in str(exc):
            bucket = what.removeprefix("s3://").partition("/")[0]
            raise ConfigError(f"There is no bucket {bucket}. Make it, or set LAKEHOUSE_HOME.") from exc
        if isinstance(exc, FileNotFoundError):
            raise
        if METADATA_SERVICE in str(exc):
            raise ConfigError(
                f"There are no credentials for {what}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a "
                "role is given. (Profiles of ~/.aws are not read.)"
            ) from exc
        raise OpsError(
            f"S3 did not answer for {what} ({type(exc).__name__}). Look at AWS_REGION, the role and the network, then "
            "run again."
        ) from exc


def _place(path: Path) -> tuple[S3Store, str]:
    bucket, _, key = str(path).removeprefix("s3://").partition("/")
    return _store(bucket, os.environ.get("AWS_ENDPOINT_URL")), key


@lru_cache(maxsize=8)
def _store(bucket: str, endpoint: str | None) -> S3Store:
    from obstore.store import S3Store

    return S3Store(bucket, **_options(endpoint))


def _options(endpoint: str | None) -> dict[str, Any]:
    """Limits of time and tries; http where the endpoint says so, which AWS's own never does."""
    options: dict[str, Any] = {
        "client_options": {
            "connect_timeout": "5s",
            "timeout": "120s",
            "allow_http": (endpoint or "").startswith("http://"),
        },
        "retry_config": {"max_retries": 5, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    }
    return {**options, "endpoint": endpoint} if endpoint else options


@cache
def _register() -> None:
    """Makes `s3://` paths go through obstore, with errors of this project."""
    import fsspec
    from obstore.fsspec import FsspecStore

    class Bucket(FsspecStore):
        protocol = "s3"

        async def _ls(self, path: str, *args: Any, **given: Any) -> Any:
            with explained(path):
                return await super()._ls(path, *args, **given)

        async def _info(self, path: str, **given: Any) -> Any:
            with explained(path):
                return await super()._info(path, **given)

        async def _cat_file(self, path: str, *args: Any, **given: Any) -> bytes:
            with explained(path):
                return await super()._cat_file(path, *args, **given)

        async def _rm_file(self, path: str, **given: Any) -> None:
            with explained(path):
                await super()._rm_file(path, **given)

        def _open(self, path: str, mode: str = "rb", *args: Any, **given: Any) -> Any:
            if mode != "rb":
                raise OpsError(f"{path} is in a bucket, whose objects are written whole.")
            return io.BytesIO(self.cat_file(path))

    fsspec.register_implementation("s3", Bucket, clobber=True)
