"""An archive of Spark's classes, which a JVM maps into its memory instead of reading and checking each at every start.

`make setup` makes it: a Spark that has loaded and merged a few rows writes down the classes that it holds (Java's class
data sharing, JEP 350). The profile names the file to every Spark of this machine. The JVM compares it with its own
version and with Spark's jars; without one that fits it starts as before, and says nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from python_ops.lake import jars, warm
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.errors import OpsError
from python_ops.lake.exercise import exercise
from python_ops.lake.spark import export_environment, spark_settings
from python_ops.lake.warm import TOKEN

FILE = jars.FOLDER / "classes.jsa"
TIMEOUT_SECONDS = 180.0


def make(file: Path = FILE) -> None:
    """Makes the archive anew, on a home that is thrown away. The process's variables become those of that home.

    Raises:
        OpsError: Spark did not start, or ended without an archive; the text has its last lines.
    """
    with tempfile.TemporaryDirectory(prefix="classes") as folder:
        settings, made, log = Settings(home=Path(folder)), Path(folder, file.name), Path(folder, "server.log")
        export_environment(settings)
        port, os.environ[TOKEN] = warm.free_port(), "of this server alone"
        profile = spark_settings(settings)["spark.driver.extraJavaOptions"]
        options = profile.replace(f"-XX:SharedArchiveFile={FILE}", f"-XX:ArchiveClassesAtExit={made}")
        start = [str(PROJECT_ROOT / "infra" / "spark_connect.sh"), str(port)]
        given = {**os.environ, "PYTHON": sys.executable, "SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1"}
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*start, "--conf", f"spark.driver.extraJavaOptions={options}"],
                env=given, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while not warm.answers(port) and server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            if server.poll() is None:
                exercise(port, "default.exercised")
            server.terminate()
            server.wait(TIMEOUT_SECONDS)
        finally:
            server.kill()
        if not made.is_file():
            raise OpsError(f"Spark ended without an archive of its classes: {log.read_text(errors='replace')[-500:]}")
        shutil.copyfile(made, unfinished := file.with_suffix(f".{os.getpid()}"))
        unfinished.replace(file)


def main() -> None:
    """`python -m python_ops.lake.class_archive`: what `make setup` runs. A failure is told, and no more."""
    try:
        make()
    except Exception as exc:
        print(f"make: No archive of Spark's classes, which only makes its start quicker: {exc}", file=sys.stderr)


if __name__ == "__main__":
    main()
