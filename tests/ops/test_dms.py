"""AWS DMS, whatever its settings: the same changes in every shape give the same rows of bronze, in one Spark pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import reduce
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from python_ops.jobs.ingest.formats.values import CUT
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.projection import project
from python_ops.jobs.ingest.reading import read, session_for_files
from python_ops.lake import landing
from python_ops.lake.contracts import Column, Contract
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

pytestmark = pytest.mark.spark

COLUMNS = (
    Column("id", "bigint", "Key.", required=True),
    Column("name", "string", "A text."),
    Column("amount", "decimal(12,2)", "A number."),
    Column("at", "timestamp", "A time."),
    Column("day", "date", "A day."),
)
AT, DAY = datetime(2025, 3, 3, 6, 0, 0, 123000), date(2025, 3, 3)
COMMITTED = datetime(2025, 3, 4, 5, 59, 59, 1)

# id, name; the other columns are the same everywhere. `left` is the id before an update of the key.
LOAD = [(1, "Ann, the first"), (2, "Bob"), (3, None)]
CHANGES = [("I", 4, "Dan", None), ("U", 1, "Anne", None), ("U", 22, "Bob", 2), ("D", 3, None, None)]


@dataclass(frozen=True)
class Shape:
    """Settings of a DMS task and its S3 endpoint.

    Attributes:
        file: `csv` with or without `AddColumnName`, parquet of `ParquetVersion`; `upper`: an Oracle's names.
        has_time: `TimestampColumnName`.
        operations: `IncludeOpForFullLoad` (`all`), not (`changes`), or without it and deletes, by
            `CdcInsertsAndUpdates` (`none`).
        before: Before images of the `key`, of `all` columns, or none.
        folder: `DatePartitionEnabled` with `DatePartitionDelimiter`; empty without.
    """

    file: str
    has_time: bool
    operations: str
    before: str
    folder: str

    @property
    def kind(self) -> str:
        return "parquet" if self.file.startswith("parquet") else "csv"

    @property
    def contract(self) -> Contract:
        return Contract(
            "things", "1.0.0", "Things, one row per thing.", "tests", "dms", ("id",), COLUMNS,
            timestamp_column="DMS_AT" if self.has_time else None,
            before_image_prefix="BI_" if self.before else None,
        )  # fmt: skip

    def names(self, is_load: bool) -> list[str]:
        """Names of a file's columns, in their order."""
        columns = [c.name.upper() if "upper" in self.file else c.name for c in COLUMNS]
        before = {"": [], "key": columns[:1], "all": columns}[self.before]
        op = ["Op"] if self.operations == "all" or (self.operations == "changes" and not is_load) else []
        return [*op, *(["DMS_AT"] if self.has_time else []), *columns, *(f"BI_{name}" for name in before)]

    def write(self, folder: Path) -> None:
        """Delivers the load and the changes."""
        changes = [change for change in CHANGES if self.operations != "none" or change[0] != "D"]
        parts = {
            f"LOAD00000001.{self.kind}": [("I", id_, name, None) for id_, name in LOAD],
            f"{self.folder}20250304-060000123.{self.kind}": changes[:2],
            f"{self.folder}20250304-0600001234.{self.kind}": changes[2:],
        }
        for name, rows in parts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._write(folder / name, [self._record(*row) for row in rows], self.names(name.startswith("LOAD")))

    def _record(self, op: str, id_: int, name: str | None, left: int | None) -> dict[str, Any]:
        """A row as DMS gives it: a delete has its key alone."""
        rest = {"amount": None, "at": None, "day": None} if op == "D" else {"amount": "1.50", "at": AT, "day": DAY}
        row: dict[str, Any] = {"Op": op, "DMS_AT": str(COMMITTED), "id": id_, "name": name, **rest}
        if op == "U":
            row |= {f"BI_{key}": value for key, value in row.items() if key not in ("Op", "DMS_AT")}
            row |= {"BI_id": left or id_, "BI_name": "before"}
        return row

    def _write(self, path: Path, rows: list[dict[str, Any]], names: list[str]) -> None:
        def value(row: dict[str, Any], name: str) -> Any:
            prefix = "BI_" if name.startswith("BI_") else ""
            return row.get(name, row.get(prefix + name.removeprefix("BI_").lower()))

        if self.kind == "csv":
            lines = [",".join(names)] if "header" in self.file else []
            lines += [",".join(_csv(value(row, name)) for name in names) for row in rows]
            path.write_text("".join(line + "\n" for line in lines))
            return
        types = {"id": pa.int64(), "amount": pa.decimal128(12, 2), "at": pa.timestamp("us"), "day": pa.date32()}
        arrays = {}
        for name in names:
            type_ = types.get(name.removeprefix("BI_").lower(), pa.string())
            values = [value(row, name) for row in rows]
            if type_ == types["amount"]:
                values = [None if given is None else Decimal(given) for given in values]
            arrays[name] = pa.array(values, type_)
        version, page = ("2.6", "2.0") if "2" in self.file else ("1.0", "1.0")
        parquet.write_table(pa.table(arrays), path, version=version, data_page_version=page)


def _csv(value: Any) -> str:
    text = "NULL" if value is None else str(value)
    return f'"{text}"' if "," in text else text


SHAPES = [
    Shape(*settings)
    for settings in product(
        ("csv", "csv header", "csv header upper", "parquet 1", "parquet 2 upper"),
        (True, False),
        ("all", "changes", "none"),
        ("", "key", "all"),
        ("", "2025/03/04/", "2025-03-04-06/"),
    )
    # Without a header, nothing tells before images from columns of the table.
    if not (settings[0] == "csv" and settings[3])
]


# Each value of each setting at least once, in few plans of Spark; `make test-all` runs every combination.
FEW = [
    Shape("csv", True, "changes", "", ""),
    Shape("csv header", False, "all", "key", "2025/03/04/"),
    Shape("csv header upper", True, "none", "all", "2025-03-04-06/"),
    Shape("parquet 1", False, "changes", "all", ""),
    Shape("parquet 1", True, "none", "", "2025-03-04-06/"),
    Shape("parquet 2 upper", True, "all", "key", "2025/03/04/"),
]


def taken(spark: SparkSession, lake: Lake, folder: Path, shapes: list[Shape]) -> dict[Shape, list[Row]]:
    """Rows of every shape, in their order. Shapes of one contract lie in one landing folder, each in a dated one."""
    session = session_for_files(Lake(lake.settings, start=lambda: spark))
    contracts: dict[Path, Contract] = {}
    for number, shape in enumerate(shapes):
        source = folder / f"{shape.has_time}_{bool(shape.before)}"
        contracts[source] = shape.contract
        shape.write(source / f"{number:04}")
    frames: list[DataFrame] = []
    for source, contract in contracts.items():
        files = [inspect(source, name, contract) for name in landing.names(source, contract)]
        assert landing.left_outside(source, contract) == [] and {file.fault for file in files} == {None}
        for records in read(session, source, files, generation=1):
            frames.append(project(records.lines, contract, records.layout))
    found: dict[Shape, list[Row]] = {shape: [] for shape in shapes}
    for row in reduce(lambda one, other: one.unionByName(other), frames).collect():
        if row["_kind"] != "ignored":  # the place of a header
            found[shapes[int(row["_file"][:4])]].append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (row["_source_lsn"] or 0, row["_source_position"] or 0, row["_op"]))
    return found


@pytest.mark.parametrize(
    "shapes", [pytest.param(FEW, id="few"), pytest.param(SHAPES, id="all", marks=pytest.mark.campaign)]
)
def test_every_shape_gives_the_same_rows(spark: SparkSession, lake: Lake, tmp_path: Path, shapes: list[Shape]) -> None:
    for shape, rows in taken(spark, lake, tmp_path, shapes).items():
        assert {row["_kind"] for row in rows} == {"event"}, (shape, [row["_reason"] for row in rows])
        given = {"I": "c", "U": "u", "D": "d"} if shape.operations != "none" else {"I": "u", "U": "u"}
        wanted = [("r", id_, name) for id_, name in LOAD]
        for op, id_, name, left in CHANGES:
            if op in given:
                wanted += [("d", left, None)] if left and shape.before else []
                wanted += [(given[op], id_, name)]
        assert [(row["_op"], row["id"], row["name"]) for row in rows] == wanted, shape
        for row in rows:
            whole = (None,) * 3 if row["_op"] == "d" else (Decimal("1.50"), AT, DAY)
            assert (row["amount"], row["at"], row["day"]) == whole, shape
            assert (row["_extra"], row["_unsent"]) == (None, None), shape
            assert (row["_source_lsn"] == 0) == (row["_op"] == "r"), shape
        times = {row["_source_ts"] for row in rows[len(LOAD) :]}
        file_times = {datetime(2025, 3, 4, 6, 0, 0, 123000), datetime(2025, 3, 4, 6, 0, 0, 123400)}
        assert times == ({COMMITTED} if shape.has_time else file_times), shape


def test_what_dms_did_not_send_or_cut_off_is_told_and_nothing_is_taken_for_a_time(
    spark: SparkSession, lake: Lake, tmp_path: Path
) -> None:
    """Unsent columns by CsvNoSupValue, a two-column key that changed, large texts, a NULL operation, a wrong time; and
    the source's own names."""
    named = replace(COLUMNS[0], source_name="Thing's ID")
    columns = (Column("part", "string", "Key.", required=True), replace(COLUMNS[1], required=True))
    contract = replace(
        SHAPES[0].contract, key=("id", "part"), columns=(named, *columns), before_image_prefix="BI_",
        csv_no_sup_value="~", lob_max_kb=1,
    )  # fmt: skip
    at, cut = str(COMMITTED), "x" * 1024
    (tmp_path / "20250304-060000123.csv").write_text(
        "Op,DMS_AT,Thing's ID,part,name,BI_part\n"
        f"U,{at},1,a,~,a\nU,{at},2,b,Bob,a\nI,{at},3,a,{cut},NULL\nI,{at},4,a,{cut[4:]},NULL\n"
        f",{at},5,a,x,NULL\nI,1234,6,a,x,NULL\nD,{at},7,a,~,a\nU,,8,b,x,a\nI,{at},9,a,NULL,NULL\n"
    )
    made = {"Op": [None, "U"], "DMS_AT": [COMMITTED] * 2, "Thing's ID": [10, 11], "part": ["a", "a"],
            "name": ["x", "~"], "BI_Thing's ID": [None, 12]}  # fmt: skip
    types = {"DMS_AT": pa.timestamp("ms"), "Thing's ID": pa.int64(), "BI_Thing's ID": pa.int64()}
    table = pa.table({name: pa.array(given, types.get(name, pa.string())) for name, given in made.items()})
    parquet.write_table(table, tmp_path / "20250304-060000124.parquet")
    files = [inspect(tmp_path, name, contract) for name in landing.names(tmp_path, contract)]
    session = session_for_files(Lake(lake.settings, start=lambda: spark))
    parts = [project(given.lines, contract, given.layout) for given in read(session, tmp_path, files, generation=1)]
    rows = [row for row in parts[0].unionByName(parts[1]).collect() if row["_kind"] != "ignored"]
    good = {(row["id"], row["part"]): row for row in rows if row["_kind"] == "event"}
    assert {key: (row["_op"], row["name"] and len(row["name"]), row["_unsent"]) for key, row in good.items()} == {
        (1, "a"): ("u", None, ["name"]), (2, "a"): ("d", None, None), (2, "b"): ("u", 3, None),
        (3, "a"): ("c", 1024, None), (4, "a"): ("c", 1020, None), (7, "a"): ("d", None, None),
        (11, "a"): ("u", None, ["name"]), (12, "a"): ("d", None, None),
    }  # fmt: skip
    assert [key for key, row in good.items() if row["_changes"] == [CUT]] == [(3, "a")]
    assert good[11, "a"]["_source_ts"] == COMMITTED.replace(microsecond=0)
    bad = [(row["id"], row["_reason"], row["_column"]) for row in rows if row["_kind"] == "rejected"]
    assert sorted(bad) == [
        (5, "unknown operation", None), (6, "not a commit time", None), (8, "no commit time", None),
        (9, "a required value is null", "name"), (10, "unknown operation", None),
    ]  # fmt: skip
