"""The daily run on a home in a bucket: machines come and go, and what they share is the bucket and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import duckdb
import psycopg
import pytest
import requests
from postgres_server import postgres_server
from pytest_httpserver import HTTPServer
from recording import wrong_rows
from redshift_front import SHIMS, redshift_front
from servers import secret_of
from spark_servers import connect_server, standalone_cluster

from python_ops.lake.buckets import bucket_path
from python_ops.lake.config import PROJECT_ROOT, load_settings
from python_ops.lake.delta import open_log
from python_ops.lake.storage import fetch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HOME = "s3://lake/prod"
TOKEN = "canary-connect-token"
NO_JVM = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere"}

pytestmark = [pytest.mark.spark, pytest.mark.campaign]


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset", timeout=10)  # of other tests in this process
        boto3.client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield given
    server.stop()


def lakeops(machine: Path, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
    """A command on a machine whose disk is `machine`."""
    return on(machine, "python_ops", *words, **given)


def on(machine: Path, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
    """A module of Python, likewise."""
    machine.mkdir(exist_ok=True)
    told = {
        **os.environ, "LAKEHOUSE_HOME": HOME, "LAKEHOUSE_WORKSPACE": str(machine / "workspace"),
        "LAKEHOUSE_SCHEMA_PREFIX": "", "LAKEHOUSE_ALERTS": '["console"]', "TMPDIR": str(machine), **given,
    }  # fmt: skip
    return subprocess.run([sys.executable, "-m", *words], env=told, capture_output=True, text=True)


@pytest.fixture
def prod(aws: dict[str, str], httpserver: HTTPServer) -> Iterator[dict[str, str]]:
    """What infra/terraform makes for prod, on moto, and a warehouse behind the front of Redshift; gives the
    variables of a command. Slack, Snowflake and the sources that are extracted are left out."""
    table = load_settings("prod").state_table
    boto3.client("dynamodb").create_table(
        TableName=table, KeySchema=[{"AttributeName": "record", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "record", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
    )  # fmt: skip
    topic = boto3.client("sns").create_topic(Name="alerts")["TopicArn"]
    httpserver.expect_request("/api/v1/lineage", "POST").respond_with_data("", 201)
    with postgres_server() as dsn, psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SHIMS)
        with redshift_front(admin.info.port) as port:
            own = secret_of(dsn, ssl=False) | {"port": port}
            for name, text in {"redshift": json.dumps(own), "publish_pii_key": "k" * 32}.items():
                boto3.client("secretsmanager").create_secret(Name=f"lakehouse-prod/{name}", SecretString=text)
            yield {
                "LAKEHOUSE_ALERTS": '["console", "sns"]', "LAKEHOUSE_ALERTS_TOPIC": topic,
                "LAKEHOUSE_LINEAGE_URL": httpserver.url_for("").rstrip("/"), "LAKEHOUSE_EXTRACT": "[]",
                "LAKEHOUSE_PUBLISH": '["redshift"]', "DSN": dsn,
            }  # fmt: skip


@contextmanager
def spark_on_a_cluster(machine: Path) -> Iterator[dict[str, str]]:
    """A Connect server on two workers, whose disk is `machine`; gives the variables of its clients."""
    machine.mkdir()
    with standalone_cluster(machine) as address, connect_server(
        bucket_path(HOME), "--master", address, "--conf", "spark.executor.memory=640m", log=machine,
        LAKEHOUSE_WORKSPACE=str(machine / "workspace"), LAKEHOUSE_DRIVER_HOST="127.0.0.1",
        LAKEHOUSE_DRIVER_MEMORY="2g", LAKEHOUSE_SCHEMA_PREFIX="", SPARK_CONNECT_AUTHENTICATE_TOKEN=TOKEN,
    ) as server:  # fmt: skip
        yield {"SPARK_REMOTE": server, "SPARK_CONNECT_AUTHENTICATE_TOKEN": TOKEN}
    for number in (1, 2):
        logs = machine.glob(f"worker_{number}/app-*/*/stderr")
        assert any("Finished task" in log.read_text() for log in logs), f"worker {number} did nothing"


def deliver(*batches: int) -> None:
    s3 = boto3.client("s3")
    for batch in batches:
        for file in sorted((PROJECT_ROOT / "seeds" / "landing").glob(f"*/batch_{batch}.*")):
            s3.upload_file(str(file), "lake", f"prod/landing/{file.parent.name}/{file.name}")


def run(machine: Path, environment: str = "local", **given: str) -> str:
    """What a run says; 3 is a breach, and the recorded source truncates its opportunities."""
    done = lakeops(machine, "run", "--env", environment, **given)
    assert done.returncode in (0, 3), done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def versions() -> dict[str, int]:
    found = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="lake", Prefix="prod/warehouse/")
    keys = [item["Key"] for page in found for item in page.get("Contents", ())]
    tables = {key.partition("/_delta_log/")[0] for key in keys if "/_delta_log/" in key}
    return {table: open_log(bucket_path(f"s3://lake/{table}")).version() for table in tables}


def check_truth(spark: SparkSession, copy: Path) -> None:
    """Fails where the lake differs from what PostgreSQL held."""

    def table(layer: str, name: str) -> DataFrame:
        path = f"warehouse/{layer}.db/{name}"
        return spark.read.format("delta").load(str(fetch(bucket_path(f"{HOME}/{path}"), copy / path)))

    wrong = wrong_rows(spark, table)
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"


def test_machines_come_and_go_and_nothing_is_lost(aws: dict[str, str], tmp_path: Path, spark: SparkSession) -> None:
    """Given a lake that one machine built, When its disk is gone and others take the next batches, with Spark in their
    own process, Then the lake holds what PostgreSQL held, it is published, and a run with nothing new starts no JVM."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    deliver(0)
    assert "failed 0, skipped 0" in run(first)
    shutil.rmtree(first)
    deliver(3, 1, 4, 2)
    assert "failed 0, skipped 0" in run(second)
    before = versions()
    shutil.rmtree(second)
    assert "nothing new since the green run of" in run(third, **NO_JVM)
    assert versions() == before
    alone = on(third, "dbt.cli.main", "run", "--profiles-dir", "profiles", "--select", "fct_orders", "--full-refresh")
    assert alone.returncode == 0, "it reads views, which this machine's metastore has to learn: " + alone.stdout[-3000:]
    assert not list(PROJECT_ROOT.glob("*:*")), "an address became no folder"

    check_truth(spark, tmp_path / "copy")
    served = boto3.client("s3").get_object(Bucket="lake", Key="prod/published/lakehouse.duckdb")["Body"].read()
    (tmp_path / "served.duckdb").write_bytes(served)
    with duckdb.connect(tmp_path / "served.duckdb", read_only=True) as served_now:
        assert served_now.execute("select count(*) from gold.fct_orders").fetchone() == (5239,)
    told = json.loads(lakeops(third, "status", "--json", **NO_JVM).stdout)
    assert told["unreadable"] == {} and sum(source["batches"] for source in told["sources"]) == 10 * 2
    assert lakeops(third, "snapshot", "create", **NO_JVM).returncode == 0
    elsewhere = ("snapshot", "restore", "--to", "s3://lake/restored", "--no-catalog", "--execute")
    assert lakeops(third, *elsewhere, **NO_JVM).returncode == 0
    status = lakeops(third, "status", "--json", LAKEHOUSE_HOME="s3://lake/restored", **NO_JVM)
    assert json.loads(status.stdout)["sources"] == told["sources"]


def test_prod_runs_on_a_cluster_and_its_machines_are_replaced(
    prod: dict[str, str], tmp_path: Path, spark: SparkSession
) -> None:
    """Given prod, a cluster whose disks the clients do not see, and a client and a cluster that are replaced
    after the first batch, When all batches have run, Then the lake and the warehouse hold what PostgreSQL held, state
    and catalog are AWS's, and a run with nothing new asks no server."""
    clients = iter(tmp_path / f"client_{number}" for number in range(3))
    for number, batches in enumerate(((0,), (3, 1, 4, 2))):
        deliver(*batches)
        with spark_on_a_cluster(tmp_path / f"cluster_{number}") as remote:
            machine = next(clients)
            assert "failed 0, skipped 0" in run(machine, "prod", **prod, **remote)
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)
    before = versions()
    nowhere = {"SPARK_REMOTE": "sc://localhost:1"}
    assert "nothing new since the green run of" in run(next(clients), "prod", **prod, **nowhere, **NO_JVM)
    assert versions() == before
    check_truth(spark, tmp_path / "copy")
    with psycopg.connect(prod["DSN"]) as warehouse:
        assert warehouse.execute("select count(*) from gold.fct_orders").fetchone() == (5239,)
    assert boto3.client("dynamodb").scan(TableName=load_settings("prod").state_table)["Count"] > 0
    found = boto3.client("glue").get_table(DatabaseName="gold", Name="fct_orders")["Table"]["StorageDescriptor"]
    assert found["Location"].endswith("/gold.db/fct_orders")
