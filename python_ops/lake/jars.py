"""Spark's jars: the files that profiles/jars.lock lists, each with its hash, in `.venv/jars`.

`make setup` fetches them, and so does whoever first starts Spark without them. The Ivy in Spark's own package does it
(no Maven, no build tool), each jar alone: what it depends on is in the list, or in Spark's package. Beside them lies
Delta's log store for S3, once `make logstore` has built it; a home in a bucket needs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.errors import ConfigError, OpsError

LOCK = PROJECT_ROOT / "profiles" / "jars.lock"
FOLDER = Path(sys.prefix) / "jars"
LOG_STORE_SOURCE = PROJECT_ROOT / "infra" / "logstore" / "ConditionalPutLogStore.java"
IVY_HOME = Path.home() / ".ivy2.5.2"  # Spark's own folder
TIMEOUT_SECONDS = 300

_PATTERN = "[organisation]_[artifact]-[revision].[ext]"
_SETTINGS = """<ivysettings><settings defaultResolver="central"/>
<resolvers><ibiblio name="central" m2compatible="true"/></resolvers></ivysettings>"""


@dataclass(frozen=True)
class Jar:
    """A jar of the list: `group:artifact:version` and the SHA-256 of its file."""

    coordinate: str
    sha256: str

    @property
    def file(self) -> str:
        """Its file's name."""
        return "{}_{}-{}.jar".format(*self.coordinate.split(":"))


def pinned(lock: Path = LOCK) -> tuple[Jar, ...]:
    """The jars of the list.

    Raises:
        ConfigError: a line of it is not `group:artifact:version sha256`.
    """
    found = []
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0].count(":") != 2 or len(words[1]) != 64:
            raise ConfigError(f"{lock}, line {number}: expected `group:artifact:version sha256`, got {line.strip()!r}.")
        found.append(Jar(*words))
    return tuple(found)


def lacking(folder: Path = FOLDER, jars: Sequence[Jar] | None = None) -> list[Jar]:
    """Jars of the list that are not in the folder, by name. Hashes are checked when a jar is put there."""
    return [jar for jar in (pinned() if jars is None else jars) if not (folder / jar.file).is_file()]


def log_store(folder: Path = FOLDER) -> Path:
    """The jar of the log store as its source is now, built or not."""
    return folder / f"lakehouse_logstore-{hashlib.sha256(LOG_STORE_SOURCE.read_bytes()).hexdigest()[:12]}.jar"


def provide(folder: Path = FOLDER, jars: Sequence[Jar] | None = None) -> list[Jar]:
    """Fetches the jars that the folder lacks, and removes those that are not in the list; the log store stays.

    Returns:
        Jars that were fetched.

    Raises:
        OpsError: a jar could not be fetched, or is not the one of the list.
    """
    jars = pinned() if jars is None else jars
    wanted = lacking(folder, jars)
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            told = retrieve([jar.coordinate for jar in wanted], Path(name) / _PATTERN, transitive=False)
            for jar in wanted:
                _check(Path(name, jar.file), jar, told)
            for jar in wanted:
                Path(name, jar.file).replace(folder / jar.file)
    kept = {jar.file for jar in jars} | {log_store(folder).name}
    for path in folder.glob("*.jar"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
    return wanted


def _check(path: Path, jar: Jar, told: str) -> None:
    if not path.is_file():
        raise OpsError(
            f"The jar {jar.coordinate} could not be fetched ({told}). Check the network, then run `make setup`."
        )
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != jar.sha256:
        raise OpsError(
            f"The jar {jar.coordinate} is not what {LOCK.name} pins: expected sha256 {jar.sha256}, got {found}. Find "
            f"out why; a broken download is fetched again once it is removed from {IVY_HOME / 'cache'}."
        )


def retrieve(coordinates: Sequence[str], pattern: Path, transitive: bool) -> str:
    """Lets Ivy fetch coordinates into files named by its pattern.

    Returns:
        The last line of its error output, for a message.

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


def main() -> None:
    """`python -m python_ops.lake.jars`: what `make setup` runs."""
    try:
        provide()
    except OpsError as exc:
        sys.exit(f"make: {exc}")


if __name__ == "__main__":
    main()
