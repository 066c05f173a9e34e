"""A Spark Connect server that refuses a token: the gRPC answer is a real server's, Spark is not started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from python_ops.lake.config import PROJECT_ROOT

pytestmark = pytest.mark.slow

# Counts how often the server's port is asked for, then runs the module that the arguments name.
COUNTING = """
import atexit, runpy, socket, sys
asked, connect = [], socket.create_connection
socket.create_connection = lambda place, **given: asked.append(place) or connect(place, **given)
atexit.register(lambda: print("asked", len(asked), "times"))
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Refusing(grpc.GenericRpcHandler):
    """Answers every call as Spark does where the token is wrong or missing."""

    def service(self, handler_call_details: Any) -> Any:
        def refuse(request: bytes, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid authentication token")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
def port() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([Refusing()])
    number = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield number
    server.stop(None)


def run(home: Path, remote: str, *command: str, **given: str) -> subprocess.CompletedProcess[str]:
    settings = {"LAKEHOUSE_SECRETS": "file", "LAKEHOUSE_STATE_STORE": "file", "LAKEHOUSE_ALERTS": '["console"]',
                "LAKEHOUSE_METRICS": "file", "LAKEHOUSE_LINEAGE": "file"}  # fmt: skip
    environment = {**os.environ, **settings, "LAKEHOUSE_HOME": str(home), "SPARK_REMOTE": remote, **given}
    return subprocess.run(
        [sys.executable, "-c", COUNTING, *command], cwd=PROJECT_ROOT, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("source", ["SPARK_REMOTE", "variable", "file", "none"])
def test_a_refused_token_is_told_with_where_it_came_from(tmp_path: Path, port: int, source: str) -> None:
    (tmp_path / "landing" / "fx_rates").mkdir(parents=True)
    (tmp_path / "landing" / "fx_rates" / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-01-02,USD,1.03\n")
    if source == "file":
        (tmp_path / "connect.token").write_text("canary\n")
    remote = f"sc://localhost:{port}" + ("/;token=canary" if source == "SPARK_REMOTE" else "")
    given = {"SPARK_CONNECT_AUTHENTICATE_TOKEN": "canary" if source == "variable" else ""}
    done = run(tmp_path, remote, "python_ops", "ingest", "run", "fx_rates", "--env", "dev", **given)
    told = {
        "SPARK_REMOTE": "refuses the token in SPARK_REMOTE.",
        "variable": "refuses the token in SPARK_CONNECT_AUTHENTICATE_TOKEN.",
        "file": f"refuses the token of {tmp_path}/connect.token.",
        "none": f"refuses a client without a token: SPARK_REMOTE and SPARK_CONNECT_AUTHENTICATE_TOKEN have none, and "
        f"{tmp_path}/connect.token cannot be read",
    }[source]
    assert done.returncode == 2 and f"The Spark Connect server at localhost {told}" in done.stderr, done.stderr
    assert "Give the token that it was started with" in done.stderr
    assert "Traceback" not in done.stderr and "canary" not in done.stdout + done.stderr, done.stderr


def test_dbt_says_so_too_and_asks_for_the_server_once(tmp_path: Path, port: int) -> None:
    remote = f"sc://localhost:{port}/;token=canary"
    done = run(
        tmp_path / "lake", remote, "dbt.cli.main", "run", "--target", "dev", "--select", "slv_fx_rates",
        "--profiles-dir", "profiles", "--log-path", str(tmp_path),
    )  # fmt: skip
    shown = done.stdout + done.stderr
    assert done.returncode == 2 and "refuses the token in SPARK_REMOTE" in shown, shown
    assert "asked 1 times" in done.stdout and "Traceback" not in shown and "canary" not in shown, shown
