"""The Spark server that stays: who may use it, and when it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from python_ops.lake import warm
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.errors import BusyError, ConfigError, OpsError

SPARK = {"spark.master": "local[2]"}


def lakeops(home: Path, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LAKEHOUSE_HOME": str(home), "LAKEHOUSE_SCHEMA_PREFIX": "", **given}
    return subprocess.run(
        [sys.executable, "-m", "python_ops", *words], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True
    )


@contextmanager
def watched(home: Path, **record: Any) -> Iterator[None]:
    """A home whose server is up, as far as its files say."""
    with (home / "spark-server.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if record:
            (home / "spark-server.json").write_text(json.dumps(record))
        yield


def test_a_server_is_used_only_for_what_the_command_would_start_itself(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    up = {"pid": 1, "port": 15002, "since": "now", "idle_minutes": 5, "fingerprint": warm.fingerprint(SPARK)}
    assert warm.usable(settings, SPARK) is None, "there never was one"
    with watched(tmp_path, **up):
        server = warm.usable(settings, SPARK)
        assert server is not None and server.port == 15002
        with pytest.raises(ConfigError, match=r"other settings, jars or LAKEHOUSE_ variables.*lakeops spark stop"):
            warm.usable(settings, {**SPARK, "spark.driver.memory": "8g"})
        assert warm.usable(Settings(home=tmp_path / "other"), SPARK) is None, "another home's"
        with pytest.raises(BusyError, match="is up, on port 15002"):
            warm.start(settings, SPARK, None, 5)
    assert warm.usable(settings, SPARK) is None, "its watcher was killed, and left its record"
    assert warm.stop(settings) is None
    (tmp_path / "spark-server.json").unlink()
    with watched(tmp_path), pytest.raises(BusyError, match="is being started"):
        warm.usable(settings, SPARK)


def test_a_command_that_works_is_use(tmp_path: Path) -> None:
    """Given a server that was used an hour ago, When a command holds the home's lock, Then it is not idle."""
    record, lock = tmp_path / "spark-server.json", tmp_path / "state" / "lock.json"
    record.write_text("{}")
    os.utime(record, (time.time() - 3600, time.time() - 3600))
    assert warm.idle_seconds(Settings(home=tmp_path)) == pytest.approx(3600, abs=5)
    lock.parent.mkdir()
    with lock.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert warm.idle_seconds(Settings(home=tmp_path)) == 0
    assert warm.idle_seconds(Settings(home=tmp_path)) == pytest.approx(3600, abs=5)


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OpsError, match=r"is taken\. Give another"):
        warm.start(Settings(home=tmp_path), SPARK, taken.getsockname()[1], 5)


@pytest.mark.slow
def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    done = lakeops(tmp_path, "spark", "start", JAVA_HOME="/nowhere")
    assert done.returncode == 1 and "/nowhere/bin/java" in done.stderr and "spark-server.log" in done.stderr
    assert "No Spark server of" in lakeops(tmp_path, "spark", "stop").stdout
    refused = lakeops(tmp_path, "spark", "start", "--env", "prod")
    assert refused.returncode == 2 and "SPARK_REMOTE names" in refused.stderr


@pytest.mark.spark
def test_commands_use_the_server_and_it_ends_when_nobody_does(tmp_path: Path) -> None:
    """Given a warm server, Then dbt and lakeops start no Spark of their own; it ends when it is idle."""
    started = lakeops(tmp_path, "spark", "start", "--json")
    assert started.returncode == 0, started.stderr
    server = json.loads(started.stdout)
    try:
        environment = {
            **os.environ, "LAKEHOUSE_HOME": str(tmp_path), "LAKEHOUSE_SCHEMA_PREFIX": "",
            "DBT_PROFILES_DIR": "profiles",
        }  # fmt: skip
        for _ in range(2):
            done = subprocess.run(
                [Path(sys.executable).with_name("dbt"), "run", "--select", "dim_date", "--target", "local",
                 "--log-path", str(tmp_path / "logs")],
                cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0 and "PASS=2" in done.stdout, done.stdout + done.stderr
        assert not (tmp_path / "logs" / "spark-start.log").exists(), "no command started Spark itself"
        deadline = time.monotonic() + 120
        while "exercised in" not in (told := (tmp_path / "logs" / "spark-server.log").read_text()):
            assert time.monotonic() < deadline and "Traceback" not in told, told
            time.sleep(0.5)
        status = json.loads(lakeops(tmp_path, "spark", "status", "--json").stdout)
        assert status["is_used"] and status["server"]["port"] == server["port"]
        other = lakeops(tmp_path, "ingest", "run", LAKEHOUSE_DRIVER_MEMORY="2g")
        assert other.returncode == 2 and "was started with other settings" in other.stderr
        an_hour_ago = time.time() - 3600
        os.utime(tmp_path / "spark-server.json", (an_hour_ago, an_hour_ago))
        deadline = time.monotonic() + 60
        while "No Spark server" not in lakeops(tmp_path, "spark", "status").stdout:
            assert time.monotonic() < deadline, "it does not end"
            time.sleep(1)
    finally:
        lakeops(tmp_path, "spark", "stop")


@pytest.mark.spark
def test_a_server_ends_with_the_process_that_watches_over_it(tmp_path: Path) -> None:
    """Given a server that starts, When its watcher is killed, Then Java ends too."""
    given = {**os.environ, "LAKEHOUSE_HOME": str(tmp_path), "LAKEHOUSE_SCHEMA_PREFIX": ""}
    port = str(warm.free_port())
    watch = subprocess.Popen(
        [sys.executable, "-m", warm.__name__, "local", port, "5", "-"], cwd=PROJECT_ROOT, env=given
    )

    def java() -> bool:
        return (
            subprocess.run(["pgrep", "-x", "java", "-a"], capture_output=True, text=True).stdout.count(f"port={port} ")
            > 0
        )

    try:
        wait_until(java, "Java does not start")
    finally:
        watch.kill()
        watch.wait()
    wait_until(lambda: not java(), "the server outlives its watcher")


def wait_until(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)
