"""Builds the log store (ConditionalPutLogStore.java) into .venv/jars, where Spark finds it: `make logstore`.

The jar's name has the hash of its source, so that a jar of an older source is none (python_ops/lake/jars.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyspark

from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.jars import FOLDER, LOG_STORE_SOURCE, log_store, provide

JAVA_RELEASE = "17"  # the oldest Java that Spark 4.1 runs on


def build(folder: Path = FOLDER) -> Path:
    """Compiles the log store against Spark's jars and those of profiles/jars.lock.

    Args:
        folder: Where the jars are, and this one goes.

    Returns:
        The jar.

    Raises:
        ConfigError: there is no javac.
        OpsError: the source does not compile; the text has the compiler's.
    """
    compiler = shutil.which("javac")
    if compiler is None:
        raise ConfigError(
            "javac is not on PATH: it is part of a JDK (17 or 21), and a JRE has none. Install one (Debian: "
            f"openjdk-17-jdk-headless), or copy {log_store(folder)} from a machine that has built it."
        )
    jar = log_store(folder)
    path = f"{Path(pyspark.__file__).parent / 'jars'}/*:{folder}/*"
    with tempfile.TemporaryDirectory(dir=folder) as classes:
        command = [compiler, "--release", JAVA_RELEASE, "-cp", path, "-d", classes, str(LOG_STORE_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise OpsError(f"{LOG_STORE_SOURCE.name} does not compile: {done.stderr.strip()}")
        draft = Path(classes, "draft")
        with zipfile.ZipFile(draft, "w") as archive:
            for file in sorted(Path(classes).rglob("*.class")):
                archive.write(file, file.relative_to(classes).as_posix())
        draft.replace(jar)
    return jar


def main() -> None:
    """Fetches the jars that it is compiled against, and builds."""
    try:
        provide()
        print(f"{build()}: the log store is built.")
    except OpsError as exc:
        sys.exit(f"make: {exc}")


if __name__ == "__main__":
    main()
