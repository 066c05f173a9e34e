"""`lakeops …` and `dbt …` in processes of their own, which are forked from one that has imported them.

An interpreter that begins anew spends most of a short command on its imports. Here a process has them and waits; it
has one thread of its own, so that its copy is whole. What it starts has an id, an environment, streams and an exit
code of its own, as from a shell; PYTHON* variables alone come too late. Tests of signals start commands themselves.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

# What most commands import.
IMPORTED = (
    "python_ops.cli.app", "dbt.cli.main", "boto3", "deltalake", "duckdb", "openlineage.client.event_v2",
    "openlineage.client.facet_v2", "pyspark.sql", "requests",
)  # fmt: skip
JEMALLOC = "jemalloc_bg_thd"  # of deltalake; jemalloc sees to it itself when its process is forked
_waiting: list[tuple[subprocess.Popen[bytes], socket.socket]] = []
_one_at_a_time = threading.Lock()


def run(
    words: tuple[str, ...], env: Mapping[str, str], cwd: Path | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs `lakeops …` or `dbt …` and returns what it printed.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds; it was killed.
    """
    given = {"words": words, "env": dict(env), "cwd": str(cwd or Path.cwd())}
    with _one_at_a_time, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not _waiting:
            here, there = socket.socketpair()
            with there:
                command = [sys.executable, __file__, str(there.fileno())]
                alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy would start threads when it is imported
                process = subprocess.Popen(command, env=alone, pass_fds=[there.fileno()])
            _waiting.append((process, here))
            atexit.register(_end, process, here)
        process, line = _waiting[0]
        request = json.dumps(given).encode()
        socket.send_fds(line, [len(request).to_bytes(8, "big")], [out.fileno(), err.fileno()])
        line.sendall(request)
        pid = _number(line)
        try:
            line.settimeout(timeout)
            code = _number(line)
        except TimeoutError as exc:
            os.kill(pid, signal.SIGKILL)
            process.kill()
            _waiting.clear()
            raise subprocess.TimeoutExpired(words, timeout) from exc
        finally:
            line.settimeout(None)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess(words, code, *texts)


def _number(line: socket.socket) -> int:
    told = line.recv(8, socket.MSG_WAITALL)
    assert told, "the process that has the imports has ended; its own error is on stderr"
    return int.from_bytes(told, "big", signed=True)


def _end(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    line.close()
    process.wait()


def _wait(line: socket.socket) -> tuple[str, ...]:
    """Forks for each request; returns in the forked process alone, with the words to run."""
    while True:
        head, streams, _, _ = socket.recv_fds(line, 8, 2, socket.MSG_WAITALL)
        if not head:
            os._exit(0)
        request = json.loads(line.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        threads = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
        assert len(threads) == 1 + threads.count(JEMALLOC), f"an import has started a thread: {threads}"
        if pid := os.fork():
            for stream in streams:
                os.close(stream)
            line.sendall(pid.to_bytes(8, "big", signed=True))
            line.sendall(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]).to_bytes(8, "big", signed=True))
            continue
        line.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for place, stream in enumerate(streams, 1):
            os.dup2(stream, place)
            os.close(stream)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        tempfile.tempdir = None  # TMPDIR may be another
        return tuple(request["words"])


if __name__ == "__main__":
    given = socket.socket(fileno=int(sys.argv[1]))
    sys.path.pop(0)  # this folder, which `-m` and a console script do not have
    for name in IMPORTED:
        importlib.import_module(name)
    sys.argv[:] = _wait(given)
    if sys.argv[0] == "lakeops":
        runpy.run_module("python_ops", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(Path(sys.executable).with_name(sys.argv[0])), run_name="__main__")
