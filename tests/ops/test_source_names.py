"""Names as sources have them: a contract's column says what the source calls it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.projection import project
from python_ops.jobs.ingest.reading import read
from python_ops.lake.contracts import Column, Contract, parse
from python_ops.lake.contracts.infer import draft
from python_ops.lake.errors import ContractError

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

GIVEN = {
    "order_id": "Order ID",
    "amount": "Betrag (€)",
    "note": 'it\'s "a.b"',
    "path": "back\\slash",
    "camel": "camelCase",
}
THINGS = Contract(
    source="things", version="1.0.0", description="Things of the tests.", owner="tests", format="jsonl",
    key=("order_id",),
    columns=tuple(
        Column(name, {"order_id": "bigint", "amount": "decimal(12,2)"}.get(name, "string"), "A column.",
               required=name == "order_id", source_name=given)
        for name, given in GIVEN.items()
    ),
)  # fmt: skip
ROW = {
    "Order ID": 7,
    "Betrag (€)": "1.50",
    'it\'s "a.b"': "n",
    "back\\slash": "p",
    "camelCase": "c",
    "order_id": "extra",
}


def _csv(row: dict[str, Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([list(row), list(row.values())])
    return text.getvalue().encode()


def _rows(spark: SparkSession, folder: Path, name: str, contract: Contract) -> list[Row]:
    (records,) = read(spark, folder, [inspect(folder, name, contract)], generation=1)
    return project(records.lines, contract, records.layout, records.is_wrapped).collect()


@pytest.mark.spark
def test_a_column_is_read_under_the_sources_name_in_every_format(spark: SparkSession, tmp_path: Path) -> None:
    """Blanks, dots, quotes, brackets, letters beyond ASCII and capitals; in another case too."""
    event = {"op": "c", "source": {"table": "things", "lsn": 1, "ts_us": 1}, "after": ROW}
    other_case = {name.upper() if name != "order_id" else name: value for name, value in ROW.items()}
    without_extra = {name: value for name, value in ROW.items() if name != "order_id"}
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(other_case) + "\n")
    (tmp_path / "e.jsonl").write_text(json.dumps({"key": {"Order ID": 7}, "value": event}))
    (tmp_path / "a.csv").write_bytes(_csv(without_extra))
    parquet.write_table(pa.Table.from_pylist([ROW]), tmp_path / "a.parquet")
    found = {
        "jsonl": _rows(spark, tmp_path, "a.jsonl", THINGS),
        "csv": _rows(spark, tmp_path, "a.csv", replace(THINGS, format="csv")),
        "parquet": _rows(spark, tmp_path, "a.parquet", replace(THINGS, format="parquet")),
        "debezium": _rows(spark, tmp_path, "e.jsonl", replace(THINGS, format="debezium_json", table="things")),
    }
    assert {name: len([r for r in rows if r["_kind"] == "event"]) for name, rows in found.items()} == {
        "jsonl": 2, "csv": 1, "parquet": 1, "debezium": 1,
    }  # fmt: skip
    for name, rows in found.items():
        for row in (row for row in rows if row["_kind"] == "event"):
            values = [str(row[column]) for column in GIVEN]
            assert values == ["7", "1.50", "n", "p", "c"], name
            assert row["_extra"] == (None if name == "csv" else '{"order_id":"extra"}'), name


def test_what_is_looked_for_in_a_file_is_the_sources_name(tmp_path: Path) -> None:
    """The delimiter of a csv file, and whether a column of nanoseconds is one of the contract."""
    (tmp_path / "a.csv").write_text(";".join(GIVEN.values()).replace('"', "") + "\n7;1.50;n;p;c\n")
    plain = tuple(replace(column, source_name=(column.given_name).replace('"', "")) for column in THINGS.columns)
    file = inspect(tmp_path, "a.csv", replace(THINGS, format="csv", columns=plain))
    assert (file.fault, file.delimiter, file.layout) == (None, ";", tuple(GIVEN))
    at = Column("at", "timestamp", "Time.", source_name="Sold At")
    dated = replace(THINGS, format="parquet", columns=(*THINGS.columns, at))
    table = pa.table({"Order ID": [1], "sold at": pa.array([1], pa.timestamp("ns", "UTC"))})
    parquet.write_table(table, tmp_path / "n.parquet")
    assert "sold at (timestamps in nanoseconds" in str(inspect(tmp_path, "n.parquet", dated).fault)
    cutting = replace(dated, columns=(*THINGS.columns, replace(at, accepts=("epoch_ns",))))
    assert inspect(tmp_path, "n.parquet", cutting).fault is None


def test_a_draft_names_columns_that_a_contract_cannot(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("Order ID,Größe,order_id,2nd,CamelCase\n1,2,3,4,5\n")
    made = draft(tmp_path / "s.csv", "things")
    names = {column["name"]: column.get("source_name") for column in made.data["columns"]}
    assert names == {
        "order_id_2": "Order ID",
        "grosse": "Größe",
        "order_id": None,
        "column_2nd": "2nd",
        "camelcase": None,
    }
    filled = yaml.safe_load(made.text)
    assert [column.get("source_name") for column in filled["columns"]] == list(names.values())


def test_two_columns_are_not_read_from_one_name() -> None:
    text = """
source: things
version: 1.0.0
description: Things of the shop.
owner: tests
format: csv
key: [a]
columns:
  - {name: a, type: int, required: true, description: A.}
  - {name: b, type: int, source_name: A, description: B.}
"""
    with pytest.raises(ContractError, match="two columns are read from a"):
        parse(text, Path("things.yml"))
