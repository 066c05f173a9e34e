"""Files of a landing folder: which are there, and whether each is whole."""

from __future__ import annotations

import csv
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from python_ops.contracts import Contract
from python_ops.errors import OpsError


@dataclass(frozen=True)
class LandingFile:
    """A file as it stood when its batch was frozen.

    Attributes:
        name: Base name.
        bytes: Size.
        sha256: Hash of its bytes.
        fault: Why the whole file is rejected; None when it is taken.
    """

    name: str
    bytes: int
    sha256: str
    fault: str | None = None


def names(folder: Path) -> list[str]:
    """Names of the delivered files in name order; hidden files, `_…` and `….tmp` are still being written.

    Raises:
        OpsError: the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if path.is_file()] if folder.exists() else []
    except OSError as exc:
        raise OpsError(f"{folder} cannot be read ({exc.strerror}). Give this user read and search permission.") from exc
    return sorted(path.name for path in found if not path.name.startswith((".", "_")) and path.suffix != ".tmp")


def inspect(folder: Path, name: str, contract: Contract) -> LandingFile:
    """Reads a file once: its hash, whether its gzip stream is whole, and whether a csv header is the contract's.

    Raises:
        OpsError: the file cannot be read.
    """
    path = folder / name
    digest = hashlib.sha256()
    size = 0
    head = b""
    fault = None
    inflate = zlib.decompressobj(wbits=31) if path.suffix == ".gz" else None
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                size += len(block)
                digest.update(block)
                if inflate is None:
                    head = head or block[:65536]
                elif fault is None:
                    try:
                        inflate, text = _inflate(inflate, block)
                        head = head or text[:65536]
                    except zlib.error as exc:
                        fault = f"not a gzip stream ({exc})"
    except OSError as exc:
        raise OpsError(f"{path} cannot be read ({exc.strerror}). Give this user read permission.") from exc
    if inflate is not None and fault is None and size > 0 and not inflate.eof:
        fault = "truncated gzip"
    if contract.format == "csv" and fault is None and size > 0:
        fault = _header_fault(head, contract)
    return LandingFile(name, size, digest.hexdigest(), fault)


def _inflate(inflate: zlib._Decompress, block: bytes) -> tuple[zlib._Decompress, bytes]:
    """Text of a block; a gzip file may hold several members."""
    text = inflate.decompress(block)
    while inflate.eof and inflate.unused_data.strip(b"\0"):
        rest = inflate.unused_data
        inflate = zlib.decompressobj(wbits=31)
        text += inflate.decompress(rest)
    return inflate, text


def _header_fault(head: bytes, contract: Contract) -> str | None:
    line = head.split(b"\n", 1)[0].decode("utf-8-sig", "replace").rstrip("\r")
    given = next(csv.reader([line]), [])
    wanted = [column.name for column in contract.columns]
    if given != wanted:
        return f"header has {', '.join(given)}; the contract wants {', '.join(wanted)}"
    return None
