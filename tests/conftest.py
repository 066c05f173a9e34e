"""One Spark session for all tests, on a home of its own."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from python_ops.lake import jars
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.lake import Lake
from python_ops.lake.spark import session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# In the background of a script (`&`, cron, nohup) SIGINT is ignored, by this process and by all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run most of Spark's code a few times; the JVM's second compiler costs more than it saves. A session and three
# small MERGEs took 50 s of processor time with it, and 28 s without (2026-11-28). Spark's generated code stays: without
# it a wide projection is sent to its tasks as trees of objects, which took ingestion's tests longer. A heap and a
# metaspace that begin small grow by full collections, six in the first two hundred seconds.
os.environ.setdefault(
    "SPARK_SUBMIT_OPTS",
    "-XX:TieredStopAtLevel=1 -XX:ParallelGCThreads=1 -XX:InitialRAMPercentage=10 -XX:MetaspaceSize=512m",
)

for folder in ("e2e", "engine", "macros", "ops"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


# What runs and builds leave in a checkout; tests leave nothing there, or the next `publish run` would read it.
LEFTOVERS = (".lake", "target", "logs", "metastore_db", "spark-warehouse", "derby.log")
_BEFORE = pytest.StashKey[dict[Path, int]]()
_WRITTEN = pytest.StashKey[list[Path]]()


def _leftovers() -> dict[Path, int]:
    found = (PROJECT_ROOT / name for name in LEFTOVERS)
    paths = [path for top in found for path in (top, *top.rglob("*")) if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths}


def pytest_sessionstart(session: pytest.Session) -> None:
    """Notes what is there."""
    session.config.stash[_BEFORE] = _leftovers()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the session that has written to the checkout."""
    before = session.config.stash[_BEFORE]
    written = [path for path, at in _leftovers().items() if before.get(path) != at]
    session.config.stash[_WRITTEN] = written
    if written:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what was written."""
    if written := config.stash.get(_WRITTEN, []):
        terminalreporter.section("tests wrote to the checkout", red=True)
        for path in written[:10]:
            terminalreporter.line(str(path.relative_to(PROJECT_ROOT)))


@pytest.fixture(autouse=True)
def own_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions and dbt runs export the variables of their settings to the process; they are not the next test's."""
    os.environ.pop("LAKEHOUSE_SCHEMA_PREFIX", None)
    if request.node.get_closest_marker("spark") is None:
        monkeypatch.delenv("LAKEHOUSE_HOME", raising=False)


@pytest.fixture(scope="session")
def log_store() -> Path:
    """The jar of Delta's log store for S3, built from its source."""
    if not jars.log_store().exists():
        if shutil.which("javac") is None:
            pytest.skip("javac is not on PATH, and `make logstore` needs it")
        runpy.run_path(str(PROJECT_ROOT / "infra" / "logstore" / "build.py"))["build"]()
    return jars.log_store()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of an environment that lives in a temporary home."""
    return Settings(home=tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="session")
def lake(settings: Settings) -> Lake:
    """The lake of that environment."""
    return Lake(settings)


@pytest.fixture(scope="session")
def spark(settings: Settings) -> Iterator[SparkSession]:
    """The process's Spark session."""
    running = session(settings)
    yield running
    running.stop()
