"""Spark on a home in a bucket: dbt's first load and MERGE, a commit whose answer gets lost, and two drivers at once.

Each driver is a process of its own (s3_lake.py), because Spark reads AWS's variables when it starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyspark
import pytest
import requests
from deltalake import DeltaTable

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.warm import answers, free_port

BUCKET = "lake"
Answer = Iterable[bytes]


class Lossy:
    """moto's S3, which keeps the first commit of each number in a table `lost` and answers that it failed; and answers
    the first ones of a table `contested` that another put of that name is under way, so it is to be repeated.

    Attributes:
        withheld: Paths of the commits of `lost`.
        contested: Paths of those of `contested`.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.moto = DomainDispatcherApplication(create_backend_app)
        self.withheld: list[str] = []
        self.contested: list[str] = []

    def __call__(self, asked: dict[str, Any], answer: Any) -> Answer:
        path = str(asked["PATH_INFO"])
        is_commit = asked["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in asked
        if is_commit and "/contested/_delta_log/" in path and path not in self.contested:
            self.contested.append(path)
            answer("409 Conflict", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ConditionalRequestConflict</Code><Message>try again</Message></Error>"]
        if not is_commit or "/lost/_delta_log/" not in path or path in self.withheld:
            found: Answer = self.moto(asked, answer)
            return found
        self.withheld.append(path)
        b"".join(self.moto(asked, lambda *_: None))
        answer("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]


@pytest.fixture
def s3(log_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lossy]:
    """A server with the bucket, named by the variables that boto3, deltalake and Spark read."""
    from werkzeug.serving import make_server

    app = Lossy()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset", timeout=10)  # of other tests in this process
    boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield app
    server.shutdown()
    serving.join()


def driver(workspace: Path, *command: str, **given: str) -> subprocess.Popen[str]:
    """A Spark of its own on the home."""
    environment = {
        **os.environ, "LAKEHOUSE_HOME": f"s3://{BUCKET}/home", "LAKEHOUSE_WORKSPACE": str(workspace),
        "LAKEHOUSE_CORES": "2", "LAKEHOUSE_DRIVER_MEMORY": "1g", **given,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_lake.py")), *command],
        cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def told(running: subprocess.Popen[str]) -> Any:
    """What it printed at its end."""
    output, errors = running.communicate(timeout=600)
    assert running.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


def table(name: str) -> DeltaTable:
    """A table in the bucket, read without Spark."""
    return DeltaTable(f"s3://{BUCKET}/{name}", storage_options={"allow_http": "true"})


@pytest.mark.spark
def test_dbt_loads_and_merges_a_cdc_model_in_a_bucket_and_a_lost_answer_is_one_commit(
    tmp_path: Path, s3: Lossy
) -> None:
    """Given two batches, When dbt builds after each, Then the model is right, its table lies under the home, and the
    disk has Spark's own files alone. A commit is there once if S3 took it while its answer got lost, or asked for it
    again (409)."""
    found = told(driver(tmp_path / "workspace", "build", str(tmp_path / "project")))
    assert found["states"] == {"A": ["new"], "C": ["added"]}
    assert found["operations"] == ["CREATE TABLE AS SELECT", "WRITE", "MERGE"], "as in a folder"
    assert found["location"] == f"s3://{BUCKET}/home/warehouse/silver.db/m__cdc"
    assert table("home/warehouse/silver.db/m__cdc").version() >= 1
    for name, met in (("lost", s3.withheld), ("contested", s3.contested)):
        assert (found[name], len(met)) == ([[1, 2], 2], 3), f"{name}: {met}"
    assert {path.name for path in (tmp_path / "workspace").iterdir()} <= {"derby", "logs"}
    keys = {item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert {key.split("/")[1] for key in keys} == {"home.json", "warehouse"}


@contextmanager
def hive_metastore(folder: Path) -> Iterator[str]:
    """Address of a Hive metastore, run from the jars that Spark brings. It makes schemas' folders, so it needs S3A."""
    jars = (PROJECT_ROOT / ".venv" / "jars", Path(pyspark.__path__[0]) / "jars")
    port = free_port()
    given = {
        "javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder}/metastore;create=true",
        "datanucleus.schema.autoCreateAll": "true", "hive.metastore.schema.verification": "false",
        "hive.async.log.enabled": "false", "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "fs.s3a.endpoint": os.environ["AWS_ENDPOINT_URL"], "fs.s3a.path.style.access": "true",
    }  # fmt: skip
    words = [word for name, value in given.items() for word in ("--hiveconf", f"{name}={value}")]
    selector = "org.apache.logging.log4j.core.selector.BasicContextSelector"
    with (folder / "metastore.log").open("w") as log:
        running = subprocess.Popen(
            ["java", "-cp", ":".join(f"{place}/*" for place in jars), f"-Dlog4j2.contextSelector={selector}",
             f"-Dderby.system.home={folder}", "org.apache.hadoop.hive.metastore.HiveMetaStore", "-p", f"{port}",
             *words],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not answers(port):
            assert running.poll() is None and time.monotonic() < deadline, (folder / "metastore.log").read_text()[
                -2000:
            ]
            time.sleep(0.5)
        yield f"thrift://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


@pytest.mark.campaign
@pytest.mark.spark
def test_machines_that_share_a_metastore_share_names_and_views(tmp_path: Path, s3: Lossy) -> None:
    """Given a Hive metastore, When one machine builds a model, Then another one knows its table and its views, and has
    no metastore of its own."""
    with hive_metastore(tmp_path) as address:
        given = {"LAKEHOUSE_METASTORE": address}
        told(driver(tmp_path / "first", "build", str(tmp_path / "project"), **given))
        assert {"m", "m__cdc"} <= set(told(driver(tmp_path / "second", "names", **given)))
    assert not list(tmp_path.glob("*/derby/metastore_db"))


@pytest.mark.campaign
@pytest.mark.spark
def test_two_drivers_append_and_merge_into_one_table_without_loss(tmp_path: Path, s3: Lossy) -> None:
    """Delta's own log store for S3 is for one driver alone: https://docs.delta.io/delta-storage/ (single-cluster)."""
    told(driver(tmp_path / "first", "create", f"s3://{BUCKET}/t"))
    writers = [driver(tmp_path / name, "write", f"s3://{BUCKET}/t", name, "40") for name in ("a", "b")]
    acknowledged = [told(running) for running in writers]
    rows = table("t").to_pyarrow_table().to_pylist()
    assert acknowledged == [40, 40] and table("t").version() == 80
    expected = [(name, turn, True) for name in ("a", "b") for turn in range(0, 40, 2)]
    assert sorted((row["writer"], row["turn"], row["merged"]) for row in rows) == expected
