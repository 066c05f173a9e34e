"""Landing files as records with their file and number: what the projection takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.jobs.ingest.formats.binary import place, read_rows, readable
from python_ops.jobs.ingest.formats.delimited import parsed
from python_ops.lake.files import on_this_machine
from python_ops.lake.lake import Lake
from python_ops.lake.landing import WRAPPED, LandingFile
from python_ops.lake.spark import separate_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

# A quoted field over more lines than this is an unbalanced quote.
MAX_LINES = 1000

# More bytes than this in fewer files than Spark has tasks are spread over the tasks: a file alone is one.
_SPREAD_ABOVE = 4 * 1024 * 1024

# A field is without quotes, or in quotes from its first character to its last, with quotes inside doubled. The parser
# is more lenient: it would take what two unbalanced quotes enclose for one field.
_FIELD = '(?:{1}"(?:[^"]++|"")*+"{1}|[^"{0}]*+)'


def field_pattern(delimiter: str) -> str:
    """A field of a csv record, as a pattern that Java and Python read alike."""
    return _FIELD.format(delimiter[0], " *+" if delimiter[1:] else "")


def record_pattern(delimiter: str) -> str:
    """A csv record of such fields: lines that are not one are judged line by line."""
    return f"^{field_pattern(delimiter)}(?:[{delimiter[0]}]{field_pattern(delimiter)})*+$"


@dataclass(frozen=True)
class Records:
    """Records that are parsed alike.

    Attributes:
        lines: `_raw`, `_file`, `_line`.
        layout: Names of a csv record's fields; empty for JSON.
        generation: The `_source_generation` of their rows.
        again: They are dead letters, which stay where they are when they are rejected again.
        is_wrapped: Debezium's events may be wrapped with their schema, or as CloudEvents.
        delimiter: What is between the fields of a csv record, as `LandingFile` has it.
    """

    lines: DataFrame
    layout: tuple[str, ...]
    generation: int
    again: bool = False
    is_wrapped: bool = True
    delimiter: str = ","


def read(spark: SparkSession, folder: Path, files: Sequence[LandingFile], generation: int) -> list[Records]:
    """Records of the files that are taken, grouped by how they are parsed."""
    groups: dict[LandingFile, list[LandingFile]] = {}
    for file in files:
        if file.fault is None and file.bytes > 0:
            groups.setdefault(replace(file, name="", bytes=0, sha256=""), []).append(file)
    tasks = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    found = []
    for alike, members in groups.items():
        paths = [_literal(folder / file.name) for file in members]
        if alike.kind in ("parquet", "avro"):
            schema = _readable(folder / members[0].name, alike) if alike.left_out else None
            lines = read_rows(spark, paths, alike.kind, folder, schema)
        else:
            lines = _lines(spark, paths, alike, folder)
            if alike.multiline:
                lines = _joined(lines, alike)
            if len(paths) < tasks and sum(file.bytes for file in members) > _SPREAD_ABOVE:
                # By a hash: rows that are dealt out in turn are sorted before, so that a second try deals them alike.
                lines = lines.repartition(tasks, "_line")
        wrapped = alike.schema == WRAPPED
        found.append(Records(lines, alike.layout, generation, is_wrapped=wrapped, delimiter=alike.delimiter))
    return found


def _readable(path: Path, alike: LandingFile) -> StructType:
    with on_this_machine(path) as own:
        return readable(own, alike.left_out)


def _literal(path: Path) -> str:
    """A path as Spark takes it for itself: characters of a pattern are escaped."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", str(path))


def _lines(spark: SparkSession, paths: list[str], alike: LandingFile, folder: Path) -> DataFrame:
    """Lines end as the file's do, never with U+2028 or U+0085, which occur inside strings. A header is a blank line.

    Spark looks for line ends in the encoding, and gives the bytes between them.
    """
    text = spark.read.option("lineSep", alike.line_end).option("encoding", alike.encoding).text(paths)
    value = "value" if alike.encoding == "UTF-8" else f"decode(cast(value as binary), '{alike.encoding}') as value"
    lines = text.selectExpr(value, *place(folder))
    raw = "case when _line > 1 then value else '' end" if alike.header else "value"
    return lines.selectExpr(f"{raw} as _raw", "_file", "_line")


def _joined(lines: DataFrame, alike: LandingFile) -> DataFrame:
    """Lines of csv files in which quoted fields hold line ends, joined to records.

    A record goes on while its quotes are odd. One that then does not parse has an unbalanced quote: its lines are
    judged one by one, so that the good ones after it are not lost with it.
    """
    before = "partition by _file order by _line rows between unbounded preceding and 1 preceding"
    so_far = "partition by _file order by _line rows between unbounded preceding and current row"
    opened = lines.selectExpr("*", "length(_raw) - length(replace(_raw, '\"', '')) & 1 as odd").selectExpr(
        "*", f"coalesce(sum(odd) over ({before}), 0) & 1 as inside"
    )
    grouped = opened.selectExpr(
        "*", f"max(case when inside = 0 then _line end) over ({so_far}) as opened_at"
    ).selectExpr("*", "count(*) over (partition by _file, opened_at) as span")
    together = "partition by _file, record order by _line rows between unbounded preceding and unbounded following"
    records = grouped.selectExpr(
        "_raw", "_file", "_line", f"case when span <= {MAX_LINES} then opened_at else _line end as record"
    ).selectExpr("*", f"collect_list(_raw) over ({together}) as parts")
    whole, fields = record_pattern(alike.delimiter), parsed("text", alike.layout, alike.delimiter)
    end = "'\\r'" if alike.line_end == "\r" else "'\\n'"
    judged = records.selectExpr("*", f"array_join(parts, {end}) as text").selectExpr(
        "*", f"size(parts) = 1 or text rlike '{whole}' and {fields}._corrupt is null as is_one"
    )
    return judged.where("_line = record or not is_one").selectExpr(
        "case when is_one then text else _raw end as _raw", "_file", "_line"
    )


def session_for_files(lake: Lake) -> SparkSession:
    """A session of its own, in which every input file is one partition: its lines are counted inside the partition."""
    session = separate_session(lake.spark)
    for name in ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes"):
        session.conf.set(name, "1t")
    # A batch is read twice from the cache: to compress its columns costs more than it saves.
    session.conf.set("spark.sql.inMemoryColumnarStorage.compressed", "false")
    # Else Spark refuses a file for any column in nanoseconds.
    session.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    # Days before 1582, and INT96 before 1900, as the Parquet format has them. (Spark 2 says in its files that they are
    # others, and Spark converts those.) Else Spark refuses a file in which it finds one.
    for name in ("int96RebaseModeInRead", "datetimeRebaseModeInRead"):
        session.conf.set(f"spark.sql.parquet.{name}", "CORRECTED")
    return session
