"""Each check, on real files, processes and executables made to be wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import artifact_files as files
import pytest

from python_ops.lake.config import Settings
from python_ops.lake.jars import pinned
from python_ops.lake.lake import Lake
from python_ops.watch import doctor
from python_ops.watch.doctor import GIB
from python_ops.watch.finding import Outcome

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAR = "io.delta:delta-spark_4.1_2.13:4.4.0"
PINNED = {
    "pyspark": "4.1.4", "dbt-core": "1.11.16", "dbt-spark": "1.11.0", "click": "8.5.1", "deltalake": "1.6.6",
    "duckdb": "2.0.0",
}  # fmt: skip


def java(folder: Path, script: str) -> Path:
    """A java executable that runs a shell script; returns its folder."""
    folder.mkdir(parents=True)
    executable = folder / "java"
    executable.write_text(f"#!/bin/sh\n{script}\n")
    executable.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("told", "outcome", "found"),
    [
        ('openjdk version "17.0.15" 2025-04-15', Outcome.OK, "Java 17"),
        ('openjdk version "21" 2023-09-19', Outcome.OK, "Java 21"),
        ('openjdk version "25.0.1" 2025-10-21', Outcome.FAIL, "Java 25 .* needs 17 or 21"),
        ('java version "1.8.0_402"', Outcome.FAIL, "Java 8 .* needs 17 or 21"),
        ("nothing of use", Outcome.FAIL, "told no version"),
    ],
)
def test_java_of_the_path(tmp_path: Path, told: str, outcome: Outcome, found: str) -> None:
    path = java(tmp_path / "bin", f"echo '{told}' >&2")
    check = doctor.check_java({"PATH": str(path)})
    assert check.outcome is outcome
    assert re.search(found, check.found), check.found
    assert (check.fix == "") is (outcome is Outcome.OK)


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    path = java(tmp_path / "path", "echo 'openjdk version \"17.0.1\"' >&2")
    java(tmp_path / "home" / "bin", "echo 'openjdk version \"11.0.1\"' >&2")
    check = doctor.check_java({"PATH": str(path), "JAVA_HOME": str(tmp_path / "home")})
    assert (check.outcome, "Java 11" in check.found) == (Outcome.FAIL, True)
    check = doctor.check_java({"PATH": str(path), "JAVA_HOME": str(tmp_path / "gone")})
    assert (check.outcome, "has no bin/java" in check.found) == (Outcome.FAIL, True)


def test_no_java_and_one_that_fails(tmp_path: Path) -> None:
    assert "no java is on PATH" in doctor.check_java({"PATH": str(tmp_path)}).found
    path = java(tmp_path / "bin", "exit 3")
    assert "ended with 3" in doctor.check_java({"PATH": str(path)}).found
    (path / "java").write_bytes(b"not a program")
    assert "does not run" in doctor.check_java({"PATH": str(path)}).found


@pytest.mark.parametrize(
    ("running", "outcome"), [((3, 10), Outcome.FAIL), ((3, 11), Outcome.OK), ((3, 14), Outcome.WARN)]
)
def test_python(running: tuple[int, int], outcome: Outcome) -> None:
    assert doctor.check_python(running).outcome is outcome


def test_what_is_installed_and_pinned_works_together() -> None:
    (check,) = doctor.check_versions(doctor.installed_versions(), [jar.coordinate for jar in pinned()])
    assert check.outcome is Outcome.OK, check.found


@pytest.mark.parametrize(
    ("packages", "jars", "named"),
    [
        ({"pyspark": "4.0.1"}, JAR, "not made for pyspark 4.0.1"),
        ({}, "io.delta:delta-spark_2.13:4.4.0", "names no Spark version"),
        ({}, "io.delta:delta-spark_4.1_2.13:4.2.0", "need Delta 4.3"),
        ({}, "org.example:other:1.0", "none for Scala 2.13"),
        ({"dbt-core": "1.12.1"}, JAR, "written for 1.11"),
        ({"dbt-spark": "1.12.0"}, JAR, "newer than dbt-core"),
        ({"click": "9.0.0"}, JAR, "below 9"),
    ],
)
def test_pairs_that_break_each_other(packages: dict[str, str], jars: str, named: str) -> None:
    (check,) = doctor.check_versions(PINNED | packages, [jars])
    assert check.outcome is Outcome.FAIL
    assert named in check.found
    assert check.fix


def test_a_package_that_is_not_installed() -> None:
    (check,) = doctor.check_versions({k: v for k, v in PINNED.items() if k != "duckdb"}, [JAR])
    assert (check.outcome, check.found) == (Outcome.FAIL, "not installed: duckdb")


def test_jars_not_fetched_yet(tmp_path: Path) -> None:
    check = doctor.check_jars(tmp_path)
    assert check.outcome is Outcome.WARN and JAR in check.found and "make setup" in check.fix
    for jar in pinned():
        (tmp_path / jar.file).touch()
    assert doctor.check_jars(tmp_path).outcome is Outcome.OK


def test_home(tmp_path: Path) -> None:
    check = doctor.check_home(Lake(Settings(home=tmp_path / "not" / "made" / "yet")))
    assert check.outcome in (Outcome.OK, Outcome.WARN)
    assert "GiB free" in check.found
    assert not (tmp_path / "not").exists()
    for nowhere in ("/proc/lakehouse", "/dev/null/lakehouse"):
        assert doctor.check_home(Lake(Settings(home=Path(nowhere)))).outcome is Outcome.FAIL


def test_memory() -> None:
    assert doctor.check_memory("3g", 8 * GIB).outcome is Outcome.OK
    assert doctor.check_memory("3g", 3 * GIB).outcome is Outcome.WARN
    assert doctor.check_memory("512m", 3 * GIB).outcome is Outcome.OK
    assert "GiB available" in doctor.check_memory("3g").found


def test_ports() -> None:
    assert doctor.check_ports().outcome is Outcome.OK


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_the_metastore_of_another_process(tmp_path: Path) -> None:
    assert doctor.check_metastore(tmp_path).outcome is Outcome.OK
    (tmp_path / "db.lck").touch()
    lock = tmp_path / "dbex.lck"
    lock.touch()
    assert doctor.check_metastore(tmp_path).outcome is Outcome.OK  # what a crash leaves
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdout.readline() == "locked\n"
    check = doctor.check_metastore(tmp_path)
    holder.communicate()
    assert (check.outcome, check.found) == (Outcome.WARN, f"{tmp_path} is open in process {holder.pid}")
    assert doctor.check_metastore(tmp_path).outcome is Outcome.OK


@pytest.mark.spark
def test_the_metastore_that_spark_holds(spark: SparkSession, lake: Lake) -> None:
    spark.sql("show schemas").collect()
    check = doctor.check_metastore(lake.home / "derby" / "metastore_db")
    assert check.outcome is Outcome.WARN, check.found


def test_storage_without_a_model(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path, schema_prefix="dev"))
    assert doctor.check_storage(lake).outcome is Outcome.OK
    for folder in ("dev_silver.db/kept__cdc", "dev_silver.db/gone__cdc", "dev_silver.db/now_a_table__cdc",
                   "dev_silver.db/plain", "other_silver.db/gone__cdc"):  # fmt: skip
        (tmp_path / "warehouse" / folder / "_delta_log").mkdir(parents=True)
    silver = {"layer": "silver", "prefix": "dev"}
    files.write_manifest(
        lake.artifacts,
        files.model("kept", strategy="cdc_scd2", **silver),
        files.model("now_a_table", strategy="merge", **silver),
        files.model("plain", strategy="merge", **silver),
    )
    check = doctor.check_storage(lake)
    assert check.outcome is Outcome.WARN
    assert check.found.startswith("dev_silver.gone__cdc, dev_silver.now_a_table__cdc: ")


def test_what_lies_in_a_landing_folder_and_is_never_taken(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path))
    (lake.landing / "fx_rates" / "2025").mkdir(parents=True)
    assert [check.outcome for check in doctor.check_landing(lake)] == [Outcome.OK], "an empty folder holds nothing"
    (lake.landing / "fx_rates" / "2025" / "a.csv").write_text("x")
    (check,) = doctor.check_landing(lake)
    assert check.outcome is Outcome.WARN and "2025 is not taken: files in folders are not" in check.found


def test_a_fault_that_no_check_expects_is_a_failed_check(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    found = doctor.checks(Lake(Settings(home=tmp_path, target="nowhere"), artifacts=tmp_path))
    by_name = {check.name: check for check in found}
    assert "'nowhere' is not in" in by_name["memory"].found
    assert "is not an artifact" in by_name["storage"].found
    assert by_name["python"].outcome is Outcome.OK


def test_nothing_fails_where_this_suite_runs(tmp_path: Path) -> None:
    found = doctor.checks(Lake(Settings(home=tmp_path)))
    assert [check for check in found if check.outcome is Outcome.FAIL] == []
    assert not any(tmp_path.iterdir())
