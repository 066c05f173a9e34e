"""Landing files of an extraction: written as drafts, then put in place whole.

A reader of the folder sees a file whole or not at all. The same rows give the same bytes.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from python_ops.jobs.extract.reader import Row, moment
from python_ops.jobs.extract.sources import ENDINGS
from python_ops.lake.contracts import Column, Contract
from python_ops.lake.errors import OpsError
from python_ops.lake.files import draft_of, settle
from python_ops.lake.landing import sha256

_TO_QUOTE = re.compile(r'[",\r\n\\]|^\s|\s$')


@dataclass(frozen=True)
class File:
    """A landing file that is complete."""

    name: str
    rows: int
    bytes: int
    sha256: str


class LandingDraft:
    """A landing file that is being written.

    Args:
        name: Name that the file will have.
    """

    def __init__(self, folder: Path, name: str, contract: Contract) -> None:
        self.path = folder / name
        self.draft = draft_of(self.path)
        self.rows = 0
        self.file = self.draft.open("wb")
        bodies: dict[str, type[_Body]] = {"csv": _Csv, "jsonl": _Lines, "parquet": _Parquet}
        self.body = bodies[contract.format](self.file, contract)

    def write(self, rows: Sequence[Row]) -> None:
        """Appends rows.

        Raises:
            OpsError: a value cannot be written in the contract's format.
        """
        self.body.write(rows)
        self.rows += len(rows)

    def finish(self, before: Callable[[], None]) -> File:
        """Makes the file visible under its name.

        Args:
            before: Called when the file is whole and not visible yet; may raise to drop it.
        """
        self.body.close()
        self.file.close()
        done = File(self.path.name, self.rows, self.draft.stat().st_size, sha256(self.draft))
        before()
        settle(self.draft, self.path)
        return done

    def drop(self) -> None:
        """Removes the unfinished file, if there is one."""
        with suppress(Exception):  # a writer that failed may fail again at its end
            self.body.close()
        self.file.close()
        self.draft.unlink(missing_ok=True)


def clean(folder: Path, source: str) -> list[str]:
    """Removes drafts that a killed run left.

    Returns:
        Their names.
    """
    found = sorted(folder.glob(".*.tmp")) if folder.is_dir() else []
    left = [path for path in found if number_of(source, path.name[1:])]
    for path in left:
        path.unlink(missing_ok=True)
    return [path.name for path in left]


def numbered(source: str, number: int, until: datetime, contract: Contract) -> str:
    """Name of a landing file. Its number makes the order of names the order of delivery, whatever the clocks say."""
    return f"{source}_{number:06d}_{until:%Y%m%dT%H%M%SZ}.{ENDINGS[contract.format]}"


def number_of(source: str, name: str) -> int:
    """Number in a landing file's name; 0 where an extraction did not make it."""
    found = re.match(rf"{re.escape(source)}_(\d{{6,}})_", name)
    return int(found[1]) if found else 0


class _Body(Protocol):
    def __init__(self, file: BinaryIO, contract: Contract) -> None: ...

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """Zipped lines, one object of JSON each; numbers keep their digits."""

    def __init__(self, file: BinaryIO, contract: Contract) -> None:
        self.names = [column.name for column in contract.columns]
        self.zip = gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0)

    def write(self, rows: Sequence[Row]) -> None:
        self.zip.write("".join(self.line(row) + "\n" for row in rows).encode("utf-8", "surrogatepass"))

    def line(self, row: Row) -> str:
        return as_json(dict(row))

    def close(self) -> None:
        self.zip.close()


class _Csv(_Lines):
    """Header line, LF, double quotes doubled; NULL is an empty field and an empty text is `""`."""

    def __init__(self, file: BinaryIO, contract: Contract) -> None:
        super().__init__(file, contract)
        self.zip.write((",".join(self.names) + "\n").encode())

    def line(self, row: Row) -> str:
        return ",".join(_field(row.get(name)) for name in self.names)


def _field(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else as_text(value)
    if text == "" or _TO_QUOTE.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


class _Parquet:
    """The contract's columns. A decimal is written as text, so that no scale of the file cuts its digits."""

    def __init__(self, file: BinaryIO, contract: Contract) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.pa, self.columns = pa, contract.columns
        types: dict[str, Any] = {
            "string": pa.string(), "boolean": pa.bool_(), "int": pa.int64(), "bigint": pa.int64(), "date": pa.date32(),
            "timestamp": pa.timestamp("us", tz="UTC"),
        }  # fmt: skip
        self.schema = pa.schema([(column.name, types.get(column.type, pa.string())) for column in contract.columns])
        self.writer = pq.ParquetWriter(file, self.schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        arrays = []
        for column in self.columns:
            try:
                values = [_typed(column, row.get(column.name)) for row in rows]
                arrays.append(self.pa.array(values, self.schema.field(column.name).type))
            except (self.pa.ArrowException, ValueError, ArithmeticError, TypeError) as exc:
                raise OpsError(
                    f"column {column.name} holds a value that is not a {column.type} ({type(exc).__name__}). Has the "
                    "source's column changed its type? Correct it, or raise the contract's version."
                ) from exc
        self.writer.write_batch(self.pa.record_batch(arrays, schema=self.schema))

    def close(self) -> None:
        self.writer.close()


def _typed(column: Column, value: Any) -> Any:
    """A driver's value as the type that the column's parquet type wants."""
    if value is None:
        return None
    if column.type == "string" or column.precision_and_scale:
        return value if isinstance(value, str) else as_text(value)
    if column.type == "timestamp":
        found = moment(value)
        if found is None:
            raise TypeError(type(value).__name__)
        return found
    if column.type == "date":
        return date.fromisoformat(value) if isinstance(value, str) else value
    if column.type in ("int", "bigint"):
        number = Decimal(str(value))
        if isinstance(value, bool) or number != number.to_integral_value():
            raise ValueError(column.type)
        return int(number)
    return value


def as_text(value: Any) -> str:
    """A value as ingestion reads it from text: times in UTC with zone, decimals without exponent, else JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        given = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        return given.isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _plain(value)
    if isinstance(value, (dict, list)):
        return as_json(value)
    return str(value)


def as_json(value: Any) -> str:
    """JSON text; unlike the standard library's, a decimal is a number with all its digits."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(k), ensure_ascii=False)}:{as_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(as_json, value)) + "]"
    if isinstance(value, Decimal) and value.is_finite():
        return _plain(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(as_text(value), ensure_ascii=False)


def _plain(number: Decimal) -> str:
    """All digits of a number, unless its exponent would make millions of them."""
    return f"{number:f}" if number.is_finite() and abs(number.adjusted()) < 100 else str(number)
