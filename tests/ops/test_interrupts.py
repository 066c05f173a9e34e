"""Ctrl-C and SIGTERM: a command stops, says what is done, holds nothing any more, and the next goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import lakeops

from python_ops.config import Settings
from python_ops.state import store_for

pytestmark = pytest.mark.slow

# Whoever starts the tests may ignore SIGINT, as a script's background job does; what it starts would inherit that.
AS_FROM_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A lake with a file waiting, and a Java that never gets ready."""
    home = tmp_path / "lake"
    (home / "landing" / "fx_rates").mkdir(parents=True)
    (home / "landing" / "fx_rates" / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-01-02,USD,1.03\n")
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text('#!/bin/sh\ntouch "$0.started"\nexec sleep 4 >/dev/null 2>&1\n')
    java.chmod(0o755)
    return home


def interrupted(home: Path, number: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command and sends it a signal while it waits for Java."""
    jdk = home.parent / "jdk"
    given = {**os.environ, "LAKEHOUSE_HOME": str(home), "JAVA_HOME": str(jdk), "LAKEHOUSE_SCHEMA_PREFIX": ""}
    command = [sys.executable, "-c", AS_FROM_A_TERMINAL, "-m", "python_ops", *words]
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        for _ in range(400):
            if (jdk / "bin" / "java.started").exists() or job.poll() is not None:
                break
            time.sleep(0.1)
        job.send_signal(number)
        out, err = job.communicate(timeout=40)
    return subprocess.CompletedProcess(command, job.returncode, out, err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_command_says_that_it_was_interrupted(home: Path, number: int, code: int) -> None:
    done = interrupted(home, number, "ingest", "run")
    assert done.returncode == code, done.stderr
    assert "`lakeops ingest run` was interrupted. What was committed is kept; run it again" in done.stderr
    assert "Traceback" not in done.stderr
    events = [json.loads(line) for line in (home / "state/lineage/events.jsonl").read_text().split("\n") if line]
    assert [event["eventType"] for event in events][-1] == "FAIL"


def test_a_run_says_what_is_done_and_how_to_go_on(home: Path) -> None:
    done = interrupted(home, signal.SIGTERM, "run")
    assert done.returncode == 143, done.stderr
    assert "ingest was interrupted; what it committed is kept. Done before it: nothing." in done.stderr
    assert "To go on: `lakeops ingest run`, then `lakeops run`." in done.stderr
    (step,) = json.loads((home / "state" / "last_run.json").read_text())["steps"]
    assert (step["name"], step["outcome"]) == ("ingest", "interrupted")
    record = store_for(Settings(home=home)).get("lease", "environment")
    assert record is not None and record.value["holder"] == "", "the lease was given back"
    after = lakeops(home, "run", PATH="/nowhere", JAVA_HOME="/nowhere")
    assert after.returncode == 1 and "Spark did not start" in after.stderr, "and nothing is locked"
