"""Texts of delivered files: their encoding, line ends and compression, and whether they are whole."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from python_ops.jobs.ingest.formats.values import MAX_RECORD_BYTES, bomb

HEAD = 1 << 16
"""Bytes of a text's head."""

MAGIC = {b"PAR1": "parquet", b"Obj\x01": "avro"}
"""How files begin that are no text."""

_BLOCK = 1 << 20

# Spark decompresses these by their names too; here nobody can tell whether such a file is whole or a bomb.
_OTHER_CODECS = (".bz2", ".deflate", ".lz4", ".snappy")

# How compressed files begin, for those whose names do not say it.
_PACKED = {
    "gzip": rb"\x1f\x8b", "zstd": rb"\x28\xb5\x2f\xfd", "zip": rb"PK(\x03\x04|\x05\x06)", "7z": rb"7z\xbc\xaf\x27\x1c",
    "bzip2": rb"BZh[1-9]1AY&SY", "xz": rb"\xfd7zXZ\x00", "snappy": rb"\xff\x06\x00\x00sNaPpY", "lz4": rb"\x04\x22M\x18",
}  # fmt: skip

# Those of them that are read, by the end of the name.
_READ = {"gzip": ".gz", "zstd": ".zst"}


@dataclass(frozen=True)
class Text:
    """How a file's text is written.

    Attributes:
        head: Its first bytes in UTF-8, of a csv file its first line at least.
        multiline: A quoted field holds line ends.
        line_end: Of its lines.
        encoding: Of its bytes.
    """

    head: bytes = b""
    multiline: bool = False
    line_end: str = "\n"
    encoding: str = "UTF-8"


def scan(path: Path, size: int, is_csv: bool) -> tuple[Text, str | None]:
    """How a file's text is written, and what is wrong with the file."""
    head, line, inflated = b"", b"", 0
    line_end, encoding = "\n", "UTF-8"
    quotes, utf_16 = _Quotes(b"\n"), None
    try:
        for block in _texts(path):
            if not inflated:
                if fault := _packed(block):
                    return Text(block[:HEAD]), fault
                if block[:4] not in MAGIC and (found := _utf_16(block[:HEAD])):
                    encoding, utf_16 = found, _Utf16(found)
            text = utf_16.add(block) if utf_16 else block
            if not inflated:
                head = text[:HEAD]
                if head[:4] not in MAGIC and b"\r" in text[:-1] and b"\n" not in text:
                    line_end, quotes = "\r", _Quotes(b"\r")
            if line_end == "\r" and b"\n" in text:
                return Text(head), "line ends of two kinds, CR alone and LF; write LF or CRLF"
            if is_csv and line_end.encode() not in line and len(line) <= MAX_RECORD_BYTES:
                line += text
            inflated += len(block)
            if fault := bomb(inflated, size):
                return Text(head), fault
            if is_csv and head[:4] not in MAGIC:
                quotes.add(text)
        if utf_16 and (fault := utf_16.end()):
            return Text(head), fault
    except UnicodeDecodeError:
        return Text(head), f"not valid {encoding}"
    except _BrokenStream as exc:
        return Text(head), str(exc)
    return Text(line or head, quotes.hold_line_ends, line_end, encoding), None


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

    def __init__(self, line_end: bytes) -> None:
        self.line_end = line_end
        self.inside = self.hold_line_ends = False

    def add(self, text: bytes) -> None:
        """Takes the next piece of the text."""
        if self.hold_line_ends:
            return
        first, *others = text.split(b'"')
        self.hold_line_ends = self.inside and self.line_end in first
        for part in others:
            self.inside = not self.inside
            self.hold_line_ends |= self.inside and self.line_end in part


class _Utf16:
    """Decodes a text in UTF-16, and counts its line ends as Spark finds them: by two bytes, wherever they begin."""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ends = [end.encode(encoding) for end in "\n\r"]
        self._by_bytes = self._by_characters = 0
        self._last = b""

    def add(self, block: bytes) -> bytes:
        """The next piece of the text in UTF-8."""
        text = self._decoder.decode(block)
        self._by_bytes += sum((self._last + block).count(end) for end in self._ends)
        self._by_characters += text.count("\n") + text.count("\r")
        self._last = block[-1:]
        return text.encode()

    def end(self) -> str | None:
        """What is wrong with the whole text."""
        self._decoder.decode(b"", final=True)
        if self._by_bytes == self._by_characters:
            return None
        return "UTF-16 in which two characters look like a line end; deliver UTF-8"


def _utf_16(head: bytes) -> str | None:
    """The encoding of a text in UTF-16, with or without a byte order mark."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16LE" if head[0] == 0xFF else "UTF-16BE"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= 8 and max(even, odd) > len(head) * 0.4 and min(even, odd) < len(head) * 0.1:
        return "UTF-16LE" if odd > even else "UTF-16BE"
    return None


def _packed(head: bytes) -> str | None:
    """Why a text is not read that is another file's container, or UTF-32."""
    if head[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "UTF-32; deliver UTF-8"
    found = next((name for name, magic in _PACKED.items() if re.match(magic, head)), None)
    if found in _READ:
        return f"compressed as {found}, which its name does not say; deliver it as {_READ[found]}"
    return f"compressed as {found}, which is not read; deliver .gz or .zst" if found else None
