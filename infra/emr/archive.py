"""Makes the archive that a job carries: the project, and the Python packages that it needs, as they are installed here.

Usage: archive.py FILE    (make emr-archive; a machine of the same kind as the job's: Linux, x86-64, Python 3.11)

    project/   the dbt project and python_ops, all but what git ignores, with dbt's packages
    site/      installed packages, without tests' and docs' tools and without Spark's jars, which the cluster has
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("dbt_project", "dbt_project.yml", "dbt_lakehouse.py", "macros", "packages", "packages.yml",
           "package-lock.yml", "profiles", "profiles.yml", "python_ops", "seeds/reference",
           "tests/contracts")  # fmt: skip
EXTRAS = ("aws", "avro", "connect", "kafka", "postgres", "redshift", "snowflake")
LEFT_OUT = ("pyspark/jars/", "pyspark/examples/", "pyspark/data/", "pyspark/tests/")


def needed(name: str, extras: Iterable[str], found: dict[tuple[str, tuple[str, ...]], Distribution]) -> None:
    """Adds a package with these extras, and all that they need, to what was found."""
    key = (name.lower().replace("_", "-"), tuple(sorted(extras)))
    if key in found:
        return
    found[key] = distribution(name)
    for text in found[key].requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *key[1])):
            needed(requirement.name, requirement.extras, found)


def packages() -> Iterator[tuple[Path, str]]:
    """Files of the installed packages, with their names in the archive."""
    found: dict[tuple[str, tuple[str, ...]], Distribution] = {}
    needed("lakehouse-ops", EXTRAS, found)
    for own, part in {key[0]: part for key, part in found.items()}.items():
        for file in part.files or ():
            name, path = file.as_posix(), Path(str(file.locate()))
            if own == "lakehouse-ops" and not name.endswith(".dist-info/METADATA"):
                continue  # its files are the project's; `--version` reads this one
            if not name.startswith(("../", *LEFT_OUT)) and "__pycache__" not in name and path.is_file():
                yield path, f"site/{name}"


def project() -> Iterator[tuple[Path, str]]:
    """Files of the project."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *PROJECT]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if name:
            yield ROOT / name, f"project/{name}"
    for package in (ROOT / "dbt_packages").iterdir():  # links to packages of the project, or folders
        for path in package.rglob("*"):
            if path.is_file():
                yield path, f"project/dbt_packages/{package.name}/{path.relative_to(package).as_posix()}"


def main(file: str) -> None:
    """Writes the archive."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz", compresslevel=1, dereference=True) as archive:
        for path, name in (*project(), *packages()):
            archive.add(path, name)
    print(f"{file}: {Path(file).stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
