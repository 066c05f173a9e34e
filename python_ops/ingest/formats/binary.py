"""Parquet and avro files: their schemas, read on the driver, and their rows as JSON, read by Spark."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Micros are kept, a time without a zone stays one, and NULL stays apart from a column that is not there.
_TO_JSON = "map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSSXXX',"
_TO_JSON += " 'timestampNTZFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSS')"

_MAX_AVRO_HEADER = 1 << 22


def read_rows(spark: SparkSession, paths: list[str], kind: str) -> DataFrame:
    """Rows of files that have one schema, as `raw` (JSON), `_file` and `_line` (number of the row, from 1).

    One file is one partition, so the low 33 bits of Spark's row id count its rows.
    """
    rows = spark.read.format(kind).load(paths)
    columns = ", ".join(f"`{name.replace('`', '``')}`" for name in rows.columns)
    return rows.selectExpr(
        f"to_json(struct({columns}), {_TO_JSON}) as raw",
        "_metadata.file_name as _file",
        "(monotonically_increasing_id() & 8589934591) + 1 as _line",
    )


def schema_of(path: Path, kind: str) -> tuple[str, str | None]:
    """A hash of the file's schema, and why the file cannot be read."""
    text, fault = _parquet(path) if kind == "parquet" else _avro(path)
    return hashlib.sha256(text.encode()).hexdigest()[:16], fault


def _parquet(path: Path) -> tuple[str, str | None]:
    import pyarrow
    from pyarrow import parquet

    try:
        schema = parquet.ParquetFile(path).schema_arrow
    except (pyarrow.ArrowException, OSError) as exc:
        return "", f"not a whole parquet file ({str(exc).splitlines()[0][:200]})"
    names = [name.lower() for name in schema.names]
    if len(set(names)) < len(names):
        return "", "two columns of the parquet file have one name"
    nanos = [f.name for f in schema if pyarrow.types.is_timestamp(f.type) and f.type.unit == "ns"]
    fault = f"timestamps in nanoseconds: {', '.join(nanos)}; write microseconds" if nanos else None
    return "; ".join(f"{field.name} {field.type}" for field in schema), fault


def _avro(path: Path) -> tuple[str, str | None]:
    """The schema in an avro file's header. A file that ends with its sync marker is whole."""
    with path.open("rb") as file:
        data = file.read(_MAX_AVRO_HEADER)
        file.seek(-16, 2)
        tail = file.read()
    try:
        metadata, end = _avro_header(data)
        schema = json.dumps(json.loads(metadata["avro.schema"]), sort_keys=True)
    except (IndexError, KeyError, ValueError) as exc:
        return "", f"not an avro file ({type(exc).__name__} in its header)"
    return schema, None if data[end - 16 : end] == tail else "truncated avro"


def _avro_header(data: bytes) -> tuple[dict[str, bytes], int]:
    """Metadata of an avro object container and the place where its blocks begin, past the sync marker."""
    place = 4
    metadata: dict[str, bytes] = {}

    def number() -> int:
        nonlocal place
        shift = value = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    def chunk() -> bytes:
        nonlocal place
        size = number()
        if not 0 <= size <= len(data) - place:
            raise ValueError(f"a length of {size}")
        place += size
        return data[place - size : place]

    while count := number():
        if count < 0:
            count = -count
            number()
        for _ in range(count):
            name: Any = chunk().decode()
            metadata[name] = chunk()
    return metadata, place + 16
