"""HMAC-SHA256 (RFC 2104) by an engine that has SHA-256 alone: `H(outer || H(inner || text))`."""

from __future__ import annotations

import hashlib

_BLOCK = 64  # bytes of SHA-256's block, to which HMAC fills its key


def pads(key: bytes) -> tuple[bytes, bytes]:
    """What the inner and the outer hash begin with; a key is told by them, so they are kept as secret."""
    filled = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    return bytes(byte ^ 0x36 for byte in filled), bytes(byte ^ 0x5C for byte in filled)
