"""Landing files as records with their file and number: what the projection takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.jobs.ingest.formats.binary import place, read_rows
from python_ops.jobs.ingest.formats.delimited import parsed
from python_ops.lake.lake import Lake
from python_ops.lake.landing import WRAPPED, LandingFile
from python_ops.lake.spark import separate_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# A quoted field over more lines than this is an unbalanced quote.
_MAX_LINES = 1000

# More bytes than this in fewer files than Spark has tasks are spread over the tasks: a file alone is one.
_SPREAD_ABOVE = 4 * 1024 * 1024

# A field is without quotes, or in quotes from its first character to its last, with quotes inside doubled. The parser
# is more lenient: it would take what two unbalanced quotes enclose for one field.
_WHOLE = '^(?:"(?:[^"]++|"")*+"|[^",]*+)(?:,(?:"(?:[^"]++|"")*+"|[^",]*+))*+$'


@dataclass(frozen=True)
class Records:
    """Records that are parsed alike.

    Attributes:
        lines: `_raw`, `_file`, `_line`.
        layout: Names of a csv record's fields; empty for JSON.
        generation: The `_source_generation` of their rows.
        again: They are dead letters, which stay where they are when they are rejected again.
        is_wrapped: Debezium's events may be wrapped with their schema, or as CloudEvents.
    """

    lines: DataFrame
    layout: tuple[str, ...]
    generation: int
    again: bool = False
    is_wrapped: bool = True


def read(spark: SparkSession, folder: Path, files: Sequence[LandingFile], generation: int) -> list[Records]:
    """Records of the files that are taken, grouped by how they are parsed."""
    groups: dict[tuple[str, tuple[str, ...], bool, bool, str], list[LandingFile]] = {}
    for file in files:
        if file.fault is None and file.bytes > 0:
            alike = (file.kind, file.layout, file.header, file.multiline, file.schema)
            groups.setdefault(alike, []).append(file)
    tasks = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    found = []
    for (kind, layout, header, multiline, schema), alike_files in groups.items():
        paths = [_literal(folder / file.name) for file in alike_files]
        if kind in ("parquet", "avro"):
            lines = read_rows(spark, paths, kind, folder)
        else:
            lines = _lines(spark, paths, header, folder)
            if multiline:
                lines = _joined(lines, layout)
            if len(paths) < tasks and sum(file.bytes for file in alike_files) > _SPREAD_ABOVE:
                lines = lines.repartition(tasks)
        found.append(Records(lines, layout, generation, is_wrapped=schema == WRAPPED))
    return found


def _literal(path: Path) -> str:
    """A path as Spark takes it for itself: characters of a pattern are escaped."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", str(path))


def _lines(spark: SparkSession, paths: list[str], header: bool, folder: Path) -> DataFrame:
    """Lines end with LF alone: U+2028 and U+0085 occur inside strings. A header becomes a blank line."""
    lines = spark.read.option("lineSep", "\n").text(paths).selectExpr("value", *place(folder))
    raw = "case when _line > 1 then value else '' end" if header else "value"
    return lines.selectExpr(f"{raw} as _raw", "_file", "_line")


def _joined(lines: DataFrame, layout: tuple[str, ...]) -> DataFrame:
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
    whole = "partition by _file, record order by _line rows between unbounded preceding and unbounded following"
    records = grouped.selectExpr(
        "_raw", "_file", "_line", f"case when span <= {_MAX_LINES} then opened_at else _line end as record"
    ).selectExpr("*", f"collect_list(_raw) over ({whole}) as parts")
    judged = records.selectExpr("*", "array_join(parts, '\\n') as text").selectExpr(
        "*", f"size(parts) = 1 or text rlike '{_WHOLE}' and {parsed('text', layout)}._corrupt is null as is_one"
    )
    return judged.where("_line = record or not is_one").selectExpr(
        "case when is_one then text else _raw end as _raw", "_file", "_line"
    )


def session_for_files(lake: Lake) -> SparkSession:
    """A session of its own, in which every input file is one partition: its lines are counted inside the partition."""
    session = separate_session(lake.spark)
    for name in ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes"):
        session.conf.set(name, "1t")
    return session
