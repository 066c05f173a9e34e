"""Servers of Spark that tests start: Spark Connect, and a standalone cluster for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.warm import answers, free_port


@contextmanager
def started(command: Sequence[str], log: Path, port: int, **given: str) -> Iterator[None]:
    """A server that listens on a port while the block runs."""
    with log.open("w") as output:
        running = subprocess.Popen(
            command, env={**os.environ, **given}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        for _ in range(240):
            if answers(port):
                break
            assert running.poll() is None, log.read_text()[-2000:]
            time.sleep(0.5)
        yield
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(timeout=60)


@contextmanager
def connect_server(home: Path, *options: str, log: Path | None = None, **given: str) -> Iterator[str]:
    """Address of a server on a home, which logs there or in another folder."""
    port = free_port()
    command = [str(PROJECT_ROOT / "infra" / "spark_connect.sh"), str(port), *options]
    settings = {"LAKEHOUSE_HOME": str(home), "PYTHON": sys.executable, "LAKEHOUSE_CORES": "2", **given}
    with started(command, (log or home) / "server.log", port, **settings):
        yield f"sc://localhost:{port}"


@contextmanager
def standalone_cluster(folder: Path) -> Iterator[str]:
    """Address of a standalone cluster of two workers; what their executors do is logged in `worker_<n>`."""
    spark = Path(pyspark.__path__[0])
    settings = {"SPARK_HOME": str(spark), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m",
                "PYSPARK_PYTHON": sys.executable}  # fmt: skip
    host = ("--host", "127.0.0.1", "--webui-port", "0")
    port = free_port()
    run_class = [str(spark / "bin" / "spark-class")]
    with ExitStack() as running:
        master = [*run_class, "org.apache.spark.deploy.master.Master", *host, "--port", str(port)]
        running.enter_context(started(master, folder / "master.log", port, **settings))
        for number in (1, 2):
            listens, own = free_port(), folder / f"worker_{number}"
            worker = [*run_class, "org.apache.spark.deploy.worker.Worker", *host, "--port", str(listens)]
            worker += ["--cores", "1", "--memory", "1g", "--work-dir", str(own), f"spark://127.0.0.1:{port}"]
            running.enter_context(started(worker, folder / f"worker_{number}.log", listens, **settings))
        yield f"spark://127.0.0.1:{port}"
