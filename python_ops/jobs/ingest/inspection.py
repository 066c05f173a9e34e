"""A delivered file: whether it is whole, and how its records are to be read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

from python_ops.jobs.ingest.formats import format_of
from python_ops.jobs.ingest.formats.binary import schema_of
from python_ops.jobs.ingest.formats.envelopes import SIGNS_OF_WRAPPING
from python_ops.jobs.ingest.formats.values import MAX_EXTRA_COLUMNS, MAX_RECORD_BYTES
from python_ops.jobs.ingest.reasons import reason_of
from python_ops.jobs.ingest.texts import HEAD, MAGIC, scan
from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError
from python_ops.lake.files import on_this_machine
from python_ops.lake.landing import WRAPPED, LandingFile, sha256

csv.field_size_limit(MAX_RECORD_BYTES)

_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*[\[{\]]")
_DELIMITERS = (",", ";", "\t", "|")


def inspect(folder: Path, name: str, contract: Contract) -> LandingFile:
    """Looks at a file: its hash, whether it is whole, and how its records are to be read.

    Raises:
        OpsError: the file cannot be read.
    """
    path = folder / name
    if path.is_symlink():
        raise OpsError(f"{path} is a link, and links are not followed. Deliver the file itself.")
    try:
        with on_this_machine(path) as own:
            size, digest = own.stat().st_size, sha256(own)
            try:
                return _looked_at(own, name, size, digest, contract)
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
    text, fault = scan(path, size, "csv" in wanted)
    head = text.head
    kind = MAGIC.get(head[:4]) or next((kind for kind in wanted if kind in ("lines", "csv")), "lines")
    layout: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    header, schema, delimiter = False, "", ","
    if fault is None and size:
        if kind not in wanted:
            fault = f"not a {contract.format} file, but {kind}"
        else:
            fault = format_of(contract).name_fault(path.name)
    if fault is None and size and kind in ("parquet", "avro"):
        schema, left_out, fault = schema_of(path, kind, contract)
    elif fault is None and size and kind == "lines" and _ARRAY.match(head):
        fault = "a JSON array; deliver one object a line"
    elif fault is None and size and kind == "lines" and _goes_on(head, text.line_end):
        fault = "a JSON value over several lines; deliver one object a line"
    elif fault is None and size and kind == "csv":
        line = head.split(text.line_end.encode(), 1)[0]
        delimiter, is_padded = _delimiter(line, contract)
        layout, header, fault = _layout(line, contract, delimiter[0], is_padded)
    elif contract.format == "debezium_json" and any(word in head for word in SIGNS_OF_WRAPPING):
        schema = WRAPPED
    return LandingFile(
        name, size, digest, fault, kind, layout, header, text.multiline, schema, delimiter, text.line_end,
        text.encoding, left_out,
    )  # fmt: skip


def _goes_on(head: bytes, line_end: str) -> bool:
    """Whether the first JSON value of a file goes on after its first line: an array, or JSON that is indented.

    Read line by line, an object inside of it would be taken for a record.
    """
    text = head.decode("utf-8-sig", "replace").replace(line_end, "\n").lstrip()
    if len(head) >= HEAD:
        text = text[: text.rfind("\n") + 1]
    lines = text.rstrip().split("\n", 1)
    try:
        end = json.JSONDecoder().raw_decode(text)[1]
    except json.JSONDecodeError as exc:
        return len(lines) > 1 and exc.pos >= len(text.rstrip())  # nothing is wrong with it as far as it is seen
    except (RecursionError, ValueError):
        return False
    return end > len(lines[0])


def _delimiter(line: bytes, contract: Contract) -> tuple[str, bool]:
    """What is between the fields of a header line: the one that finds most columns of the contract, or a comma; and
    whether any name has blanks around it. With a blank after it where every name but the first has: blanks are how
    such a writer parts fields, and values have them too. One name with blanks says nothing of them.
    """
    text = line.decode("utf-8-sig", "replace").rstrip("\r").lower()
    wanted = {column.given_name.lower() for column in contract.columns}
    found = max(_DELIMITERS, key=lambda each: len(wanted & {name.strip(' "') for name in text.split(each)}))
    names = text.split(found)
    named = [name for name in names[1:] if name.strip(' "') in wanted]
    padded = [name for name in named if name != name.strip() and name.strip('"') not in wanted]
    parted = f"{found} " if padded and len(padded) == len(named) else found
    return parted, any(name != name.strip() for name in names)


def _layout(
    line: bytes, contract: Contract, delimiter: str, is_padded: bool
) -> tuple[tuple[str, ...], bool, str | None]:
    """Names of a csv file's fields, whether its first line is a header, and what is wrong with it.

    No word of the line is told but the contract's own: what should be a header may be a record.
    """
    if len(line) > MAX_RECORD_BYTES:
        return (), True, f"the first line is longer than {MAX_RECORD_BYTES} bytes"
    text = line.decode("utf-8-sig", "replace").rstrip("\r")
    try:
        given = next(csv.reader([text], delimiter=delimiter, skipinitialspace=is_padded), [])
    except csv.Error as exc:
        mixed = "line ends of two kinds, CR alone and LF; write LF or CRLF"
        return (), True, mixed if "\r" in text else f"the first line cannot be parsed ({exc})"
    wanted = [column.given_name for column in contract.columns]
    format_ = format_of(contract)
    if is_padded:
        given = [name if name in wanted else name.strip() for name in given]
    names = {column.given_name: column.name for column in contract.columns}
    first = [names.get(name, name) for name in folded(given, [*wanted, *format_.fields(contract)])]
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
