"""An environment whose Spark is a Connect server: the same commands, in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from python_ops.lake.config import PROJECT_ROOT

FILES_ONLY = {
    "LAKEHOUSE_SECRETS": "file", "LAKEHOUSE_STATE_STORE": "file", "LAKEHOUSE_METRICS": "file",
    "LAKEHOUSE_LINEAGE": "file", "LAKEHOUSE_ALERTS": '["console"]', "LAKEHOUSE_SCHEMA_PREFIX": "",
}  # fmt: skip


def run(home: Path, remote: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **FILES_ONLY, "LAKEHOUSE_HOME": str(home), "SPARK_REMOTE": remote}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


UDF = """
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
rows = SparkSession.builder.getOrCreate().range(3).select(udf(lambda n: n + 1, "bigint")("id")).collect()
print(sorted(row[0] for row in rows))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a server on a home of its own."""
    port = free_port()
    environment = {**os.environ, "LAKEHOUSE_HOME": str(tmp_path), "PYTHON": sys.executable, "LAKEHOUSE_CORES": "2"}
    with (tmp_path / "server.log").open("w") as log:
        started = subprocess.Popen(
            [str(PROJECT_ROOT / "infra" / "spark_connect.sh"), str(port)],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert started.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            time.sleep(0.5)
        yield f"sc://localhost:{port}"
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait(timeout=60)


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


@pytest.mark.slow
def test_without_an_address_or_an_answer_the_command_says_so(tmp_path: Path) -> None:
    (tmp_path / "landing" / "fx_rates").mkdir(parents=True)
    shutil.copy(PROJECT_ROOT / "seeds" / "landing" / "fx_rates" / "batch_0.csv", tmp_path / "landing" / "fx_rates")
    nowhere = run(tmp_path, "", "python_ops", "ingest", "run", "fx_rates", "--env", "dev")
    assert nowhere.returncode == 2 and "SPARK_REMOTE names none" in nowhere.stderr, nowhere.stderr
    silent = run(tmp_path, f"sc://localhost:{free_port()}", "python_ops", "ingest", "run", "fx_rates", "--env", "dev")
    assert silent.returncode == 1 and "does not answer" in silent.stderr, silent.stderr
