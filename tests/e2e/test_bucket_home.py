"""The daily run on a home in a bucket: machines come and go, and what they share is the bucket and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import duckdb
import pytest
import requests
from recording import wrong_rows

from python_ops.lake.buckets import bucket_path
from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.delta import open_log
from python_ops.lake.storage import fetch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HOME = "s3://lake/prod"

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
    machine.mkdir(exist_ok=True)
    told = {
        **os.environ, "LAKEHOUSE_HOME": HOME, "LAKEHOUSE_WORKSPACE": str(machine / "workspace"),
        "LAKEHOUSE_SCHEMA_PREFIX": "", "LAKEHOUSE_ALERTS": '["console"]', "TMPDIR": str(machine), **given,
    }  # fmt: skip
    return subprocess.run([sys.executable, "-m", "python_ops", *words], env=told, capture_output=True, text=True)


def deliver(*batches: int) -> None:
    s3 = boto3.client("s3")
    for batch in batches:
        for file in sorted((PROJECT_ROOT / "seeds" / "landing").glob(f"*/batch_{batch}.*")):
            s3.upload_file(str(file), "lake", f"prod/landing/{file.parent.name}/{file.name}")


def run(machine: Path, **given: str) -> str:
    """What a run says; 3 is a breach, and the recorded source truncates its opportunities."""
    done = lakeops(machine, "run", **given)
    assert done.returncode in (0, 3), done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def versions() -> dict[str, int]:
    found = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="lake", Prefix="prod/warehouse/")
    keys = [item["Key"] for page in found for item in page.get("Contents", ())]
    tables = {key.partition("/_delta_log/")[0] for key in keys if "/_delta_log/" in key}
    return {table: open_log(bucket_path(f"s3://lake/{table}")).version() for table in tables}


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
    no_jvm = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere"}
    assert "nothing new since the green run of" in run(third, **no_jvm)
    assert versions() == before
    assert not list(PROJECT_ROOT.glob("*:*")), "an address became no folder"

    def table(layer: str, name: str) -> DataFrame:
        path = f"warehouse/{layer}.db/{name}"
        return spark.read.format("delta").load(str(fetch(bucket_path(f"{HOME}/{path}"), tmp_path / "copy" / path)))

    wrong = wrong_rows(spark, table)
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"
    served = boto3.client("s3").get_object(Bucket="lake", Key="prod/published/lakehouse.duckdb")["Body"].read()
    (tmp_path / "served.duckdb").write_bytes(served)
    with duckdb.connect(tmp_path / "served.duckdb", read_only=True) as served_now:
        assert served_now.execute("select count(*) from gold.fct_orders").fetchone() == (5239,)
    told = json.loads(lakeops(third, "status", "--json", **no_jvm).stdout)
    assert told["unreadable"] == {} and sum(source["batches"] for source in told["sources"]) == 7 * 2
    assert lakeops(third, "snapshot", "create", **no_jvm).returncode == 0
    elsewhere = ("snapshot", "restore", "--to", "s3://lake/restored", "--no-catalog", "--execute")
    assert lakeops(third, *elsewhere, **no_jvm).returncode == 0
    status = lakeops(third, "status", "--json", LAKEHOUSE_HOME="s3://lake/restored", **no_jvm)
    assert json.loads(status.stdout)["sources"] == told["sources"]
