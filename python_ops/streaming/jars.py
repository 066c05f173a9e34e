"""Jars from a Maven repository, by the Ivy that Spark's package brings along: no Maven, no build tool.

They lie where Spark keeps the packages that it resolves itself, and are fetched once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from python_ops.errors import OpsError

IVY_HOME = Path.home() / ".ivy2.5.2"  # Spark's own folder
TIMEOUT_SECONDS = 300

_SETTINGS = """<ivysettings><settings defaultResolver="central"/>
<resolvers><ibiblio name="central" m2compatible="true"/></resolvers></ivysettings>"""


def add_to_session(coordinates: Sequence[str]) -> None:
    """Puts jars on the class path of the session that this process starts next (profiles.yml, `spark.jars`).

    Raises:
        OpsError: a jar could not be fetched.
    """
    os.environ["LAKEHOUSE_EXTRA_JARS"] = ",".join(str(path) for path in fetch(coordinates))


def fetch(coordinates: Sequence[str]) -> list[Path]:
    """Files of `group:artifact:version` coordinates, each without what it depends on.

    Raises:
        OpsError: one could not be fetched; the text names those that are missing.
    """
    folder = IVY_HOME / "jars"
    wanted = [folder / "{}_{}-{}.jar".format(*coordinate.split(":")) for coordinate in coordinates]
    if not all(path.exists() for path in wanted):
        told = retrieve(coordinates, folder / "[organisation]_[artifact]-[revision].[ext]", transitive=False)
        if missing := [path.name for path in wanted if not path.exists()]:
            raise OpsError(
                f"Jars could not be fetched: {', '.join(missing)} ({told}). Check the network, or put the files into "
                f"{folder} by hand; then run again."
            )
    return wanted


def retrieve(coordinates: Sequence[str], pattern: Path, transitive: bool) -> str:
    """Lets Ivy fetch coordinates into files named by its pattern.

    Returns:
        Its last line of complaint, for an error message.

    Raises:
        OpsError: there is no Java, or Ivy did not end in time.
    """
    import pyspark

    ivy = sorted((Path(pyspark.__file__).parent / "jars").glob("ivy-*.jar"))
    java = _java()
    if java is None or not ivy:
        raise OpsError("Jars could not be fetched: Java 17 or 21 must be on PATH or in JAVA_HOME.")
    with tempfile.TemporaryDirectory() as scratch:
        settings, module = Path(scratch, "settings.xml"), Path(scratch, "ivy.xml")
        settings.write_text(_SETTINGS, encoding="utf-8")
        module.write_text(_module(coordinates, transitive), encoding="utf-8")
        command = [java, "-jar", str(ivy[-1]), "-settings", str(settings), "-ivy", str(module)]
        command += ["-cache", str(IVY_HOME / "cache"), "-retrieve", str(pattern)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as exc:
            raise OpsError(
                f"Jars could not be fetched in {TIMEOUT_SECONDS} s. Check the network and run again."
            ) from exc
    lines = [
        line.strip() for line in (done.stdout + done.stderr).splitlines() if "not found" in line or "ERROR" in line
    ]
    return lines[-1] if lines else f"Ivy ended with {done.returncode}"


def _module(coordinates: Sequence[str], transitive: bool) -> str:
    wanted = "".join(
        '<dependency org="{}" name="{}" rev="{}" conf="default->default" transitive="{}"/>'.format(
            *coordinate.split(":"), str(transitive).lower()
        )
        for coordinate in coordinates
    )
    return (
        '<ivy-module version="2.0"><info organisation="lakehouse" module="jars"/>'
        f'<configurations><conf name="default"/></configurations><dependencies>{wanted}</dependencies></ivy-module>'
    )


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=str(Path(home, "bin"))) if home else shutil.which("java")
