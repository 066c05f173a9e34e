"""The lake in AWS Glue as moto plays it, and who can read its tables."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import artifact_files as files
import boto3
import duckdb
import pyarrow as pa
import pytest
import sqlglot
from deltalake import write_deltalake
from typer.testing import CliRunner

from python_ops.cli.app import app
from python_ops.jobs.catalog import Action, Change, refuse_incomplete, register, unregister
from python_ops.jobs.catalog.readers import check, features, refuse_broken
from python_ops.jobs.query import query
from python_ops.lake.buckets import delta_options
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake

VIEW = (
    "create or replace view {silver}.slv_rows (`id` comment 'Key.', `seen_at`, `text`) comment 'Rows.' as "
    "select `id`, `seen_at`, case when _cdc_filled is null then `text` else _cdc_filled.`text` end as `text` "
    "from {silver}.slv_rows__cdc where _cdc_visible;\n"
    "create or replace view {silver}.slv_rows__changes as select distinct `id` from {silver}.slv_rows__cdc"
)


def write(lake: Lake, layer: str, name: str, rows: pa.Table, **given: Any) -> None:
    path = lake.table_path(layer, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), rows, mode="overwrite", schema_mode="overwrite", **given)


@pytest.fixture
def lake(aws: str, tmp_path: Path) -> Lake:
    """A lake with a table in each layer and a view, registered nowhere."""
    own = Lake(Settings(home=tmp_path / "lake", schema_prefix="dev", target="dev"))
    gold = files.model("dim_customer", prefix="dev", strategy="merge", description="Customers. One row per customer.")
    gold["columns"]["email"] = {"name": "email", "description": "Address.", "meta": {"pii": True}}
    gold["config"] |= {
        "group": "crm", "unique_key": "customer_id",
        "meta": {"readers": ["athena", "trino"], "sla_minutes": 60, "sensitivity": "personal"},
    }  # fmt: skip
    silver = files.model(
        "slv_rows", layer="silver", prefix="dev", strategy="cdc_scd1", description="Rows. One row per id."
    )
    silver["columns"]["text"] = {"name": "text", "description": "", "meta": {"pii": True}}
    silver["depends_on"] = {"nodes": ["source.lakehouse.bronze.crm_contacts"]}
    files.write_manifest(own.artifacts, gold, silver)
    source = {"name": "crm_contacts", "schema": "dev_bronze", "config": {"meta": {"sla_minutes": 1560}}}
    files.add_to_manifest(
        own.artifacts,
        sources={"source.lakehouse.bronze.crm_contacts": source},
        groups={"group.crm": {"name": "crm", "owner": {"name": "crm-team"}}},
    )
    path = own.artifacts / "run" / "lakehouse" / "dbt_project" / "models" / "silver" / "slv_rows.sql"
    path.parent.mkdir(parents=True)
    path.write_text(VIEW.format(silver="dev_silver"))
    write(own, "bronze", "crm_contacts", pa.table({"contact_id": ["a"], "email": ["x"]}))
    fields = [pa.field("customer_id", pa.string()), pa.field("email", pa.string(), metadata={"comment": "é" * 300})]
    write(own, "gold", "dim_customer", pa.table([["a"], ["x"]], pa.schema(fields)))
    write(own, "silver", "slv_rows__cdc", pa.table({
        "id": [1, 2], "seen_at": pa.array([0, 1], pa.timestamp("us", "UTC")), "text": ["a", "unsent"],
        "_cdc_filled": pa.array([None, {"text": "b"}], pa.struct([("text", pa.string())])),
        "_cdc_visible": [True, True],
    }), description="Every event of slv_rows.")  # fmt: skip
    write(own, "dlq", "crm_contacts", pa.table({"raw": ["secret"]}))
    return own


def glue() -> Any:
    return boto3.client("glue")


def table(database: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = glue().get_table(DatabaseName=database, Name=name)["Table"]
    return found


def actions(changes: list[Change]) -> dict[str, str]:
    return {change.name: change.action.value for change in changes}


EVERYTHING = {
    "dev_bronze", "dev_bronze.crm_contacts", "dev_silver", "dev_silver.slv_rows", "dev_silver.slv_rows__cdc",
    "dev_gold", "dev_gold.dim_customer",
}  # fmt: skip


def test_a_plan_writes_nothing_and_a_second_registration_changes_nothing(lake: Lake) -> None:
    assert actions(register(lake)) == dict.fromkeys(EVERYTHING, "create")
    assert glue().get_databases()["DatabaseList"] == []
    assert actions(register(lake, execute=True)) == dict.fromkeys(EVERYTHING, "create")
    assert actions(register(lake, execute=True)) == dict.fromkeys(EVERYTHING, "unchanged")
    assert "dev_dlq" not in {database["Name"] for database in glue().get_databases()["DatabaseList"]}


def test_an_entry_says_whose_the_table_is_and_what_it_means(lake: Lake) -> None:
    register(lake, execute=True)
    found = table("dev_gold", "dim_customer")
    assert {name: found["Parameters"].get(name) for name in found["Parameters"] if "lakehouse" not in name} == {
        "EXTERNAL": "TRUE", "spark.sql.sources.provider": "delta", "classification": "delta", "layer": "gold",
        "owner": "crm-team", "key": "customer_id", "grain": "One row per customer", "domain": "crm",
        "readers": "athena,trino", "sla_minutes": "60", "sensitivity": "personal",
    }  # fmt: skip
    assert (found["Owner"], found["Description"]) == ("crm-team", "Customers. One row per customer.")
    assert found["Parameters"]["lakehouse.environment"] == "dev"
    columns = {column["Name"]: column for column in found["StorageDescriptor"]["Columns"]}
    assert columns["customer_id"]["Type"] == "string" and not columns["customer_id"].get("Parameters")
    assert columns["email"]["Parameters"] == {"pii": "true"}, "its table says how sensitive it is"
    assert len(columns["email"]["Comment"]) == 255
    assert found["StorageDescriptor"]["Location"].endswith("/warehouse/dev_gold.db/dim_customer")
    bronze = table("dev_bronze", "crm_contacts")
    assert {name: bronze["Parameters"].get(name) for name in ("owner", "key", "domain", "sla_minutes")} == {
        "owner": "data-platform", "key": "contact_id", "domain": "crm", "sla_minutes": "1560",
    }  # fmt: skip
    (email,) = [column for column in bronze["StorageDescriptor"]["Columns"] if column["Name"] == "email"]
    assert email["Parameters"] == {"pii": "true", "sensitivity": "personal"}, "as the contract tags it"


def test_a_storage_table_is_not_described_as_the_view_on_it(lake: Lake) -> None:
    """And the struct that holds filled values of personal columns is personal."""
    register(lake, execute=True)
    view, stored = table("dev_silver", "slv_rows"), table("dev_silver", "slv_rows__cdc")
    assert (view["Description"], view["Parameters"]["grain"]) == ("Rows. One row per id.", "One row per id")
    assert (stored["Description"], stored["Parameters"].get("grain")) == ("Every event of slv_rows.", None)
    personal = {c["Name"] for c in stored["StorageDescriptor"]["Columns"] if (c.get("Parameters") or {}).get("pii")}
    assert personal == {"text", "_cdc_filled"}


def test_a_view_is_one_that_presto_reads_and_gives_the_same_rows(lake: Lake) -> None:
    """Its SQL, read in Trino's dialect and put into DuckDB's, gives what `lakeops sql` gives for Spark's."""
    register(lake, execute=True)
    found = table("dev_silver", "slv_rows")
    assert (found["TableType"], found["ViewExpandedText"]) == ("VIRTUAL_VIEW", "/* Presto View */")
    text = found["ViewOriginalText"].removeprefix("/* Presto View: ").removesuffix(" */")
    view = json.loads(base64.b64decode(text))
    assert (view["catalog"], view["schema"]) == ("awsdatacatalog", "dev_silver")
    assert view["columns"] == [
        {"name": "id", "type": "bigint"}, {"name": "seen_at", "type": "timestamp with time zone"},
        {"name": "text", "type": "varchar"},
    ]  # fmt: skip
    assert [(c["Name"], c["Type"], c["Comment"]) for c in found["StorageDescriptor"]["Columns"]] == [
        ("id", "bigint", "Key."), ("seen_at", "timestamp", ""), ("text", "string", ""),
    ]  # fmt: skip
    stored = query(lake, "from dev_silver.slv_rows__cdc").table()
    with duckdb.connect() as engine:
        engine.execute("set timezone = 'UTC'; create schema dev_silver")
        engine.register("stored", stored)
        engine.execute("create view dev_silver.slv_rows__cdc as from stored")
        (there,) = sqlglot.transpile(view["originalSql"], read="trino", write="duckdb")
        assert engine.sql(there).fetchall() == query(lake, "from dev_silver.slv_rows").rows() != []
    assert "slv_rows__changes" not in {t["Name"] for t in glue().get_tables(DatabaseName="dev_silver")["TableList"]}


def test_a_change_of_the_lake_or_by_hand_is_put_right(lake: Lake) -> None:
    register(lake, execute=True)
    write(lake, "gold", "dim_customer", pa.table({"customer_id": ["a"], "email": ["x"], "city": ["y"]}))
    entry = table("dev_bronze", "crm_contacts")
    names = ("Name", "StorageDescriptor", "TableType", "Parameters", "Owner")
    by_hand = {name: entry[name] for name in names} | {"Description": "changed by hand"}
    glue().update_table(DatabaseName="dev_bronze", TableInput=by_hand)
    write(lake, "gold", "fct_old", pa.table({"x": [1]}))
    register(lake, execute=True)
    assert actions(register(lake))["dev_gold.fct_old"] == "unchanged"
    lake.table_path("gold", "fct_old").rename(lake.home / "elsewhere")
    planned = {change.name: (change.action.value, change.why) for change in register(lake)}
    assert planned["dev_bronze.crm_contacts"] == ("unchanged", "")
    assert planned["dev_gold.dim_customer"] == ("unchanged", "")
    path = lake.artifacts / "manifest.json"
    path.write_text(path.read_text().replace(', "sensitivity": "personal"', ""))
    planned = {change.name: (change.action.value, change.why) for change in register(lake)}
    assert planned["dev_gold.dim_customer"] == ("update", "columns, parameters"), "what is no longer said goes"
    assert planned["dev_gold.fct_old"] == ("remove", "the lake has no such table")
    register(lake, execute=True)
    assert "sensitivity" not in table("dev_gold", "dim_customer")["Parameters"]
    assert [c["Name"] for c in table("dev_gold", "dim_customer")["StorageDescriptor"]["Columns"]] == [
        "customer_id", "email", "city",
    ]  # fmt: skip
    assert table("dev_bronze", "crm_contacts")["Description"].startswith("CRM contacts")
    assert set(actions(register(lake)).values()) == {"unchanged"}


def test_what_is_somebody_elses_stays_and_is_named(lake: Lake) -> None:
    """Given entries of another environment, of somebody else and of Spark, Then only Spark's table is taken over."""
    location = lake.table_path("bronze", "crm_contacts").as_uri()
    for database in ("dev_gold", "dev_silver", "dev_bronze"):
        glue().create_database(DatabaseInput={"Name": database})
    strange: dict[str, Any] = {"Name": "dim_customer", "StorageDescriptor": {"Location": "s3://theirs/x"}}
    glue().create_table(DatabaseName="dev_gold", TableInput=strange)
    other = {"Name": "slv_rows__cdc", "Parameters": {"lakehouse.environment": "prod"}, "StorageDescriptor": {}}
    glue().create_table(DatabaseName="dev_silver", TableInput=other)
    of_spark = {"Name": "slv_rows", "TableType": "VIRTUAL_VIEW", "Parameters": {"spark.sql.create.version": "4.1.4"}}
    glue().create_table(DatabaseName="dev_silver", TableInput=of_spark)
    described = {"Location": f"{location}-__PLACEHOLDER__", "SerdeInfo": {"Parameters": {"path": location}}}
    own = {
        "Name": "crm_contacts",
        "Parameters": {"spark.sql.partitionProvider": "catalog"},
        "StorageDescriptor": described,
    }
    glue().create_table(DatabaseName="dev_bronze", TableInput=own)

    changes = register(lake, execute=True)
    found = {change.name: (change.action, change.why) for change in changes}
    assert found["dev_gold.dim_customer"] == (
        Action.REFUSED, "there is an entry that this project did not register; remove or rename it",
    )  # fmt: skip
    assert (
        found["dev_silver.slv_rows__cdc"][0] is Action.REFUSED
        and "environment prod" in found["dev_silver.slv_rows__cdc"][1]
    )
    assert found["dev_silver.slv_rows"] == (Action.LEFT, "Spark's own view, in its metastore")
    assert found["dev_bronze.crm_contacts"][0] is Action.UPDATE
    with pytest.raises(OpsError, match=r"2 of 7 entries .*dev_silver\.slv_rows__cdc refused: .*dev_gold\.dim_customer"):
        refuse_incomplete(changes)
    assert table("dev_gold", "dim_customer")["StorageDescriptor"]["Location"] == "s3://theirs/x"
    assert table("dev_bronze", "crm_contacts")["Parameters"]["spark.sql.partitionProvider"] == "catalog"

    removed = actions(unregister(lake, execute=True))
    assert removed["dev_bronze.crm_contacts"] == "remove" and "dev_bronze" not in removed, (
        "the database was there before"
    )
    assert {t["Name"] for t in glue().get_tables(DatabaseName="dev_silver")["TableList"]} == {
        "slv_rows",
        "slv_rows__cdc",
    }


def test_a_home_in_a_bucket_is_asked_and_registered_where_it_lies(aws: str, tmp_path: Path) -> None:
    boto3.client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    own = Lake(Settings(home=Path("s3://lake/home"), workspace=str(tmp_path), target="dev"))
    path = own.table_path("gold", "dim_customer")
    write_deltalake(str(path), pa.table({"customer_id": ["a"]}), storage_options=delta_options())
    files.write_manifest(own.artifacts, files.model("dim_customer", strategy="merge"))
    assert query(own, "from dim_customer").rows() == [("a",)]
    register(own, execute=True)
    assert (
        table("gold", "dim_customer")["StorageDescriptor"]["Location"]
        == "s3://lake/home/warehouse/gold.db/dim_customer"
    )
    assert [each.readers for each in check(own)] == [("athena", "trino", "spark")]
    assert set(actions(register(own)).values()) == {"unchanged"}


def test_unregister_removes_what_register_made(lake: Lake) -> None:
    register(lake, execute=True)
    planned = actions(unregister(lake))
    assert planned == dict.fromkeys(EVERYTHING, "remove")
    assert actions(register(lake)) == dict.fromkeys(EVERYTHING, "unchanged"), "a plan removes nothing"
    unregister(lake, execute=True)
    assert glue().get_databases()["DatabaseList"] == [] and unregister(lake) == []
    assert query(lake, "select count(*) from dev_gold.dim_customer").rows() == [(1,)]


def test_one_view_that_presto_cannot_say_does_not_stop_the_others(lake: Lake) -> None:
    path = lake.artifacts / "run" / "lakehouse" / "dbt_project" / "models" / "silver" / "slv_rows.sql"
    path.write_text(
        "create or replace view dev_silver.slv_rows (`x`) as select nope as x from dev_silver.slv_rows__cdc"
    )
    changes = register(lake, execute=True)
    assert actions(changes) == dict.fromkeys(EVERYTHING, "create") | {"dev_silver.slv_rows": "failed"}
    with pytest.raises(OpsError, match=r"1 of 7 entries .*dev_silver\.slv_rows failed: The columns of"):
        refuse_incomplete(changes)
    path.write_text("create or replace view dev_silver.slv_rows as select (")
    assert actions(register(lake)) == dict.fromkeys(EVERYTHING, "unchanged") | {"dev_silver.slv_rows": "failed"}


def test_without_glue_or_a_lake_the_error_says_what_to_do(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Lake(Settings(home=lake.home.parent / "empty", target="dev"))
    with pytest.raises(OpsError, match="run `dbt build` first"):
        register(empty, execute=True)
    files.write_manifest(empty.artifacts)
    with pytest.raises(OpsError, match="nothing was registered, and nothing removed"):
        register(empty, execute=True)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(OpsError, match=r"Glue did not answer for anything \(NoRegionError\)\. Look at AWS_REGION"):
        register(lake)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(OpsError, match=r"Glue did not answer for database dev_bronze .*AWS_REGION"):
        register(lake)


@pytest.mark.parametrize(
    ("protocol", "configuration", "asked"),
    [
        ({"minReaderVersion": 1}, {}, set()),
        ({"minReaderVersion": 2}, {"delta.columnMapping.mode": "name"}, {"columnMapping"}),
        ({"minReaderVersion": 3, "readerFeatures": ["deletionVectors", "typeWidening-preview"]}, {},
         {"deletionVectors", "typeWidening"}),
    ],
)  # fmt: skip
def test_features_are_what_the_protocol_asks_of_a_reader(
    protocol: dict[str, Any], configuration: dict[str, str], asked: set[str]
) -> None:
    assert features(protocol, {"configuration": configuration}) == asked


def test_check_names_the_reader_that_cannot_read_a_table(lake: Lake) -> None:
    found = {each.table: each for each in check(lake)}
    assert found["dev_gold.dim_customer"].readers == ("athena", "trino", "spark")
    refuse_broken(check(lake))
    log = lake.table_path("gold", "dim_customer") / "_delta_log" / f"{1:020}.json"
    asks = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": []}
    log.write_text(json.dumps({"protocol": asks}))
    (broken,) = [each for each in check(lake) if each.broken]
    assert (broken.table, broken.broken) == ("dev_gold.dim_customer", {"athena": ("deletionVectors",)})
    with pytest.raises(OpsError, match=r"dim_customer: athena does not read deletionVectors\. Take the reader out"):
        refuse_broken(check(lake))


@pytest.mark.parametrize("readers", [["presto"], "athena"])
def test_a_reader_that_nobody_knows_is_refused(lake: Lake, readers: Any) -> None:
    node = files.model("dim_customer", prefix="dev", strategy="merge")
    node["config"]["meta"] = {"readers": readers}
    files.write_manifest(lake.artifacts, node)
    with pytest.raises(ConfigError, match=r"dim_customer: meta\.readers is a list of athena, trino, spark"):
        check(lake)


def test_commands_show_a_plan_act_and_end_as_they_say(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_HOME", str(lake.home))
    for name, value in {"SCHEMA_PREFIX": "dev", "STATE_STORE": "file", "SECRETS": "file", "LINEAGE": "file"}.items():
        monkeypatch.setenv(f"LAKEHOUSE_{name}", value)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["catalog", *arguments, "--env", "dev"], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert "dev_gold.dim_customer" in run("register") and "Nothing was done" in run("register")
    assert json.loads(run("register", "--execute", "--json"))["executed"]
    assert run("register") == "7 entries are as they should be.\n"
    assert "unchanged" in run("status") and "deletionVectors" not in run("check")
    assert "Nothing was done" in run("unregister") and "remove" in run("unregister", "--execute")
