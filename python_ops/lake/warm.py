"""A Spark that stays: a Spark Connect server on this machine, so that a command need not start a JVM of its own.

`lakeops spark start` starts it for one home, on loopback and with a token. From then on every command on that home
whose Spark would be in its own process uses the server instead, if it is what the command would start. It ends when
nobody has used it for a while, or by `lakeops spark stop`.

This module is also the process that watches over the server: while it lives, it holds a lock on the server's record.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from python_ops.lake.config import PROJECT_ROOT, Settings, load_settings
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.jars import pinned

TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # Spark's own variable
START_SECONDS = 120.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Server:
    """A server that is up.

    Attributes:
        pid: Process that watches over it; SIGTERM ends both.
        port: On loopback.
        since: When it was ready; ISO 8601, UTC.
        idle_minutes: It ends when it was not used for so long.
        fingerprint: Of what it was started with.
    """

    pid: int
    port: int
    since: str
    idle_minutes: float
    fingerprint: str


def find(settings: Settings) -> Server | None:
    """The server of a home, if it is up."""
    if not _is_watched(settings):
        return None
    with suppress(OSError, ValueError, TypeError):
        return Server(**json.loads(_record(settings).read_text(encoding="utf-8")))
    return None


def _is_watched(settings: Settings) -> bool:
    """Whether a process watches over a server that is up, or that it starts. A killed one leaves its files."""
    try:
        with _lock_file(settings).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def usable(settings: Settings, spark: Mapping[str, str]) -> Server | None:
    """The server of a home, for a command that would start Spark with these settings; None if none is up.

    Raises:
        BusyError: it is being started.
        ConfigError: it was started with others. (Both at once cannot be: Spark's metastore admits one process.)
    """
    server = find(settings)
    if server is None:
        if _is_watched(settings):
            raise BusyError(f"A Spark server of {settings.place} is being started. Run again when it is up.")
        return None
    if server.fingerprint != fingerprint(spark):
        raise ConfigError(
            f"The warm Spark server of {settings.place} was started with other settings, jars or LAKEHOUSE_ variables "
            "than this command has. Nothing was done. `lakeops spark stop`, then run again."
        )
    os.utime(_record(settings))
    return server


def fingerprint(spark: Mapping[str, str]) -> str:
    """What a server is started with, as a hash: settings, jars and version of Spark."""
    made_of = [sorted(spark.items()), [jar.coordinate for jar in pinned()], version("pyspark"), str(PROJECT_ROOT)]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def start(settings: Settings, spark: Mapping[str, str], port: int | None, idle_minutes: float) -> Server:
    """Starts a server and waits until it answers.

    Args:
        settings: The environment; its variables are exported.
        spark: Settings that Spark is started with.
        port: On loopback; any that is free when None.
        idle_minutes: It ends when it was not used for so long.

    Raises:
        BusyError: one is up, or is being started.
        OpsError: the port is taken, or the server did not start; the text has its last lines.
    """
    if server := find(settings):
        raise BusyError(f"A Spark server of {settings.place} is up, on port {server.port}, since {server.since}.")
    if _is_watched(settings):
        raise BusyError(f"A Spark server of {settings.place} is being started.")
    port = port or free_port()
    if answers(port):
        raise OpsError(f"Port {port} is taken. Give another by --port, or none.")
    log = settings.workspace_path / "logs" / "spark-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", __name__, settings.target, str(port), str(idle_minutes), fingerprint(spark)]
    with log.open("w", encoding="utf-8") as output:
        watch = subprocess.Popen(
            words, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if watch.poll() is not None:
            break
        if (server := find(settings)) and server.pid == watch.pid:
            return server
        time.sleep(0.1)
    watch.terminate()
    told = " ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
    raise OpsError(f"The Spark server did not start: {told[-500:] or 'it said nothing'}. Its output is in {log}.")


def stop(settings: Settings) -> Server | None:
    """Ends the server, and waits for its end; None if none was up.

    Raises:
        OpsError: it did not end.
    """
    if (server := find(settings)) is None:
        return None
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while _is_watched(settings):
        if time.monotonic() > deadline:
            raise OpsError(f"Process {server.pid}, which watches over the Spark server, does not end. Kill it.")
        time.sleep(0.1)
    return server


def idle_seconds(settings: Settings) -> float:
    """How long no command has used the server; 0 while one holds the home's lock."""
    with suppress(FileNotFoundError), (settings.workspace_path / "state" / "lock.json").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0.0
    return max(0.0, time.time() - _record(settings).stat().st_mtime)


def _watch(settings: Settings, port: int, idle_minutes: float, made_of: str) -> int:
    """Starts the server, and ends it when it is idle, when this process is told to end, or when its home is gone."""
    asked: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda number, frame: asked.append(number))
    with _locked(settings) as lock:
        record = _record(settings)
        record.unlink(missing_ok=True)
        server = subprocess.Popen(
            [PROJECT_ROOT / "infra" / "spark_connect.sh", str(port)],
            env={**os.environ, "PYTHON": sys.executable}, start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip
        try:
            while not asked and server.poll() is None:
                if record.exists():
                    if idle_seconds(settings) > idle_minutes * 60:
                        break
                elif answers(port):
                    now = datetime.now(UTC).isoformat(timespec="seconds")
                    told = Server(os.getpid(), port, now, idle_minutes, made_of)
                    write_whole(record, json.dumps(asdict(told)))
                    _exercise(settings, port)
                if not Path(lock.name).exists():
                    break
                time.sleep(_POLL_SECONDS)
        finally:
            record.unlink(missing_ok=True)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                server.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
    return server.returncode or 0


def _exercise(settings: Settings, port: int) -> None:
    """Lets the server do once, beside the commands that come, what the first build waits for (20 s instead of 7)."""
    token = os.environ.get(TOKEN) or (settings.workspace_path / "connect.token").read_text(encoding="utf-8").strip()
    subprocess.Popen(
        [sys.executable, "-m", "python_ops.lake.exercise", str(port)],
        cwd=PROJECT_ROOT, env={**os.environ, TOKEN: token}, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent,
    )  # fmt: skip


def _end_with_parent() -> None:
    """Lets Linux end this process when its parent is killed: a server that nobody watches would hold the metastore."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _locked(settings: Settings) -> TextIO:
    path = _lock_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("a+", encoding="utf-8")
    fcntl.flock(lock, fcntl.LOCK_EX)  # who looks whether it is held holds it for a moment
    return lock


def _record(settings: Settings) -> Path:
    return settings.workspace_path / "spark-server.json"


def _lock_file(settings: Settings) -> Path:
    return settings.workspace_path / "spark-server.lock"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    _, environment, given_port, minutes, made_of = sys.argv
    sys.exit(_watch(load_settings(environment), int(given_port), float(minutes), made_of))
