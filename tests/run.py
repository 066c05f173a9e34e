"""Runs tests in two processes, so that both cores work: `run.py PART PART -- PYTEST ARGUMENTS`; a part is folders.

Output does not mix: that of the first part is shown as it comes, that of the second after it. The last line counts
both, as pytest's own does, and the exit code is the first that is not 0.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5
OUTCOMES = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning", "error")


def started(part: str, arguments: list[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *arguments, *part.split()]
    return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)


def shown(running: subprocess.Popen[bytes]) -> bytes:
    """Passes the output on; gives its end."""
    assert running.stdout is not None
    end = b""
    while read := running.stdout.read1(4096):  # type: ignore[attr-defined]
        sys.stdout.buffer.write(read)
        sys.stdout.flush()
        end = (end + read)[-4096:]
    return end


def counts(output: bytes) -> Counter[str]:
    """Outcomes of pytest's closing line."""
    lines = output.decode(errors="replace").strip().splitlines()
    found = re.findall(rf"(\d+) ({'|'.join(OUTCOMES)})s?\b", lines[-1]) if lines else []
    return Counter({outcome: int(number) for number, outcome in found})


def main(first: str, second: str, arguments: list[str]) -> int:
    began = time.monotonic()
    ends = []
    with tempfile.TemporaryFile() as kept:
        runs = [started(first, arguments, subprocess.PIPE), started(second, arguments, kept)]
        with suppress(KeyboardInterrupt):  # the same Ctrl-C has reached both
            ends.append(shown(runs[0]))
        codes = [run.wait() for run in runs]
        kept.seek(0)
        ends.append(kept.read())
    sys.stdout.buffer.write(ends[-1])
    total = sum((counts(end) for end in ends), Counter())
    told = ", ".join(f"{total[outcome]} {outcome}" for outcome in OUTCOMES if total[outcome]) or "no tests ran"
    seconds = time.monotonic() - began
    print(f" {told} in {seconds:.2f}s ({int(seconds) // 60}:{int(seconds) % 60:02}) ".center(120, "="), flush=True)
    ran = [code for code in codes if code != NO_TESTS] or [NO_TESTS]
    return next((code for code in ran if code), 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3], sys.argv[4:]))
