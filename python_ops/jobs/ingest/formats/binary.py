"""Parquet and avro files: their schemas, read on the driver, and their rows as JSON, read by Spark."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from python_ops.jobs.ingest.formats.values import bomb
from python_ops.lake.contracts import MAX_PRECISION, Contract
from python_ops.lake.errors import first_line
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

# Micros are kept, a time without a zone stays one, and NULL stays apart from a column that is not there.
_TO_JSON = "map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSSXXX',"
_TO_JSON += " 'timestampNTZFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSS')"

_MAX_AVRO_BLOCK, _PIECE = 1 << 28, 1 << 20


def place(folder: Path) -> tuple[str, str]:
    """SQL of a row's file, by its path in the landing folder, and number, where every file is one partition.

    Spark gives a path as in an address. One file is one partition, read from its start, so the low 33 bits of Spark's
    row id count its rows.
    """
    given = "_metadata.file_path"
    path = f"case when contains({given}, '%') then url_decode(replace({given}, '+', '%2B')) else {given} end"
    return (
        f"substring_index({path}, '{escaped(str(folder))}/', -1) as _file",
        "(monotonically_increasing_id() & 8589934591) + 1 as _line",
    )


def read_rows(
    spark: SparkSession, paths: list[str], kind: str, folder: Path, schema: StructType | None = None
) -> DataFrame:
    """Rows of files that have one schema, as `_raw` (JSON), `_file` and `_line` (number of the row, from 1)."""
    reader = spark.read.format(kind)
    rows = (reader.schema(schema) if schema else reader).load(paths)
    columns = ", ".join(f"`{name.replace('`', '``')}`" for name in rows.columns)
    return rows.selectExpr(f"to_json(struct({columns}), {_TO_JSON}) as _raw", *place(folder))


def readable(path: Path, left_out: Sequence[str]) -> StructType:
    """The schema of a parquet file without some of its columns, for Spark, which else looks at all of them."""
    import pyarrow
    from pyarrow import parquet
    from pyspark.sql.pandas.types import from_arrow_schema

    file = parquet.ParquetFile(path)
    stored = {file.schema.column(n).path: file.schema.column(n).physical_type for n in range(len(file.schema))}
    fields = []
    for field in file.schema_arrow:
        if field.name in left_out:
            continue
        is_int96 = stored.get(field.name) == "INT96"
        fields.append(pyarrow.field(field.name, pyarrow.timestamp("us", "UTC") if is_int96 else _as_spark(field.type)))
    return from_arrow_schema(pyarrow.schema(fields), prefer_timestamp_ntz=True)


def _as_spark(kind: Any) -> Any:
    """The type that Spark reads one as: whole numbers for nanoseconds, the next larger signed one for unsigned."""
    import pyarrow

    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind):
        return pyarrow.list_(_as_spark(kind.value_type))
    if types.is_map(kind):
        return pyarrow.map_(_as_spark(kind.key_type), _as_spark(kind.item_type))
    if types.is_struct(kind):
        return pyarrow.struct([pyarrow.field(inner.name, _as_spark(inner.type)) for inner in kind])
    if types.is_duration(kind) or (types.is_timestamp(kind) and kind.unit == "ns"):
        return pyarrow.int64()
    signed = {
        pyarrow.uint8(): pyarrow.int16(), pyarrow.uint16(): pyarrow.int32(), pyarrow.uint32(): pyarrow.int64(),
        pyarrow.uint64(): pyarrow.decimal128(20, 0),
    }  # fmt: skip
    return signed.get(kind, kind)


def schema_of(path: Path, kind: str, contract: Contract) -> tuple[str, tuple[str, ...], str | None]:
    """A hash of the file's schema, columns that are left out, and why the file cannot be read."""
    text, left_out, fault = _parquet(path, contract) if kind == "parquet" else _avro(path)
    return hashlib.sha256(text.encode()).hexdigest()[:16], left_out, fault


def _parquet(path: Path, contract: Contract) -> tuple[str, tuple[str, ...], str | None]:
    import pyarrow
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(path)
        schema, described = opened.schema_arrow, opened.metadata
    except (pyarrow.ArrowException, OSError) as exc:
        return "", (), f"not a whole parquet file ({first_line(exc, 200)})"
    names = [name.lower() for name in schema.names]
    if len(set(names)) < len(names):
        return "", (), "two columns of the parquet file have one name"
    wanted = {column.given_name.lower() for column in contract.columns}
    unreadable = list(_unreadable(opened.schema, contract))
    of = {path: _top(path, schema.names) for path, _ in unreadable}
    faults = [f"{path} ({told})" for path, told in unreadable if of[path].lower() in wanted]
    left_out = tuple(dict.fromkeys(name for name in of.values() if name.lower() not in wanted))
    fault = f"columns of a type that is not read: {', '.join(faults)}" if faults else None
    # Repeated values take next to no bytes, so rows count too.
    bytes_said = sum(described.row_group(number).total_byte_size for number in range(described.num_row_groups))
    fault = fault or bomb(max(bytes_said, described.num_rows), path.stat().st_size)
    # Arrow has one type for INT96 and nanoseconds; Spark does not read the two together.
    stored = [opened.schema.column(number).physical_type for number in range(len(opened.schema))]
    return "; ".join([*(f"{field.name} {field.type}" for field in schema), *stored]), left_out, fault


def _top(path: str, names: Sequence[str]) -> str:
    """The file's column that a leaf is of; a column's own name may have dots."""
    return max((name for name in names if f"{path}.".startswith(f"{name}.")), key=len)


def _unreadable(schema: Any, contract: Contract) -> Iterator[tuple[str, str]]:
    """Columns of a parquet file of types that Spark does not read, or not exactly, with what to write instead.

    INT96, in which Spark, Hive and Impala write timestamps, is none of them: Arrow alone takes it for nanoseconds.
    Nanoseconds are read as whole numbers: a column of the contract must accept them, others' go to `_extra`.
    """
    wanted = {column.given_name.lower(): column for column in contract.columns}
    for number in range(len(schema)):
        column = schema.column(number)
        logical = json.loads(column.logical_type.to_json())
        kind, digits = logical["Type"], logical.get("precision") or 0
        if kind == "Timestamp" and logical["timeUnit"] == "nanoseconds":
            asked = wanted.get(column.path.lower())
            needed = {"epoch_ns"} if logical["isAdjustedToUTC"] else {"epoch_ns", "no_zone"}
            if asked is not None and (lacking := needed - set(asked.accepts)):
                accept = " and ".join(f"`{name}`" for name in sorted(lacking))
                yield column.path, f"timestamps in nanoseconds; write microseconds, or accept {accept}"
        elif kind == "Time":
            yield column.path, "TIME; write a text"
        elif kind == "Float16":
            yield column.path, "FLOAT16; write a FLOAT"
        elif kind == "Decimal" and digits > MAX_PRECISION:
            yield column.path, f"a decimal of {digits} digits; {MAX_PRECISION} are held"


def _avro(path: Path) -> tuple[str, tuple[str, ...], str | None]:
    schema, fault = _avro_header_and_blocks(path)
    return schema, (), fault


def _avro_header_and_blocks(path: Path) -> tuple[str, str | None]:
    """The schema in an avro file's header, and what is wrong with the header or a block.

    The format: https://avro.apache.org/docs/1.12.0/specification/#object-container-files.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            file.seek(4)
            metadata = _avro_metadata(file)
            described = json.loads(metadata["avro.schema"])
            schema, recursive = json.dumps(described, sort_keys=True), _recursive(described)
            sync = file.read(16)
        except (EOFError, KeyError, ValueError, RecursionError, TypeError, AttributeError) as exc:
            return "", f"not an avro file ({type(exc).__name__} in its header)"
        if recursive:
            return schema, f"the type {recursive} holds itself, which is not read; write a reference in its place"
        if len(sync) < 16:
            return schema, "truncated avro"
        codec = metadata.get("avro.codec", b"null").decode("ascii", "replace")
        if codec not in _INFLATED:
            return schema, f"compressed as {codec}; write {', '.join(_INFLATED)}"
        rows = inflated = 0
        try:
            while file.tell() < size:
                rows, block = rows + _long(file), _bytes(file)
                if file.read(16) != sync:
                    return schema, "truncated avro"
                for piece in chain((0,), _INFLATED[codec](block)):
                    inflated += piece
                    if fault := bomb(max(inflated, rows), size):
                        return schema, fault
        except EOFError:
            return schema, "truncated avro"
        except (ValueError, zlib.error, OSError) as exc:
            return schema, f"not a whole avro file ({exc})"
    return schema, None


def _recursive(schema: Any, space: str = "", inside: frozenset[str] = frozenset()) -> str | None:
    """The first named type that holds a value of itself."""
    if isinstance(schema, str):
        return next((name for name in (schema, f"{space}.{schema}") if name in inside), None)
    if isinstance(schema, list):
        parts = schema
    elif schema["type"] == "record":
        space = schema["name"].rpartition(".")[0] or schema.get("namespace", space)
        name = schema["name"].rpartition(".")[2]
        inside |= {f"{space}.{name}" if space else name}
        parts = [field["type"] for field in schema["fields"]]
    else:
        parts = [schema[part] for part in ("items", "values") if part in schema]
        parts += [schema["type"]] if isinstance(schema["type"], (dict, list)) else []
    return next((found for part in parts if (found := _recursive(part, space, inside))), None)


def _avro_metadata(file: BinaryIO) -> dict[str, bytes]:
    metadata: dict[str, bytes] = {}
    while count := _long(file):
        if count < 0:
            count = -count
            _long(file)
        for _ in range(count):
            name = _bytes(file).decode()
            metadata[name] = _bytes(file)
    return metadata


def _long(file: BinaryIO) -> int:
    shift = value = 0
    while True:
        if not (byte := file.read(1)):
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
        if shift > 63:
            raise ValueError("not a number")


def _bytes(file: BinaryIO) -> bytes:
    size = _long(file)
    if not 0 <= size <= _MAX_AVRO_BLOCK:
        raise ValueError(f"a block of {size} bytes; at most {_MAX_AVRO_BLOCK} are read")
    if len(data := file.read(size)) < size:
        raise EOFError
    return data


def _deflated(block: bytes) -> Iterator[int]:
    """Sizes of the pieces that a block inflates to."""
    stream = zlib.decompressobj(-15)
    while block:
        yield len(stream.decompress(block, _PIECE))
        block = stream.unconsumed_tail
    if not stream.eof:
        raise zlib.error("a deflated block is cut short")


def _zstandard(block: bytes) -> Iterator[int]:
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.BufferReader(block), "zstd") as stream:
        while piece := stream.read(_PIECE):
            yield len(piece)


def _as_it_is(block: bytes) -> Iterator[int]:
    yield len(block)


# Snappy makes nothing more than 25 times smaller.
_INFLATED: dict[str, Callable[[bytes], Iterator[int]]] = {
    "null": _as_it_is, "deflate": _deflated, "snappy": _as_it_is, "zstandard": _zstandard,
}  # fmt: skip
