"""A delivered file: whether it is whole, and how its records are to be read."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from python_ops.jobs.ingest.formats import format_of
from python_ops.jobs.ingest.formats.binary import schema_of
from python_ops.jobs.ingest.formats.envelopes import SIGNS_OF_WRAPPING
from python_ops.jobs.ingest.formats.values import MAX_EXTRA_COLUMNS, MAX_RECORD_BYTES, bomb
from python_ops.jobs.ingest.reasons import reason_of
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError
from python_ops.lake.landing import WRAPPED, LandingFile, sha256

# Spark decompresses these by their names too; here nobody can tell whether such a file is whole or a bomb.
_OTHER_CODECS = (".bz2", ".deflate", ".lz4", ".snappy")

csv.field_size_limit(MAX_RECORD_BYTES)

_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*[\[{\]]")
_BLOCK = 1 << 20
_HEAD = 1 << 16
_MAGIC = {b"PAR1": "parquet", b"Obj\x01": "avro"}


def inspect(folder: Path, name: str, contract: Contract) -> LandingFile:
    """Looks at a file: its hash, whether it is whole, and how its records are to be read.

    Raises:
        OpsError: the file cannot be read.
    """
    path = folder / name
    if path.is_symlink():
        raise OpsError(f"{path} is a link, and links are not followed. Deliver the file itself.")
    try:
        size, digest = path.stat().st_size, sha256(path)
        try:
            return _looked_at(path, name, size, digest, contract)
        except (OpsError, OSError):
            raise
        except Exception as exc:  # what parsers raise of bytes that nobody foresaw: csv.Error, Arrow's, recursion
            return LandingFile(name, size, digest, f"cannot be read ({type(exc).__name__}: {reason_of(exc)})")
    except FileNotFoundError as exc:
        raise OpsError(f"{path} vanished while it was read. Nothing of it was taken; run again.") from exc
    except OSError as exc:
        raise OpsError(f"{path} cannot be read ({exc.strerror}). Give this user read permission.") from exc


def _looked_at(path: Path, name: str, size: int, digest: str, contract: Contract) -> LandingFile:
    """How a file's records are to be read, or what is wrong with it."""
    wanted = format_of(contract).kinds
    head, multiline, fault = _scan(path, size, "csv" in wanted)
    kind = _MAGIC.get(head[:4]) or next((kind for kind in wanted if kind in ("lines", "csv")), "lines")
    layout: tuple[str, ...] = ()
    header, schema = False, ""
    if fault is None and size:
        if kind not in wanted:
            fault = f"not a {contract.format} file, but {kind}"
        else:
            fault = format_of(contract).name_fault(path.name)
    if fault is None and size and kind in ("parquet", "avro"):
        schema, fault = schema_of(path, kind)
    elif fault is None and size and kind == "lines" and _ARRAY.match(head):
        fault = "a JSON array; deliver one object a line"
    elif fault is None and size and kind == "csv":
        layout, header, fault = _layout(head, contract)
    elif contract.format == "debezium_json" and any(word in head for word in SIGNS_OF_WRAPPING):
        schema = WRAPPED
    return LandingFile(name, size, digest, fault, kind, layout, header, multiline, schema)


def _scan(path: Path, size: int, is_csv: bool) -> tuple[bytes, bool, str | None]:
    """The first bytes of a file's text, of a csv file its first line at least; whether a quoted field holds line ends;
    and what is wrong with the file.
    """
    head, line, inflated = b"", b"", 0
    quotes = _Quotes()
    try:
        for text in _texts(path):
            if not head:
                head = text[:_HEAD]
                if _is_utf_16(head):
                    return head, False, "UTF-16; deliver UTF-8"
            if is_csv and b"\n" not in line and len(line) <= MAX_RECORD_BYTES:
                line += text
            inflated += len(text)
            if fault := bomb(inflated, size):
                return head, False, fault
            if is_csv and head[:4] not in _MAGIC:
                quotes.add(text)
    except _BrokenStream as exc:
        return head, False, str(exc)
    return line or head, quotes.hold_line_ends, None


class _BrokenStream(Exception):
    """A compressed stream that is not whole."""


def _texts(path: Path) -> Iterator[bytes]:
    """The text of a file in pieces of bounded size."""
    if path.stat().st_size == 0:
        return
    codec = path.suffix.lower()
    if codec in _OTHER_CODECS:
        raise _BrokenStream(f"compressed as {codec}; deliver .gz or .zst")
    if codec == ".gz":
        try:
            with gzip.open(path) as file:
                while text := file.read(_BLOCK):
                    yield text
        except EOFError as exc:
            raise _BrokenStream("truncated gzip") from exc
        except (zlib.error, gzip.BadGzipFile) as exc:
            raise _BrokenStream(f"not a gzip stream ({exc})") from exc
    elif codec == ".zst":
        import pyarrow

        try:
            with pyarrow.CompressedInputStream(str(path), "zstd") as file:
                while text := file.read(_BLOCK):
                    yield text
        except OSError as exc:
            what = "truncated zstd" if "runcated" in str(exc) else f"not a zstd stream ({exc})"
            raise _BrokenStream(what) from exc
    else:
        with path.open("rb") as file:
            while text := file.read(_BLOCK):
                yield text


class _Quotes:
    """Looks for line ends inside of quotes."""

    def __init__(self) -> None:
        self.inside = self.hold_line_ends = False

    def add(self, text: bytes) -> None:
        """Takes the next piece of the text."""
        if self.hold_line_ends:
            return
        first, *others = text.split(b'"')
        self.hold_line_ends = self.inside and b"\n" in first
        for part in others:
            self.inside = not self.inside
            self.hold_line_ends |= self.inside and b"\n" in part


def _is_utf_16(head: bytes) -> bool:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    fewer, more = sorted((head[::2].count(0), head[1::2].count(0)))
    return len(head) >= 8 and more > len(head) * 0.4 and fewer < len(head) * 0.1


def _layout(head: bytes, contract: Contract) -> tuple[tuple[str, ...], bool, str | None]:
    """Names of a csv file's fields, whether its first line is a header, and what is wrong with it.

    No word of the line is told but the contract's own: what should be a header may be a record.
    """
    line = head.split(b"\n", 1)[0]
    if len(line) > MAX_RECORD_BYTES:
        return (), True, f"the first line is longer than {MAX_RECORD_BYTES} bytes"
    text = line.decode("utf-8-sig", "replace").rstrip("\r")
    try:
        given = next(csv.reader([text]), [])
    except csv.Error as exc:
        alone = "lines end with CR alone; write LF or CRLF"
        return (), True, alone if "\r" in text else f"the first line cannot be parsed ({exc})"
    wanted = [column.given_name for column in contract.columns]
    format_ = format_of(contract)
    known = {name.lower() for name in wanted}
    padded = [name.strip() for name in given if name != name.strip() and name.strip().lower() in known]
    names = {column.given_name: column.name for column in contract.columns}
    first = [names.get(name, name) for name in folded(given, [*wanted, *format_.fields(contract)])]
    if format_.has_header([*first, *padded], contract) and padded:
        return (), True, f"header has blanks around {', '.join(padded)}; write names and values without"
    if (found := format_.layout(first, contract)) is not None:
        return ((), False, found) if isinstance(found, str) else (*found, None)
    missing = [column.name for column in contract.columns if column.required and column.name not in first]
    if missing or len(set(first)) < len(first):
        has = ", ".join(name for name in first if name in names.values()) or "none of the contract's columns"
        others = sum(name not in names.values() for name in first)
        more = f" and {others} other fields" if others else ""
        return (), True, f"header has {has}{more}; the contract wants {', '.join(wanted)}"
    extra = set(first) - {column.name for column in contract.columns}
    if len(extra) > MAX_EXTRA_COLUMNS:
        return (), True, f"more than {MAX_EXTRA_COLUMNS} columns that the contract lacks"
    return tuple(first), True, None


def folded(given: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names, those that differ from a known one by their case alone as that one, where it is not there itself."""
    missing = {name.lower(): name for name in known if name not in given}
    return [name if name in known else missing.get(name.lower(), name) for name in given]
