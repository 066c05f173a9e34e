"""Landing files without some people: each is written again by its own format, and the ledger follows.

Of a text, an erased record leaves empty lines, which ingestion ignores; so all others keep their line numbers. Of a
parquet or Avro file its row is left out, and those after it move up.
"""

from __future__ import annotations

import gzip
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from python_ops.jobs.ingest.formats.binary import schema_of
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.reading import MAX_LINES, record_pattern
from python_ops.lake import landing
from python_ops.lake.erasure import Subject
from python_ops.lake.errors import OpsError
from python_ops.lake.files import draft_of, on_this_machine, settle
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile, sha256
from python_ops.run.erasure.people import GONE, Seeker, csv_fields


@dataclass(frozen=True)
class Rewritten:
    """A file with people in it, or one that was not searched, or that stays as it is, with the reason (`fault`).

    Attributes:
        found: Records by subject.
    """

    source: str
    name: str
    found: Counter[Subject]
    fault: str | None = None


def erase_files(lake: Lake, seeker: Seeker, execute: bool = False) -> Iterator[Rewritten]:
    """Goes through the landing folder of a source, waiting files too.

    Args:
        execute: Write the files; otherwise only count.

    Raises:
        OpsError: a file cannot be read or written.
    """
    source = seeker.contract.source
    folder, taken = lake.landing / source, lake.ledger(source).taken()
    with tempfile.TemporaryDirectory(prefix="lakeops-erase-") as scratch:
        for name in landing.names(folder, seeker.contract):
            file = taken.get(name) or inspect(folder, name, seeker.contract)
            if file.fault is not None:
                yield Rewritten(source, name, Counter(), f"was rejected as a whole ({file.fault})")
                continue
            seeker.found = Counter()
            draft = draft_of(folder / name) if execute else Path(scratch, "counted")  # a plan touches nothing there
            try:
                with on_this_machine(folder / name) as own:
                    _write(own, draft, file, seeker)
                if seeker.found and execute:
                    _check_gone(draft, file, seeker)
                    settled = _as_written(draft, file, seeker)
                    _tell_ledger(lake, source, settled)  # first: a crash in between is mended by the next run
                    settle(draft, folder / name)
            except (OverflowError, ValueError) as exc:  # a time beyond Python's, in Avro
                yield Rewritten(source, name, Counter(), f"cannot be written again ({type(exc).__name__})")
                continue
            finally:
                draft.unlink(missing_ok=True)
            if seeker.found:
                yield Rewritten(source, name, seeker.found)


def _check_gone(draft: Path, file: LandingFile, seeker: Seeker) -> None:
    """Reads what was written once more.

    Raises:
        OpsError: somebody is still in it, such as by a name that is spelled with escapes; the file stays as it was.
    """
    again = replace(seeker, found=Counter())
    with tempfile.NamedTemporaryFile(prefix="lakeops-erase-") as nowhere:
        _write(draft, Path(nowhere.name), file, again)
    if again.found:
        raise OpsError(
            f"{seeker.contract.source}/{file.name} has {again.found.total()} records that could not be keyed anew, "
            "because of how they are written. The file is as it was. Correct these records, or remove the file."
        )


def _as_written(draft: Path, file: LandingFile, seeker: Seeker) -> LandingFile:
    schema = schema_of(draft, file.kind, seeker.contract)[0] if file.kind in ("parquet", "avro") else file.schema
    return replace(file, bytes=draft.stat().st_size, sha256=sha256(draft), schema=schema)


def _tell_ledger(lake: Lake, source: str, file: LandingFile) -> None:
    ledger = lake.ledger(source)
    for manifest in [m for m in ledger.manifests if any(given.name == file.name for given in m.files)]:
        files = tuple(
            replace(file, fault=given.fault) if given.name == file.name else given for given in manifest.files
        )
        ledger.save(replace(manifest, files=files))


def _write(path: Path, draft: Path, file: LandingFile, seeker: Seeker) -> None:
    if file.kind == "parquet":
        _write_parquet(path, draft, seeker)
    elif file.kind == "avro":
        _write_avro(path, draft, seeker)
    else:
        with (
            _text(path, "r", file, Path(file.name).suffix) as lines,
            _text(draft, "w", file, Path(file.name).suffix) as out,
        ):
            for record in _records(lines, file):
                out.write(_without(record, file, seeker))


def _without(record: str, file: LandingFile, seeker: Seeker) -> str:
    """A record as it is to be, with its line ends."""
    body = record.removesuffix(file.line_end)
    end = record[len(body) :]
    if not body.strip():
        return record
    left = seeker.csv_record(body, file.layout, file.delimiter) if file.kind == "csv" else seeker.json_line(body)
    if left == body:
        return record
    return (file.line_end * body.count(file.line_end) if left == GONE else left) + end


def _records(lines: IO[str], file: LandingFile) -> Iterator[str]:
    """Lines; of a csv file those of one record together, as ingestion joins them."""
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if not file.multiline or "".join(waiting).count('"') % 2 == 0:
            yield from _joined(waiting, file)
            waiting = []
        elif len(waiting) > MAX_LINES:  # an unbalanced quote: each line is a record
            yield from waiting
            waiting = []
    yield from waiting


def _joined(lines: list[str], file: LandingFile) -> list[str]:
    """Lines as one record, if they are one; two unbalanced quotes enclose other people's records."""
    if len(lines) == 1:
        return lines
    text = "".join(lines)
    body = text.removesuffix(file.line_end)
    is_one = re.fullmatch(record_pattern(file.delimiter)[1:-1], body.removesuffix("\r"))
    fields = csv_fields(body, file.delimiter) if is_one else None
    return [text] if fields is not None and len(fields) == len(file.layout) else lines


@contextmanager
def _text(path: Path, mode: str, file: LandingFile, codec: str) -> Iterator[IO[str]]:
    """A text that is read and written as it is: line ends and bytes that are not UTF-8 among it."""
    import pyarrow

    raw: Any
    if codec.lower() == ".gz":
        raw = gzip.GzipFile(filename="", fileobj=path.open(f"{mode}b"), mode=f"{mode}b", mtime=0)
    elif codec.lower() == ".zst":
        made = pyarrow.CompressedInputStream if mode == "r" else pyarrow.CompressedOutputStream
        raw = made(str(path) if mode == "r" else pyarrow.OSFile(str(path), "wb"), "zstd")
    else:
        raw = path.open(f"{mode}b")
    encoding = re.sub("^UTF-16", "utf-16-", file.encoding).lower() if "16" in file.encoding else "utf-8"
    buffered = io.BufferedReader(raw) if codec.lower() == ".zst" and mode == "r" else raw
    end = file.line_end if mode == "r" else ""
    with io.TextIOWrapper(buffered, encoding, errors="surrogateescape", newline=end) as text:
        yield text
    raw.close()


def _write_parquet(path: Path, draft: Path, seeker: Seeker) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    opened = parquet.ParquetFile(path, coerce_int96_timestamp_unit="us")  # nanoseconds do not reach to year 1 or 9999
    stored = {opened.schema.column(number).physical_type for number in range(len(opened.schema))}
    options: dict[str, Any] = {"use_deprecated_int96_timestamps": "INT96" in stored}
    with parquet.ParquetWriter(draft, opened.schema_arrow, **options) as writer:
        for number in range(opened.num_row_groups):
            rows = opened.read_row_group(number)
            keep = [True] * rows.num_rows
            for at, name in enumerate(rows.schema.names):
                if not any(
                    c.name.lower() == name.lower() or c.given_name.lower() == name.lower() for c in seeker.columns
                ):
                    continue
                values = rows.column(at).to_pylist()
                for row, value in enumerate(values):
                    for column, subject in seeker.hits(name, value):
                        seeker.found[subject] += 1
                        if column.on_erasure == "rekey":
                            values[row] = seeker.hashing.pseudonym(subject)
                        else:
                            keep[row] = False
                rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
            writer.write_table(rows.filter(pa.array(keep)))


def _write_avro(path: Path, draft: Path, seeker: Seeker) -> None:
    import fastavro

    with path.open("rb") as file, draft.open("wb") as out:
        reader = fastavro.reader(file)
        kept: list[Any] = []
        for row in reader:
            assert isinstance(row, dict)
            hits = [(name, *hit) for name, value in row.items() for hit in seeker.hits(name, value)]
            seeker.found.update({subject for _, _, subject in hits})
            if all(column.on_erasure == "rekey" for _, column, _ in hits):
                kept.append(row | {name: seeker.hashing.pseudonym(subject) for name, _, subject in hits})
        if reader.writer_schema is None:
            raise OpsError(f"{path} has no Avro schema.")
        fastavro.writer(out, reader.writer_schema, kept, codec=reader.codec)
