"""`lakeops sql`: DuckDB over Delta tables and over views that are Spark SQL, compared with rows that were written."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import artifact_files as files
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from python_ops.cli.app import app
from python_ops.jobs.query import names, query
from python_ops.lake import delta
from python_ops.lake.config import Settings
from python_ops.lake.deltalog import _B85, _Z85
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.views import Views

ORDERS = pa.table({
    "order_id": pa.array([2**60 + 1, 2**60 + 2, 3], pa.int64()),
    "amount": pa.array([Decimal("1.10"), None, Decimal("3.00")], pa.decimal128(12, 2)),
    "note": ["", None, 'says "a, b"'],
})  # fmt: skip

VIEWS = {
    "slv_days": "create or replace view {silver}.slv_days (`day` comment 'Each day.', `next_day`)"
    " comment 'One row per day.'"
    " as with d as (select explode(sequence(first_day, date_sub(last_day, 1))) as day from {silver}.spans)"
    " select day, date_add(day, 1) as next_day from d",
    "slv_rows": "create or replace view {silver}.slv_rows (`id`, `text`, `_batch_id`) as select `id`,"
    " case when _cdc_filled is null then `text` else _cdc_filled.`text` end as `text`, _cdc_batch_id as _batch_id"
    " from {silver}.slv_rows__cdc where _cdc_visible;\n"
    "create or replace view {silver}.slv_rows__changes comment 'Keys.' as select distinct `id`,"
    " _cdc_batch_id as _batch_id from {silver}.slv_rows__cdc",
}


def write(lake: Lake, layer: str, name: str, rows: pa.Table) -> None:
    path = lake.table_path(layer, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), rows)


@pytest.fixture(params=["", "dev"])
def lake(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lake]:
    own = Lake(Settings(home=tmp_path / "lake", schema_prefix=request.param))
    write(own, "gold", "fct_orders", ORDERS)
    write(own, "bronze", "fct_orders", pa.table({"other": ["bronze"]}))
    write(own, "silver", "spans", pa.table({"first_day": [date(2025, 2, 27)], "last_day": [date(2025, 3, 2)]}))
    filled = pa.array([None, {"text": "filled"}, None], pa.struct([("text", pa.string())]))
    write(own, "silver", "slv_rows__cdc", pa.table({
        "id": [1, 2, 3], "text": ["a", "unsent", "hidden"], "_cdc_filled": filled, "_cdc_batch_id": [1, 1, 2],
        "_cdc_visible": [True, True, False],
    }))  # fmt: skip
    nodes = [files.model(name, layer="silver", prefix=request.param, strategy="cdc_scd1") for name in VIEWS]
    files.write_manifest(own.artifacts, *nodes)
    for name, text in VIEWS.items():
        path = own.artifacts / "run" / "lakehouse" / "dbt_project" / "models" / "silver" / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(silver=own.schema_name("silver")))
    yield own


def test_tables_and_views_bear_the_names_that_they_have_in_spark(lake: Lake) -> None:
    gold, silver = lake.schema_name("gold"), lake.schema_name("silver")
    assert query(lake, f"select * from {gold}.FCT_orders order by order_id").rows() == [
        (3, Decimal("3.00"), 'says "a, b"'), (2**60 + 1, Decimal("1.10"), ""), (2**60 + 2, None, None),
    ]  # fmt: skip
    assert query(lake, "from slv_rows order by id").rows() == [(1, "a", 1), (2, "filled", 1)], "a view of a CDC model"
    assert query(lake, f'select count(*) from "{silver}".slv_rows__changes').rows() == [(3,)]
    assert query(lake, "with fct_orders as (select 7 as x) select x from fct_orders").rows() == [(7,)]
    assert query(lake, "describe slv_days").rows()[0][:2] == ("day", "DATE"), "Spark's type, not DuckDB's"
    assert query(lake, "select min(day), max(next_day), count(*) from slv_days").rows() == [
        (date(2025, 2, 27), date(2025, 3, 2), 3)
    ]
    assert (f"{silver}.slv_rows", "view") in names(lake) and (f"{gold}.fct_orders", "table") in names(lake)


def test_only_what_a_query_names_is_opened(lake: Lake) -> None:
    log = lake.table_path("silver", "spans") / "_delta_log" / "00000000000000000000.json"
    log.write_text("garbled")
    (text,) = (lake.artifacts / "run").rglob("slv_rows.sql")
    text.write_text(text.read_text() + " qualify (")
    assert query(lake, "select count(*) from fct_orders").rows() == [(3,)]
    with pytest.raises(OpsError, match="cannot be read"):
        query(lake, "from slv_days")
    with pytest.raises(OpsError, match=r"slv_rows is not known .*Run `dbt build --select slv_rows`"):
        query(lake, "from slv_rows")


def test_views_say_their_columns_and_what_they_mean(lake: Lake) -> None:
    found = Views(lake.artifacts)[f"{lake.schema_name('silver')}.slv_days"]
    assert (found.comment, found.comments) == ("One row per day.", {"day": "Each day.", "next_day": ""})
    types = {"first_day": "date", "last_day": "date"}
    assert found.resolved(lambda name: types).types == {"day": "date", "next_day": "date"}
    with pytest.raises(OpsError, match="cannot be told"):
        found.resolved(lambda name: {"first_day": "date"})


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (
            "select *\nfrm fct_orders",
            r'syntax error at or near "fct_orders", line 2, column 5:\n  frm fct_orders\n      \^',
        ),
        ("select 'é' as x frm y", r"line 1, column 17:\n.*\n {18}\^"),
        ("select 'open", "unterminated string literal, line 1, column 8"),
        ("select nope from fct_orders", 'column "nope" not found'),
        ("from fct_order", r"no table or view fct_order\. The nearest: .*gold\.fct_orders"),
        ("from sivler.slv_rows", r"no table or view sivler\.slv_rows\. The nearest: (dev_)?silver\.slv_rows"),
        ("from xyz", r"no table or view xyz\. `lakeops sql` lists them"),
        ("from 'file.parquet'", "no table or view file.parquet"),
        ("from read_csv('/etc/passwd')", "file system operations are disabled"),
        ("drop table fct_orders", "Only a SELECT is answered"),
        ("copy (select 1) to '/tmp/x'", "Only a SELECT is answered"),
        ("select 1; select 2", "One query is answered at a time, and 2 were given"),
        ("", "One query is answered at a time, and 0 were given"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why_and_where(lake: Lake, sql: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        query(lake, sql)


def test_an_error_in_a_value_comes_when_it_is_computed(lake: Lake) -> None:
    answer = query(lake, "select cast(note as int) from fct_orders where note = ''")
    with pytest.raises(ConfigError, match="Could not convert string"):
        answer.rows()
    with pytest.raises(ConfigError, match="Could not convert string"):
        answer.table()


def test_an_empty_lake_says_what_fills_it(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match=r"has no tables yet\. `lakeops demo`"):
        query(Lake(Settings(home=tmp_path / "lake")), "select 1")


TAGS = {"type": "array", "elementType": "integer", "containsNull": True}


def by_hand(
    path: Path,
    rows: pa.Table,
    fields: dict[str, Any],
    *,
    deleted: int | None = None,
    partition: dict[str, str] | None = None,
    physical: dict[str, str] | None = None,
) -> None:
    """A table as Spark writes it, with one file: INT96 timestamps, and by request a deletion vector for one row
    (PROTOCOL.md, "Deletion Vector Format"), a partition, and names of the file's columns by column mapping."""
    (path / "_delta_log").mkdir(parents=True)
    pq.write_table(rows, path / "a.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    add: dict[str, Any] = {
        "path": "a.parquet", "partitionValues": partition or {}, "size": (path / "a.parquet").stat().st_size,
        "modificationTime": 0, "dataChange": True, "stats": json.dumps({"numRecords": rows.num_rows}),
    }  # fmt: skip
    if deleted is not None:
        # Delta's magic number, one bitmap with key 0; in it one container of one value
        bitmap = struct.pack("<iqiiihhih", 1681511377, 1, 0, 12346, 1, 0, 0, 16, deleted)
        padded = bitmap + b"\0" * (-len(bitmap) % 4)
        text = base64.b85encode(padded).translate(bytes.maketrans(_B85, _Z85)).decode()
        add["deletionVector"] = {
            "storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(bitmap), "cardinality": 1,
        }  # fmt: skip
    listed = [
        {"name": name, "type": type_, "nullable": True, "metadata": {"comment": f"The {name}."}}
        for name, type_ in fields.items()
    ]
    for number, field in enumerate(listed if physical else [], 1):
        named = {"id": number, "physicalName": (physical or {}).get(field["name"], field["name"])}
        field["metadata"] |= {f"delta.columnMapping.{name}": value for name, value in named.items()}
    features = ["deletionVectors"] + (["columnMapping"] if physical else [])
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    metadata = {
        "id": "1", "format": {"provider": "parquet", "options": {}}, "partitionColumns": list(partition or {}),
        "configuration": {"delta.columnMapping.mode": "name"} if physical else {},
        "schemaString": json.dumps({"type": "struct", "fields": listed}),
    }  # fmt: skip
    actions = [{"protocol": protocol}, {"metaData": metadata}, {"add": add}]
    (path / "_delta_log" / f"{0:020}.json").write_text("\n".join(map(json.dumps, actions)))


def test_sparks_files_are_read_as_spark_reads_them(tmp_path: Path) -> None:
    """A deleted row is gone, and the year 1 is not the year 1754 (INT96 as nanoseconds wraps around)."""
    lake = Lake(Settings(home=tmp_path / "lake"))
    first, later = datetime(1, 1, 1, tzinfo=UTC), datetime(2025, 3, 3, 6, 0, 0, 17919, tzinfo=UTC)
    rows = pa.table({
        "id": pa.array([1, 2], pa.int64()), "moment": pa.array([first, later], pa.timestamp("us", "UTC")),
        "tags": pa.array([[1], None], pa.list_(pa.int32())),
    })  # fmt: skip
    fields = {"id": "long", "moment": "timestamp", "tags": TAGS}
    by_hand(lake.table_path("gold", "whole"), rows, fields)
    by_hand(lake.table_path("gold", "less"), rows, fields, deleted=1)
    assert query(lake, "select id, moment::varchar from whole order by id").rows() == [
        (1, "0001-01-01 00:00:00+00"), (2, "2025-03-03 06:00:00.017919+00"),
    ]  # fmt: skip
    assert query(lake, "select id, tags from less").rows() == [(1, [1])]
    assert delta.columns(lake.table_path("gold", "less")) == {
        "id": ("bigint", "The id."), "moment": ("timestamp", "The moment."), "tags": ("array<int>", "The tags."),
    }  # fmt: skip


def test_a_tables_columns_are_those_of_its_log(tmp_path: Path) -> None:
    """Given a renamed column, one that the file lacks, and one that the path has, Then each is under its name."""
    lake = Lake(Settings(home=tmp_path / "lake"))
    rows = pa.table({"col-1": pa.array([1, 2], pa.int64())})
    fields = {"id": "long", "day": "integer", "added": "string"}
    by_hand(lake.table_path("gold", "mapped"), rows, fields, partition={"day": "7"}, physical={"id": "col-1"})
    assert query(lake, "from mapped order by id").rows() == [(1, 7, None), (2, 7, None)]


@pytest.fixture
def run(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LAKEHOUSE_HOME", str(lake.home))
    monkeypatch.setenv("LAKEHOUSE_SCHEMA_PREFIX", lake.settings.schema_prefix)
    return lambda *arguments, **more: CliRunner().invoke(app, ["sql", *arguments], catch_exceptions=False, **more)


def test_formats_lose_nothing(run: Any, tmp_path: Path) -> None:
    sql = "select order_id, amount, note, [order_id] as ids, 'nan'::double as x from fct_orders order by order_id"
    assert run(sql, "--format", "csv").stdout.splitlines() == [
        "order_id,amount,note,ids,x", '3,3.00,"says ""a, b""",[3],nan', f'{2**60 + 1},1.10,"",[{2**60 + 1}],nan',
        f"{2**60 + 2},,,[{2**60 + 2}],nan",
    ]  # fmt: skip
    first = {"order_id": 3, "amount": "3.00", "note": 'says "a, b"', "ids": [3], "x": "nan"}
    assert json.loads(run(sql, "--json").stdout)[0] == first
    assert json.loads(run("-", "--format", "json", input=sql).stdout)[0] == first
    assert run("select note, amount from fct_orders where order_id > 3 order by 2", "--format", "table").stdout == (
        "note  amount\n      1.10\n-     -\n"
    )
    made = tmp_path / "answer.parquet"
    made.write_bytes(run("from fct_orders", "--format", "parquet").stdout_bytes)
    assert duckdb.sql(f"select sum(order_id), sum(amount) from '{made}'").fetchall() == [(2**61 + 6, Decimal("4.10"))]
    assert "fct_orders" in run().stdout and json.loads(run("--json").stdout)[0]["kind"] == "table"
    with pytest.raises(ConfigError, match="Two columns are named a"):
        run("select 1 as a, 2 as a", "--json")
