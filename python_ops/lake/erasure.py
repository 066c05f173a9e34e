"""People who were erased: how they are known again when they are delivered again, without a word of who they were.

Of a person stays a record in the state store, named by a keyed hash: HMAC-SHA256 (RFC 2104) with the secret
`erasure_key`. Without the key, nobody can tell whether a given person is among them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from python_ops.lake.errors import ConfigError
from python_ops.lake.keyed_hash import pads
from python_ops.lake.lake import Lake
from python_ops.lake.secrets.forms import LEAST_KEY

KIND = "erased"
"""Kind of the records in the state store; a record's name is `<kind of subject>.<hash>`."""

SECRET = "erasure_key"

PSEUDONYM = "erased-"
"""What a column that is keyed anew begins with."""


@dataclass(frozen=True)
class Subject:
    """A person, by what identifies them: `contact_id` and its value. The value is never printed."""

    kind: str
    value: str

    def __repr__(self) -> str:
        return f"Subject({self.kind!r}, ***)"


@dataclass(frozen=True)
class Hashing:
    """The keyed hash of a home's subjects. `repr` has no key."""

    _key: bytes

    def __repr__(self) -> str:
        return "Hashing(***)"

    def pads(self, kind: str) -> tuple[bytes, bytes]:
        """What the inner and the outer hash of a kind's HMAC begin with, for an engine that has SHA-256 alone."""
        return pads(self._of(kind))

    def digest(self, subject: Subject) -> str:
        """The hash of a subject, 64 hexadecimal digits."""
        return hmac.new(self._of(subject.kind), subject.value.encode(), hashlib.sha256).hexdigest()

    def pseudonym(self, subject: Subject) -> str:
        """What stands for a subject in rows that are kept: always the same, so that a repeated row is no other one."""
        return PSEUDONYM + self.digest(subject)[:32]

    def check(self) -> str:
        """Tells whether a later key is this one."""
        return hmac.new(self._key, b"check", hashlib.sha256).hexdigest()[:16]

    def _of(self, kind: str) -> bytes:
        return hmac.new(self._key, kind.encode(), hashlib.sha256).digest()


def hashing(lake: Lake) -> Hashing:
    """The hash with the environment's key.

    Raises:
        ConfigError: the secret is not set, is too short, or is not the key of those who were erased before.
    """
    text = lake.secrets.get(SECRET).reveal().strip()
    if len(text) < LEAST_KEY["erasure"]:
        raise ConfigError(
            f"Secret {SECRET} has fewer than {LEAST_KEY['erasure']} characters, so hashes could be guessed. Make one "
            "with `openssl rand -hex 32` and keep it for good."
        )
    made = Hashing(text.encode())
    for name in lake.store.names(KIND)[:1]:
        record = lake.store.get(KIND, name)
        if record and record.value.get("key_check") != made.check():
            raise ConfigError(
                f"Secret {SECRET} is not the key with which people were erased here, so they would not be known "
                "again. Set the earlier key. Nothing was written."
            )
    return made


def suppressed(lake: Lake) -> Mapping[str, frozenset[str]]:
    """Hashes of all who were erased, by kind of subject."""
    found: dict[str, set[str]] = {}
    for name in lake.store.names(KIND):
        kind, _, digest = name.rpartition(".")
        found.setdefault(kind, set()).add(digest)
    return {kind: frozenset(digests) for kind, digests in found.items()}


def receipts(lake: Lake) -> dict[str, Mapping[str, Any]]:
    """What was recorded of each erasure, by the record's name."""
    given = ((name, lake.store.get(KIND, name)) for name in lake.store.names(KIND))
    return {name: record.value for name, record in given if record}


def erased_at(lake: Lake) -> dict[str, datetime]:
    """When people were last erased from a table, by `schema.table`."""
    found: dict[str, datetime] = {}
    for told in receipts(lake).values():
        at = datetime.fromisoformat(told["at"])
        found |= {table: max(at, found.get(table, at)) for table in told.get("tables", ())}
    return found


def keep_receipt(lake: Lake, name: str, value: Mapping[str, Any]) -> None:
    """Writes a record, in place of the one before it.

    Raises:
        BusyError: another process writes it.
    """
    before = lake.store.get(KIND, name)
    lake.store.put(KIND, name, value, before.revision if before else 0)
