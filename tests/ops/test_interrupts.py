"""Ctrl-C and SIGTERM: a command stops, says what is done, holds nothing any more, and the next goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from test_cli import lakeops

from python_ops.lake import interrupts
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.lake import Lake

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
    java.write_text('#!/bin/sh\necho $$ >"$0.id" && mv "$0.id" "$0.started"\nexec sleep 60 >/dev/null 2>&1\n')
    java.chmod(0o755)
    return home


def interrupted(home: Path, number: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command and sends it a signal while it waits for Java, which ends after it."""
    jdk = home.parent / "jdk"
    java = jdk / "bin" / "java.started"
    given = {**os.environ, "LAKEHOUSE_HOME": str(home), "JAVA_HOME": str(jdk), "LAKEHOUSE_SCHEMA_PREFIX": ""}
    command = [sys.executable, "-c", AS_FROM_A_TERMINAL, "-m", "python_ops", *words]
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        for _ in range(400):
            if java.exists() or job.poll() is not None:
                break
            time.sleep(0.1)
        job.send_signal(number)
        job.wait(timeout=40)
        os.kill(int(java.read_text()), signal.SIGKILL)
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
    record = Lake(Settings(home=home)).store.get("lease", "environment")
    assert record is not None and record.value["holder"] == "", "the lease was given back"
    after = lakeops(home, "run", PATH="/nowhere", JAVA_HOME="/nowhere")
    assert after.returncode == 1 and "Spark did not start" in after.stderr, "and nothing is locked"


DBT = """
    import os, signal
    from pathlib import Path
    from python_ops import cli
    from python_ops.lake import interrupts
    from python_ops.lake.config import Settings
    from python_ops.lake.lake import Lake
    from python_ops.jobs.build import arguments, invoke

    def interrupt(event):
        if event.info.name.startswith("Parse"):
            os.kill(os.getpid(), {number})

    signal.signal(signal.SIGTERM, cli._terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.watch(signal.default_int_handler)
    lake = Lake(Settings(home={home!r}))
    try:
        invoke(lake, ["--quiet", *arguments(["parse"], lake)], interrupt)
    except KeyboardInterrupt as exc:
        print("interrupted by", type(exc).__name__)
"""


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGTERM, "Terminated"), (signal.SIGINT, "KeyboardInterrupt")],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_dbt_leaves_an_interruption_to_the_command(tmp_path: Path, number: int, error: str) -> None:
    """dbt prints the stack trace of whatever ends it, also with `--quiet`; dbt.log has it."""
    code = textwrap.dedent(DBT).format(number=int(number), home=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PROJECT_ROOT)
    assert (done.stdout, done.stderr) == (f"interrupted by {error}\n", "")
    assert "Traceback" in (tmp_path / "logs" / "dbt.log").read_text()


PY4J = """
    import os, signal, socket, sys, threading
    from py4j.clientserver import ClientServer, JavaParameters, PythonParameters
    from python_ops.lake import interrupts

    java = socket.create_server(("127.0.0.1", 0))

    def serve(interrupt):
        taken, _ = java.accept()
        taken.recv(1000)
        if interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(1)
        taken.close()

    def call(interrupt=False):
        threading.Thread(target=serve, args=[interrupt], daemon=True).start()
        gateway = ClientServer(JavaParameters(port=java.getsockname()[1]), PythonParameters(port=0, eager_load=False))
        return gateway._gateway_client.send_command("x\\n", retry=False)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.watch(signal.default_int_handler)
    interrupts.watch(signal.getsignal(signal.SIGINT))
    print("Java is gone:", call(), file=sys.stderr)
    print("---", file=sys.stderr)
    try:
        call(interrupt=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    print("Java is gone:", call(), file=sys.stderr)
"""


def test_py4j_logs_an_error_before_an_interruption_and_nothing_of_it_or_after_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PY4J)], capture_output=True, text=True, timeout=60, cwd=PROJECT_ROOT
    )
    assert done.stderr.count("---\n") == 1, done.stderr
    before, after = done.stderr.split("---\n")
    assert "Exception while sending command" in before and "Traceback" in before, "a real error is not hidden"
    assert after == "interrupted\nJava is gone: x\n"


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "a stream's"])
def test_what_the_command_does_at_ctrl_c_survives_sparks_start(own: Any) -> None:
    """pyspark puts its own handler in the place of any."""
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda number, frame: pytest.fail("pyspark's handler was called"))
        interrupts.watch(own)
        assert signal.getsignal(signal.SIGINT) is own
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
