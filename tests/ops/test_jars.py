"""Spark's jars: what the list pins is fetched by the real Ivy, and nothing else is put on Spark's path."""

from __future__ import annotations

import re
from pathlib import Path

import pyspark
import pytest

from python_ops.lake import jars
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.jars import Jar, lacking, pinned, provide
from python_ops.lake.spark import spark_settings

SMALL = next(jar for jar in pinned() if "commons-pool2" in jar.coordinate)


def test_the_list_has_no_jar_that_sparks_own_package_has() -> None:
    """Delta's own list would put jackson 2.13.5 and aircompressor 2.0.2 (CVE-2025-67721) beside newer ones."""
    own = {re.sub(r"-[0-9].*", "", path.name) for path in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
    assert {"aircompressor", "jackson-databind", "parquet-hadoop"} <= own
    artifacts = [jar.coordinate.split(":")[1] for jar in pinned()]
    assert [name for name in artifacts if name in own] == []
    assert len(artifacts) == len(set(artifacts))


def test_spark_is_given_files_and_resolves_nothing() -> None:
    given = spark_settings(Settings())
    assert "spark.jars.packages" not in given and given["spark.jars"].endswith("/jars/*.jar")


@pytest.mark.slow
def test_what_is_lacking_is_fetched_and_what_is_not_listed_goes(tmp_path: Path) -> None:
    (tmp_path / "org.example_old-1.0.jar").touch()
    assert provide(tmp_path, [SMALL]) == [SMALL]
    assert [path.name for path in tmp_path.iterdir()] == [SMALL.file]
    assert lacking(tmp_path, [SMALL]) == [] == provide(tmp_path, [SMALL])


@pytest.mark.slow
def test_a_jar_with_another_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match=rf"commons-pool2:2.12.1 .* expected sha256 {'0' * 64}, got {SMALL.sha256}"):
        provide(tmp_path, [Jar(SMALL.coordinate, "0" * 64)])
    assert list(tmp_path.iterdir()) == []


def test_a_jar_that_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "IVY_HOME", tmp_path / "ivy")
    with pytest.raises(OpsError, match=r"The jar org\.example:none:1 could not be fetched .*make setup"):
        provide(tmp_path / "jars", [Jar("org.example:none:1", "0" * 64)])
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(OpsError, match="Java 17 or 21 must be on PATH"):
        provide(tmp_path / "jars", [Jar("org.example:none:1", "0" * 64)])


def test_a_garbled_line_of_the_list_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "jars.lock"
    lock.write_text("# a comment\norg.example:none:1\n")
    with pytest.raises(ConfigError, match=r"line 2: expected `group:artifact:version sha256`, got 'org"):
        pinned(lock)
