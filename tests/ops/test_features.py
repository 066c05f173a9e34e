"""Features as of a time: compared with the plain rule in Python, on DuckDB and on Spark, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifact_files as files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from servers import to_bucket
from test_cli import lakeops

from python_ops.jobs.features import changed_at, export, feature_tables
from python_ops.jobs.features.asof import Engine, asof
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PREFIX = "feats"
ORIGIN = datetime(2025, 1, 1, tzinfo=UTC)
TTL_HOURS = 24
Row = dict[str, Any]


def at(hours: float) -> datetime:
    return ORIGIN + timedelta(hours=hours)


def no_session() -> Any:
    raise AssertionError("asked for a Spark session")


def model(name: str, key: str, kind: str, **features: tuple[str, int | None]) -> dict[str, Any]:
    """A feature model's node: features with their type and time to live."""
    node = files.model(name, prefix=PREFIX, description="Told.")
    node["config"] |= {"unique_key": [key, "valid_at", "known_at"], "meta": {"feature_entity": key, "sla_minutes": 60}}
    node["config"]["group"] = "crm"
    columns = {key: kind, "valid_at": "timestamp", "known_at": "timestamp"}
    node["columns"] = {n: {"name": n, "description": n, "data_type": type_} for n, type_ in columns.items()}
    for feature, (type_, ttl) in features.items():
        meta = {"feature_from": f"slv.{feature}"} | ({} if ttl is None else {"feature_ttl_hours": ttl})
        described = {"name": feature, "description": feature, "data_type": type_, "meta": meta}
        node["columns"][feature] = described
    return node


def log_of(seed: int, keys: list[Any]) -> list[Row]:
    """Rows of a feature table: moments known at once, late, and again with another value."""
    rng, rows = random.Random(seed), {}
    for _ in range(120):
        key, moment = rng.choice(keys), rng.randrange(0, 100)
        known = moment + rng.choice([0, 0, 1, 30])
        value = Decimal(rng.randrange(100)) / 4 if rng.random() > 0.1 else None
        rows[key, moment, known] = {"key": key, "valid_at": at(moment), "known_at": at(known), "value": value}
    return list(rows.values())


CUSTOMERS, PRODUCTS = log_of(1, ["a", "b", "c"]), log_of(2, [1, 2, 3])


@pytest.fixture
def own(tmp_path: Path) -> Lake:
    lake = Lake(Settings(home=tmp_path / "lake", schema_prefix=PREFIX), artifacts=tmp_path / "t", start=no_session)
    files.write_manifest(
        lake.artifacts,
        model("feat_customer", "customer_id", "string", score=("decimal(6,2)", TTL_HOURS), stage=("string", None)),
        model("feat_product", "product_id", "int", price=("decimal(6,2)", None)),
        files.model("fct_other", prefix=PREFIX),
    )
    files.add_to_manifest(lake.artifacts, groups={"g": {"name": "crm", "owner": {"name": "Customer analytics"}}})
    times = {"valid_at": pa.timestamp("us", "UTC"), "known_at": pa.timestamp("us", "UTC")}
    customers = [
        {"customer_id": r["key"], **times_of(r), "score": r["value"], "stage": f"s{r['value']}"} for r in CUSTOMERS
    ]
    schema = pa.schema({"customer_id": pa.string(), **times, "score": pa.decimal128(6, 2), "stage": pa.string()})
    write_deltalake(str(lake.table_path("gold", "feat_customer")), pa.Table.from_pylist(customers, schema))
    products = [{"product_id": r["key"], **times_of(r), "price": r["value"]} for r in PRODUCTS]
    schema = pa.schema({"product_id": pa.int32(), **times, "price": pa.decimal128(6, 2)})
    write_deltalake(str(lake.table_path("gold", "feat_product")), pa.Table.from_pylist(products, schema))
    return lake


def times_of(row: Row) -> Row:
    return {name: row[name] for name in ("valid_at", "known_at")}


def entities() -> list[Row]:
    """Rows that ask, on the very moments too, with a key that nobody knows and a label."""
    rng = random.Random(3)
    asked = {(rng.choice("abcz"), rng.choice([1, 2, 3, 99]), rng.randrange(0, 280) / 2) for _ in range(200)}
    return [
        {"label": number % 2, "customer_id": customer, "product_id": product, "event_at": at(hour)}
        for number, (customer, product, hour) in enumerate(sorted(asked))
    ]


def parquet(tmp_path: Path, rows: list[Row], **types: Any) -> Path:
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        table = table.set_column(table.column_names.index(name), name, table.column(name).cast(kind))
    path = tmp_path / "entities.parquet"
    pq.write_table(table, path)
    return path


def by_the_rule(log: list[Row], key: Any, moment: datetime, valid_time: bool) -> Row | None:
    """The newest moment by then, as it was known last."""
    there = [r for r in log if r["key"] == key and r["valid_at"] <= moment and (valid_time or r["known_at"] <= moment)]
    return max(there, key=lambda r: (r["valid_at"], r["known_at"]), default=None)


def expected(valid_time: bool) -> list[Row]:
    rows = []
    for row in entities():
        customer = by_the_rule(CUSTOMERS, row["customer_id"], row["event_at"], valid_time)
        product = by_the_rule(PRODUCTS, row["product_id"], row["event_at"], valid_time)
        fresh = customer and customer["valid_at"] >= row["event_at"] - timedelta(hours=TTL_HOURS)
        rows.append({
            **row,
            "score": customer["value"] if customer and fresh else None,
            "stage": f"s{customer['value']}" if customer else None,
            "price": product["value"] if product else None,
        })  # fmt: skip
    return rows


@pytest.mark.parametrize("valid_time", [False, True])
def test_each_row_has_what_was_known_or_so_at_its_time(own: Lake, tmp_path: Path, valid_time: bool) -> None:
    """Given late rows, repeated moments, unknown keys and old values, Then the join is the plain rule, labels kept."""
    done = asof(own, parquet(tmp_path, entities()), valid_time=valid_time)
    wanted = expected(valid_time)
    assert done.engine is Engine.DUCKDB
    assert done.rows.to_pylist() == wanted
    assert done.found["score"] == sum(row["score"] is not None for row in wanted)
    assert done.unknown["feat_product"] >= sum(row["product_id"] == 99 for row in wanted) > 0
    assert expected(True) != expected(False), "the two readings differ on this data"


def test_a_home_in_a_bucket_gives_the_same(own: Lake, tmp_path: Path, aws: str) -> None:
    to_bucket(own.home, "lake", "prod")
    there = Lake(Settings(home=Path("s3://lake/prod"), schema_prefix=PREFIX), artifacts=own.artifacts)
    assert asof(there, parquet(tmp_path, entities())).rows.to_pylist() == expected(valid_time=False)


def test_a_late_row_is_not_used_before_it_arrived(own: Lake, tmp_path: Path) -> None:
    late = next(r for r in CUSTOMERS if r["known_at"] - r["valid_at"] == timedelta(hours=30))
    moments = [late["valid_at"], late["known_at"] - timedelta(microseconds=1), late["known_at"]]
    rows = [{"customer_id": late["key"], "event_at": moment} for moment in moments]
    known, valid = (
        asof(own, parquet(tmp_path, rows), ["feat_customer.stage"], valid_time=reading).rows["stage"].to_pylist()
        for reading in (False, True)
    )
    assert valid[0] == f"s{late['value']}" and known[0] != valid[0]
    for reading, found in ((False, known), (True, valid)):
        wanted = [by_the_rule(CUSTOMERS, late["key"], moment, reading) for moment in moments]
        assert found == [row and f"s{row['value']}" for row in wanted]


def test_times_in_csv_say_their_zone_and_keys_keep_their_zeros(own: Lake, tmp_path: Path) -> None:
    """Given the same moment in two zones and one without, Then the last needs --time-zone; 007 stays a text."""
    path = tmp_path / "entities.csv"
    path.write_text(
        "customer_id,event_at,label\na,2025-01-04T01:00:00+01:00,x\na,2025-01-04T00:00:01Z,y\n007,2025-01-04T00:00:00Z,\n"
    )
    rows = asof(own, path).rows
    assert rows["stage"].to_pylist()[0] == rows["stage"].to_pylist()[1] is not None
    assert rows["customer_id"].to_pylist()[2] == "007" and rows["label"].to_pylist() == ["x", "y", None]
    path.write_text("customer_id,event_at\na,2025-01-04T01:00:00+01:00\nb,2025-01-04T00:00:00\n")
    with pytest.raises(ConfigError, match=r"row 2: event_at has no time zone\..*--time-zone UTC"):
        asof(own, path)
    known = by_the_rule(CUSTOMERS, "b", at(72 - 2), False)
    path.write_text("customer_id,event_at\nb,2025-01-04T00:00:00\n")
    assert known and asof(own, path, time_zone="Europe/Kyiv").rows["stage"].to_pylist() == [f"s{known['value']}"]


def test_naive_timestamps_of_parquet_need_a_zone_too(own: Lake, tmp_path: Path) -> None:
    path = parquet(tmp_path, [{"customer_id": "a", "event_at": datetime(2025, 1, 4)}])
    with pytest.raises(ConfigError, match=r"row 1: event_at has no time zone"):
        asof(own, path)
    zoned = parquet(tmp_path, [{"customer_id": "a", "event_at": at(72)}], event_at=pa.timestamp("ms", "Asia/Tokyo"))
    other = asof(own, zoned).rows["stage"].to_pylist()
    naive = parquet(tmp_path, [{"customer_id": "a", "event_at": datetime(2025, 1, 4)}])
    assert asof(own, naive, time_zone="UTC").rows["stage"].to_pylist() == other


A = {"customer_id": "a", "event_at": at(50)}


@pytest.mark.parametrize(
    ("rows", "arguments", "told"),
    [
        ([A, {**A, "event_at": at(51)}, A], {}, r"1 keys and times are there more than once, such as in rows 1 and 3"),
        ([{"event_at": at(1)}], {}, r"lacks the column one of customer_id, product_id; it has event_at"),
        ([{"customer_id": "a"}], {}, r"lacks the column event_at; it has customer_id\. --time-column"),
        ([A], {"features": ["feat_product"]}, r"lacks the column one of product_id"),
        ([A], {"features": ["feat_customer", "feat_product"]}, r"lacks the column product_id, the key of feat_product"),
        ([A], {"features": ["feat_x"]}, r"No such feature table: feat_x\. There are feat_customer, feat_product"),
        ([A], {"features": ["feat_customer.x"]}, r"feat_customer has no feature x\. It has score, stage"),
        ([A, {**A, "customer_id": None}], {}, r"1 rows have no customer_id"),
        ([{"product_id": "x1", "event_at": at(1)}], {}, r"product_id has a value that is no int"),
        ([{**A, "score": 1}], {}, r"two columns score, one of them feat_customer\.score"),
        ([{**A, "_features_row": 1}], {}, r"the column _features_row has a name of the join's own"),
        ([{**A, "event_at": 5}], {}, r"event_at is of type int64; a time is a timestamp or an ISO 8601 text"),
        ([{**A, "event_at": "soon"}], {}, r"row 1: event_at is no ISO 8601 time"),
        ([A], {"time_zone": "Mars"}, r"--time-zone Mars is no time zone"),
    ],
)
def test_a_file_that_is_not_as_it_must_be_is_refused(
    own: Lake, tmp_path: Path, rows: list[Row], arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        asof(own, parquet(tmp_path, rows), **arguments)


def test_a_file_of_another_kind_or_none_is_named(own: Lake, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"an entity file is \.parquet or \.csv"):
        asof(own, tmp_path / "rows.txt")
    with pytest.raises(ConfigError, match=r"cannot be read"):
        asof(own, tmp_path / "nothing.parquet")


def test_what_the_yaml_says_of_a_feature_is_listed(own: Lake) -> None:
    customer, product = feature_tables(own)
    assert (customer.entity, customer.key, customer.owner) == ("customer_id", "customer_id", "Customer analytics")
    assert customer.freshness_minutes == 60 and changed_at(customer) is not None
    assert [(f.name, f.ttl_hours, f.source) for f in customer.features] == [
        ("score", TTL_HOURS, "slv.score"), ("stage", None, "slv.stage"),
    ]  # fmt: skip
    assert product.features[0].type == "decimal(6,2)"


def test_a_wrong_model_and_one_that_is_not_built_are_named(own: Lake, tmp_path: Path) -> None:
    node = model("feat_x", "x_id", "string", f=("string", 0))
    files.write_manifest(own.artifacts, node)
    with pytest.raises(ConfigError, match=r"feature_ttl_hours of f must be a whole number from 1, not 0"):
        feature_tables(own)
    files.write_manifest(own.artifacts, model("feat_x", "x_id", "string", f=("string", 1)))
    with pytest.raises(OpsError, match=r"feats_gold\.feat_x is not built yet\. Run `dbt build --select \+feat_x`"):
        export(own, "feat_x")
    node["config"]["unique_key"] = ["x_id"]
    files.write_manifest(own.artifacts, node)
    with pytest.raises(ConfigError, match=r"unique_key is one column, valid_at and known_at, not x_id"):
        feature_tables(own)


def test_an_export_is_the_whole_table_or_the_newest_row_of_each_key(own: Lake) -> None:
    assert len(export(own, "feat_product")) == len(PRODUCTS)
    newest = {key: by_the_rule(PRODUCTS, key, at(1000), False) for key in (1, 2, 3)}
    found = {row["product_id"]: row["price"] for row in export(own, "feat_product", latest=True).to_pylist()}
    assert found == {key: row and row["value"] for key, row in newest.items()}


def test_the_commands_refuse_what_is_there_and_say_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").write_text("mine")
    done = lakeops(tmp_path, "features", "export", "feat_customer", "--out", str(tmp_path / "out.parquet"))
    assert done.returncode == 2 and "out.parquet is there already" in done.stderr
    assert (tmp_path / "out.parquet").read_text() == "mine"
    done = lakeops(tmp_path, "features", "list")
    assert done.returncode == 1 and "manifest.json does not exist: run `dbt build` first" in done.stderr


@pytest.fixture
def registered(own: Lake, spark: SparkSession) -> Iterator[Lake]:
    spark.sql(f"create schema if not exists {PREFIX}_gold")
    for name in ("feat_customer", "feat_product"):
        spark.sql(f"create table {PREFIX}_gold.{name} using delta location '{own.table_path('gold', name)}'")
    yield Lake(own.settings, artifacts=own.artifacts, start=lambda: spark)
    spark.sql(f"drop schema {PREFIX}_gold cascade")


@pytest.mark.spark
def test_spark_gives_what_duckdb_gives(registered: Lake, tmp_path: Path) -> None:
    path = parquet(tmp_path, entities())
    for valid_time in (False, True):
        both = [
            asof(registered, path, valid_time=valid_time, engine=engine) for engine in (Engine.DUCKDB, Engine.SPARK)
        ]
        assert both[0].rows.to_pylist() == both[1].rows.to_pylist() == expected(valid_time)
        assert both[0].unknown == both[1].unknown
