"""One Spark session for all tests, on a home of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from python_ops.config import Settings
from python_ops.spark import kafka_jars, session
from python_ops.streaming.jars import add_to_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# In the background of a script (`&`, cron, nohup) SIGINT is ignored, by this process and by all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

for folder in ("e2e", "engine", "macros", "ops"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


@pytest.fixture(autouse=True)
def own_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions and dbt runs export the variables of their settings to the process; they are not the next test's."""
    os.environ.pop("LAKEHOUSE_SCHEMA_PREFIX", None)
    if request.node.get_closest_marker("spark") is None:
        for name in ("LAKEHOUSE_HOME", "LAKEHOUSE_EXTRA_JARS"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of an environment that lives in a temporary home."""
    return Settings(home=tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="session")
def spark(settings: Settings) -> Iterator[SparkSession]:
    """The process's Spark session, with Kafka's jars: a session gets none later."""
    add_to_session(kafka_jars())
    with (Path(tempfile.gettempdir()) / "lakehouse_tests_start_spark").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other half of the tests must not fetch the same jars at the same time
        running = session(settings)
    yield running
    running.stop()
