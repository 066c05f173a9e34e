"""Runs tests in two processes at a time, so that both cores work: `run.py PART PART … -- PYTEST ARGUMENTS`.

A part is folders and arguments of pytest; its `-m` is added to the common one. When a part ends, the next begins, so
both cores work to the end if the last parts are short. Output does not mix: that of the first part is shown as it
comes, that of the others after it. The last line counts all, as pytest's own does, and the exit code is the first that
is not 0.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
PROCESSES = 2
NO_TESTS = 5
OUTCOMES = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning", "error")


def command(part: str, arguments: Sequence[str]) -> list[str]:
    """pytest's command line for a part."""
    given, marks = [*arguments, *shlex.split(part)], []
    while "-m" in given:
        place = given.index("-m")
        marks.append(f"({given[place + 1]})")
        del given[place : place + 2]
    return [sys.executable, "-m", "pytest", *(["-m", " and ".join(marks)] if marks else []), *given]


def run(part: str, arguments: Sequence[str], kept: IO[bytes], show: bool) -> int:
    """Runs a part; keeps its output, and passes it on if asked to."""
    with subprocess.Popen(
        command(part, arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout is not None
        while read := running.stdout.read1(4096):  # type: ignore[attr-defined]
            kept.write(read)
            if show:
                sys.stdout.buffer.write(read)
                sys.stdout.flush()
    return running.returncode


def counts(output: bytes) -> Counter[str]:
    """Outcomes of pytest's closing line."""
    lines = output.decode(errors="replace").strip().splitlines()
    found = re.findall(rf"(\d+) ({'|'.join(OUTCOMES)})s?\b", lines[-1]) if lines else []
    return Counter({outcome: int(number) for number, outcome in found})


def main(parts: Sequence[str], arguments: Sequence[str]) -> int:
    """Runs all parts."""
    began = time.monotonic()
    waiting, codes = deque(range(len(parts))), dict.fromkeys(range(len(parts)), NO_TESTS)
    with ExitStack() as files:
        kept = [files.enter_context(tempfile.TemporaryFile()) for _ in parts]

        def work() -> None:
            with suppress(IndexError):  # none is waiting
                while True:
                    number = waiting.popleft()
                    codes[number] = run(parts[number], arguments, kept[number], show=number == 0)

        workers = [threading.Thread(target=work) for _ in range(PROCESSES)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                worker.join()
        except KeyboardInterrupt:  # the same Ctrl-C has reached the processes
            waiting.clear()
            for worker in workers:
                worker.join()
        total: Counter[str] = Counter()
        for number, file in enumerate(kept):
            file.seek(0)
            output = file.read()
            total += counts(output)
            if number > 0:
                sys.stdout.buffer.write(output)
    told = ", ".join(f"{total[outcome]} {outcome}" for outcome in OUTCOMES if total[outcome]) or "no tests ran"
    seconds = time.monotonic() - began
    print(f" {told} in {seconds:.2f}s ({int(seconds) // 60}:{int(seconds) % 60:02}) ".center(120, "="), flush=True)
    ran = [code for code in codes.values() if code != NO_TESTS] or [NO_TESTS]
    return next((code for code in ran if code), 0)


if __name__ == "__main__":
    end = sys.argv.index("--")
    sys.exit(main(sys.argv[1:end], sys.argv[end + 1 :]))
