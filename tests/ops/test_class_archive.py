"""The archive of Spark's classes: it is named to every Spark, used where it fits, and never in the way."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from python_ops.lake.class_archive import FILE
from python_ops.lake.config import Settings
from python_ops.lake.spark import spark_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not on PATH")
@pytest.mark.parametrize("archive", ["none", "garbage", "of other jars"])
def test_a_jvm_does_without_an_archive_that_does_not_fit_and_says_nothing(archive: str, tmp_path: Path) -> None:
    """With the very options of the profile; `java` alone has not Spark's class path."""
    file = FILE if archive == "of other jars" else tmp_path / "classes.jsa"
    if archive == "garbage":
        file.write_text("garbage")
    given = spark_settings(Settings())["spark.driver.extraJavaOptions"].split()
    assert f"-XX:SharedArchiveFile={FILE}" in given
    options = [word.replace(str(FILE), str(file)) for word in given if word.startswith("-X")]
    done = subprocess.run(["java", *options, "-XshowSettings:vm", "-version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and "archive" not in done.stderr.lower(), (
        done.stdout + done.stderr
    )


@pytest.mark.spark
@pytest.mark.skipif(not FILE.exists(), reason="`make setup` has made no archive")
def test_spark_maps_the_archive(spark: SparkSession) -> None:
    """A JVM that refuses it has let go of it."""
    assert spark._jvm is not None
    process = spark._jvm.java.lang.ProcessHandle.current().pid()
    assert str(FILE) in Path(f"/proc/{process}/maps").read_text()
