"""An environment whose Spark is a Connect server: the same commands, in processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
from deltalake import DeltaTable
from spark_servers import connect_server, standalone_cluster

from python_ops.lake.buckets import bucket_path
from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.delta import open_log
from python_ops.lake.files import write_whole
from python_ops.lake.storage import fetch
from python_ops.lake.warm import free_port

FILES_ONLY = {
    "LAKEHOUSE_SECRETS": "file", "LAKEHOUSE_STATE_STORE": "file", "LAKEHOUSE_METRICS": "file",
    "LAKEHOUSE_LINEAGE": "file", "LAKEHOUSE_ALERTS": '["console"]', "LAKEHOUSE_SCHEMA_PREFIX": "",
}  # fmt: skip


def run(home: Path, remote: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **FILES_ONLY, "LAKEHOUSE_HOME": str(home), "SPARK_REMOTE": remote}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


UDF = """
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
rows = SparkSession.builder.getOrCreate().range(3).select(udf(lambda n: n + 1, "bigint")("id")).collect()
print(sorted(row[0] for row in rows))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a server on a home of its own."""
    with connect_server(tmp_path) as address:
        yield address


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Address of a standalone cluster of two workers, whose logs are in the test's folder."""
    with standalone_cluster(tmp_path) as address:
        yield address


@pytest.mark.campaign
@pytest.mark.spark
def test_ingestion_and_dbt_work_on_a_connect_server(tmp_path: Path, server: str) -> None:
    landing = tmp_path / "landing" / "fx_rates"
    landing.mkdir(parents=True)
    shutil.copy(PROJECT_ROOT / "seeds" / "landing" / "fx_rates" / "batch_0.csv", landing)
    taken = run(tmp_path, server, "python_ops", "ingest", "run", "fx_rates", "--env", "dev")
    assert taken.returncode == 0 and "read 45 = 44 accepted" in taken.stdout, taken.stdout + taken.stderr
    target = tmp_path / "target"
    built = run(
        tmp_path, server, "dbt.cli.main", "run", "--target", "dev", "--select", "slv_fx_rates",
        "--profiles-dir", "profiles", "--target-path", str(target), "--log-path", str(tmp_path / "logs"),
    )  # fmt: skip
    assert built.returncode == 0, built.stdout[-3000:]
    token = tmp_path / "connect.token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert "read 44, inserted 44" in built.stdout
    assert DeltaTable(str(tmp_path / "warehouse" / "silver.db" / "slv_fx_rates__cdc")).version() >= 0
    given = {**os.environ, "SPARK_REMOTE": server, "SPARK_CONNECT_AUTHENTICATE_TOKEN": token.read_text().strip()}
    added = subprocess.run(
        [sys.executable, "-c", UDF], env=given, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert added.stdout == "[1, 2, 3]\n", added.stderr
    bronze = DeltaTable(str(tmp_path / "warehouse" / "bronze.db" / "fx_rates"))
    version = bronze.version()
    shutil.copy(PROJECT_ROOT / "seeds" / "landing" / "fx_rates" / "batch_1.csv", landing)
    stranger = run(tmp_path, f"{server}/;token=guessed", "python_ops", "ingest", "run", "fx_rates", "--env", "dev")
    bronze.update_incremental()
    assert (stranger.returncode, bronze.version()) == (2, version), stranger.stdout + stranger.stderr
    assert "refuses the token in SPARK_REMOTE" in stranger.stderr and "Traceback" not in stranger.stderr, (
        stranger.stderr
    )


@pytest.fixture
def bucket(log_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A home in a bucket; server and clients have a workspace in common, for the token."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1",
        "LAKEHOUSE_WORKSPACE": str(tmp_path / "workspace"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset", timeout=10)  # of other tests in this process
    boto3.client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield bucket_path("s3://lake/home")
    server.stop()


@pytest.mark.campaign
@pytest.mark.spark
def test_a_cluster_of_two_workers_loads_and_merges_in_a_bucket(tmp_path: Path, bucket: Path, cluster: str) -> None:
    """Given a client's address in SPARK_REMOTE already, Then the server starts on the cluster; the executors of both
    workers do a CDC model's first load and its MERGE."""
    home = bucket
    given = {
        "SPARK_REMOTE": "sc://elsewhere:15002",
        "LAKEHOUSE_DRIVER_HOST": "127.0.0.1",
        "LAKEHOUSE_DRIVER_MEMORY": "1g",
    }
    memory = ("--conf", "spark.executor.memory=640m")
    with connect_server(home, "--master", cluster, *memory, log=tmp_path, **given) as address:
        for batch, told in (("batch_0.csv", "inserted 44"), ("batch_1.csv", "inserted 4")):
            seed = PROJECT_ROOT / "seeds" / "landing" / "fx_rates" / batch
            write_whole(home / "landing" / "fx_rates" / batch, seed.read_bytes())
            taken = run(home, address, "python_ops", "ingest", "run", "fx_rates", "--env", "dev")
            assert taken.returncode == 0, taken.stdout + taken.stderr
            built = run(
                home, address, "dbt.cli.main", "build", "--target", "dev", "--select", "slv_fx_rates",
                "--profiles-dir", "profiles", "--log-path", str(tmp_path / "logs"),
            )  # fmt: skip
            assert built.returncode == 0 and told in built.stdout, built.stdout[-3000:]
    # deltalake asks for the history while no other thread of this process runs, moto's neither: a copy is asked.
    history = open_log(fetch(home / "warehouse" / "silver.db" / "slv_fx_rates__cdc", tmp_path / "copy")).history()
    assert "MERGE" in {commit["operation"] for commit in history}
    for number in (1, 2):
        logs = (tmp_path / f"worker_{number}").glob("app-*/*/stderr")
        assert any("Finished task" in log.read_text() for log in logs), f"worker {number} did nothing"


@pytest.mark.parametrize("given", [["--master"], ["--conf", "x"], ["somewhere"], ["--bind", "::"]])
def test_wrong_options_of_the_server_are_told(given: list[str]) -> None:
    done = subprocess.run([PROJECT_ROOT / "infra" / "spark_connect.sh", *given], capture_output=True, text=True)
    assert done.returncode == 2 and "Usage: infra/spark_connect.sh" in done.stderr


@pytest.mark.slow
def test_without_an_address_or_an_answer_the_command_says_so(tmp_path: Path) -> None:
    (tmp_path / "landing" / "fx_rates").mkdir(parents=True)
    shutil.copy(PROJECT_ROOT / "seeds" / "landing" / "fx_rates" / "batch_0.csv", tmp_path / "landing" / "fx_rates")
    nowhere = run(tmp_path, "", "python_ops", "ingest", "run", "fx_rates", "--env", "dev")
    assert nowhere.returncode == 2 and "SPARK_REMOTE names none" in nowhere.stderr, nowhere.stderr
    silent = run(tmp_path, f"sc://localhost:{free_port()}", "python_ops", "ingest", "run", "fx_rates", "--env", "dev")
    assert silent.returncode == 1 and "does not answer" in silent.stderr, silent.stderr
