"""Whose a home is: addresses, copied lakes and other environments' homes are refused before anything happens."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import artifact_files
import programs
import pytest

from python_ops.jobs.build import refuse_other_variables
from python_ops.jobs.recovery.manifest import store_of
from python_ops.lake import home
from python_ops.lake.config import PROJECT_ROOT, Settings, load_settings
from python_ops.lake.errors import ConfigError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.lock import exclusive
from python_ops.lake.views import restore

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(folder: Path, place: str | Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `lakeops …`, or `dbt …` as it is typed, in the checkout; dbt's log goes to the folder."""
    given = {
        **os.environ, "LAKEHOUSE_HOME": str(place), "LAKEHOUSE_SCHEMA_PREFIX": "", "DBT_LOG_PATH": str(folder / "logs"),
        "JAVA_HOME": "/nowhere", **environment,
    }  # fmt: skip
    given.pop("DBT_PROFILES_DIR", None)
    return programs.run(words, given, PROJECT_ROOT)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was printed, but for dbt's opening line."""
    return [
        line for line in (done.stdout + done.stderr).splitlines() if line.strip() and "Running with dbt" not in line
    ]


def test_an_address_is_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    others = ("hdfs://h:8020/x", "file:///tmp/x", "abfss://c@a.dfs/x", "s3://", "s3://bucket/../x", "S3://bucket/lake")
    for address in others:
        monkeypatch.setenv("LAKEHOUSE_HOME", address)
        with pytest.raises(ConfigError, match=r"LAKEHOUSE_HOME must be on this machine, or mounted, and .*: *"):
            load_settings("local")
        with pytest.raises(ConfigError, match="is an address"):
            _ = Lake(Settings(home=Path(address))).home
    for address in ("s3a://bucket/lake", "s3://bucket/lake/", "s3:/bucket/lake"):
        assert str(Lake(Settings(home=Path(address))).state.parent) == "s3://bucket/lake"
    with pytest.raises(ConfigError, match="neither a path nor s3://"):
        store_of(Lake(Settings(home=tmp_path, recovery="ftp:/host/x")))
    assert Settings(home=tmp_path / "a:" / "b").place == tmp_path / "a:" / "b", "a colon alone is no scheme"


@pytest.mark.slow
@pytest.mark.parametrize(("umask", "others"), [("", 0o077), ("027", 0o027)], ids=["by default", "027"])
def test_what_is_written_is_its_users_alone(tmp_path: Path, umask: str, others: int) -> None:
    """Given a user whose files everybody may read, When commands write a lake, Then nobody else reads it."""
    place = tmp_path / "lake"
    landing = place / "landing" / "fx_rates"
    landing.mkdir(parents=True)
    (landing / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-01-02,USD,1.03\n")
    delivered = {place, *place.rglob("*")}
    chosen = {"LAKEHOUSE_UMASK": umask} if umask else {}
    before = os.umask(0o022)
    try:
        assert "Spark did not start" in run(tmp_path, place, "lakeops", "ingest", "run", **chosen).stderr
        assert run(tmp_path, place, "dbt", "parse", **chosen).returncode == 0
    finally:
        os.umask(before)
    written = {*place.rglob("*"), *(tmp_path / "logs").rglob("*")} - delivered
    names = {path.name for path in written}
    assert names >= {"home.json", "lock.json", "events.jsonl", "manifest.json", "dbt.log"}
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in written}
    assert {name: oct(mode) for name, mode in modes.items() if mode & others} == {}
    if umask:
        assert modes["lake/target/manifest.json"] == 0o640 and modes["logs/dbt.log"] == 0o640


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("lakeops", "status"),
        ("lakeops", "snapshot", "restore", "--to", "abfss://bucket/lake", "--execute"),
        ("lakeops", "snapshot", "drill", "--scratch", "abfss://bucket/lake"),
        ("lakeops", "report", "--output", "abfss://bucket/report.html"),
        ("lakeops", "contracts", "export", "--to", "abfss://bucket/schemas"),
        ("dbt", "parse"),
        ("dbt", "build"),
    ],
    ids=" ".join,
)
def test_an_address_becomes_no_folder(tmp_path: Path, words: tuple[str, ...]) -> None:
    place = tmp_path / "lake" if any(word.startswith("abfss:") for word in words) else "abfss://bucket/lake"
    done = run(tmp_path, place, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "bucket" in lines(done)[-1] and "is an address" in lines(done)[-1]
    assert len(lines(done)) <= 3, "dbt says where it is from in two lines more"
    assert not list(PROJECT_ROOT.glob("*:*")) and not (tmp_path / "lake").exists()


def test_a_home_says_whose_it_is_and_where(tmp_path: Path) -> None:
    """Given a home in use, When it is copied or moved, Then neither place is read or written from there."""
    first = Settings(home=tmp_path / "lake", demo=True)
    assert not home.require(first)
    with exclusive(Lake(first), "x"):
        pass
    assert home.require(first)
    shutil.copytree(first.home, tmp_path / "copy")
    (tmp_path / "link").symlink_to(first.home)
    assert home.require(Settings(home=tmp_path / "link")), "another name of the same folder"
    copy = Settings(home=tmp_path / "copy")
    told = rf"The lake in {copy.home} is registered at {first.home}: .*`lakeops home adopt --execute`"
    for refused in (home.require, home.claim, lambda given: exclusive(Lake(given), "x").__enter__()):
        with pytest.raises(ConfigError, match=told):
            refused(copy)
    assert json.loads((copy.home / "home.json").read_text())["path"] == str(first.home)


def test_environments_do_not_share_a_home_and_prefixes_do(tmp_path: Path) -> None:
    home.claim(Settings(home=tmp_path, target="dev", schema_prefix="ann"))
    assert home.require(Settings(home=tmp_path, target="dev", schema_prefix="ben"))
    with pytest.raises(ConfigError, match=r"is the home of environment dev, and this is prod\. .*`--env dev`"):
        exclusive(Lake(Settings(home=tmp_path, target="prod")), "x").__enter__()
    (tmp_path / "home.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"home.json cannot be read .*`lakeops home adopt --execute`"):
        home.require(Settings(home=tmp_path, target="dev"))


def test_a_home_with_a_metastore_is_recorded_by_spark_alone(tmp_path: Path) -> None:
    """A lake from before there was a record: only its metastore knows where it is."""
    (tmp_path / "derby" / "metastore_db").mkdir(parents=True)
    home.claim(Settings(home=tmp_path))
    assert not (tmp_path / "home.json").exists()


@pytest.mark.spark
def test_spark_says_where_the_schemas_are(spark: SparkSession, lake: Lake, tmp_path: Path) -> None:
    home.compare(lake.settings, spark)
    elsewhere = Lake(Settings(home=tmp_path / "copy"))
    with pytest.raises(ConfigError, match=rf"The lake in {elsewhere.home} is registered at {lake.home}/ware"):
        home.compare(elsewhere.settings, spark)


@pytest.mark.spark
def test_views_that_another_machine_made_are_made_here(spark: SparkSession, lake: Lake, tmp_path: Path) -> None:
    """Given the artifacts of a build and its tables, Then views are made in whatever order they need, those of a table
    that is gone are left out, and those that are there stay."""
    own = Lake(lake.settings.model_copy(update={"schema_prefix": "views"}), artifacts=tmp_path)
    texts = {
        "slv_first": "create or replace view views_silver.slv_first as select id from views_silver.slv_second",
        "slv_gone": "create or replace view views_silver.slv_gone as select id from views_silver.gone",
        "slv_second": "\ncreate or replace view views_silver.slv_second (`id` comment 'a; b') as select id from "
        "views_silver.t;\ncreate or replace view views_silver.slv_second__changes as select id from views_silver.t",
    }
    nodes = {name: artifact_files.model(name, layer="silver", prefix="views", strategy="cdc_scd1") for name in texts}
    for name in ("slv_first", "slv_gone"):
        nodes[name]["config"] |= {"materialized": "view", "incremental_strategy": None}
    artifact_files.write_manifest(own.artifacts, *nodes.values())
    for name, text in texts.items():
        write_whole(tmp_path / "run" / "lakehouse" / "dbt_project" / "models" / "silver" / f"{name}.sql", text)
    spark.sql("create schema views_silver")
    spark.sql("create table views_silver.t using delta as select 7 as id")
    assert restore(own.artifacts, spark) == 3
    assert [row["id"] for row in spark.sql("select * from views_silver.slv_first").collect()] == [7]
    spark.sql("create or replace view views_silver.slv_first as select 8 as id")
    assert restore(own.artifacts, spark) == 0
    assert [row["id"] for row in spark.sql("select * from views_silver.slv_first").collect()] == [8]
    spark.sql("drop schema views_silver cascade")


@pytest.mark.slow
def test_a_moved_lake_is_refused_by_every_command(tmp_path: Path) -> None:
    home.claim(Settings(home=tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    for words in (("lakeops", "status"), ("lakeops", "run"), ("dbt", "parse"), ("dbt", "build")):
        done = run(tmp_path, tmp_path / "new", *words)
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"The lake in {tmp_path / 'new'} is registered at {tmp_path / 'old'}" in lines(done)[-1]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["home.json"]
    doctor = run(tmp_path, tmp_path / "new", "lakeops", "doctor")
    assert "fail     home" in doctor.stdout and "home adopt" in doctor.stdout


@pytest.mark.slow
def test_what_belongs_to_another_environment_is_stopped_in_a_line(tmp_path: Path) -> None:
    """Given an empty home, When prod is given invented data or dbt without a server, Then nothing is made."""
    place = tmp_path / "lake"
    demo = run(tmp_path, place, "lakeops", "demo", "--env", "prod")
    assert demo.returncode == 2 and "environment prod does not say `demo: true`" in lines(demo)[0], demo.stderr
    for target in ("dev", "prod"):
        built = run(tmp_path, place, "dbt", "build", "--target", target, SPARK_REMOTE="")
        assert built.returncode == 2 and "SPARK_REMOTE names none" in lines(built)[-1], built.stdout
        assert len(lines(built)) <= 3
    assert not place.exists()
    assert not [name for name in ("metastore_db", "spark-warehouse", "derby.log") if (PROJECT_ROOT / name).exists()]


@pytest.mark.slow
def test_dbt_beside_a_run_says_who_holds_the_lake(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lock.json").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"command": "lakeops run", "pid": 4711, "since": "2026-01-01T00:00:00+00:00"}))
        file.flush()
        done = run(tmp_path, tmp_path, "dbt", "build")
        assert done.returncode == 2 and "in use by `lakeops run` (process 4711, since 2026" in lines(done)[-1]
        assert run(tmp_path, tmp_path, "dbt", "parse").returncode == 0, "what needs no Spark waits for nobody"
    assert (tmp_path / "target" / "manifest.json").exists(), "artifacts of a hand-typed command are under the home"


def test_a_home_that_only_the_environments_file_names_is_exported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAKEHOUSE_HOME", raising=False)
    with pytest.raises(ConfigError, match=rf"`export LAKEHOUSE_HOME={tmp_path}` first"):
        refuse_other_variables(Lake(Settings(home=tmp_path)))
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path))
    refuse_other_variables(Lake(Settings(home=tmp_path)))
    with pytest.raises(ConfigError, match="`export LAKEHOUSE_SCHEMA_PREFIX=ann` first"):
        refuse_other_variables(Lake(Settings(home=tmp_path, schema_prefix="ann")))
