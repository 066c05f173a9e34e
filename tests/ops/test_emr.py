"""Jobs on EMR Serverless: the call that starts one, on moto; what a job runs, by spark-submit in an empty folder."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.errors import ConfigError
from python_ops.lake.jars import FOLDER, pinned

EMR = PROJECT_ROOT / "infra" / "emr"


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(f"emr_{name}", EMR / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def outputs(aws: str) -> dict[str, Any]:
    """What Terraform would print."""
    boto3.client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    made = boto3.client("emr-serverless").create_application(name="lakehouse", type="SPARK", releaseLabel="emr-7.13.0")
    emr = {
        "application": made["applicationId"], "deploy": "s3://lake/deploy",
        "log_uri": "s3://logs/emr/", "log_group": "/lakehouse",
        "roles": {job: f"arn:aws:iam::123456789012:role/{job}" for job in ("run", "check", "maintain", "snapshot")},
    }  # fmt: skip
    variables = {"LAKEHOUSE_HOME": "s3://lake/lake", "LAKEHOUSE_ALERTS_TOPIC": "arn:aws:sns:eu-west-1:123456789012:a"}
    return {"emr": {"value": emr}, "variables": {"value": variables}}


@pytest.mark.slow
def test_a_job_carries_what_it_needs_once_and_has_its_commands_role(
    tmp_path: Path, outputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, log_store: Path
) -> None:
    if not all((FOLDER / jar.file).exists() for jar in pinned()):
        pytest.skip("Spark's jars were not fetched")
    archive = tmp_path / "lakehouse.tar.gz"
    archive.write_bytes(b"any")
    monkeypatch.setenv("LAKEHOUSE_ALERTS", '["console", "sns"]')
    monkeypatch.setenv("LAKEHOUSE_SECRET_REDSHIFT", "canary")
    submit = script("submit")
    first = submit.start(outputs, ["run", "--env", "prod"], archive)
    kept = boto3.client("s3").list_objects_v2(Bucket="lake")["Contents"]
    second = submit.start(outputs, ["sla", "check", "--env", "prod"], archive)
    assert boto3.client("s3").list_objects_v2(Bucket="lake")["Contents"] == kept

    emr, application = boto3.client("emr-serverless"), outputs["emr"]["value"]["application"]
    jobs = [emr.get_job_run(applicationId=application, jobRunId=job)["jobRun"] for job in (first, second)]
    assert [job["executionRole"].rpartition("/")[2] for job in jobs] == ["run", "check"]
    asked = jobs[0]["jobDriver"]["sparkSubmit"]
    assert asked["entryPointArguments"] == ["run", "--env", "prod"] and asked["entryPoint"].endswith("/entry.py")
    words = shlex.split(asked["sparkSubmitParameters"])
    given = dict(word.split("=", 1) for word in words if word != "--conf")
    assert given["spark.sql.extensions"] == "io.delta.sql.DeltaSparkSessionExtension"
    assert given["spark.archives"].endswith("/lakehouse.tar.gz#lakehouse")
    assert given["spark.emr-serverless.driverEnv.LAKEHOUSE_HOME"] == "s3://lake/lake"
    assert given["spark.emr-serverless.driverEnv.LAKEHOUSE_ALERTS"] == '["console", "sns"]'
    assert "canary" not in json.dumps(asked)
    assert not given.keys() & {"spark.master", "spark.driver.host", "spark.driver.bindAddress"}
    assert given["spark.hadoop.hive.metastore.client.factory.class"].startswith("com.amazonaws.glue")
    assert given["spark.emr-serverless.driverEnv.LAKEHOUSE_METASTORE"] == "glue"
    jars = given["spark.jars"].split(",")
    carried = {asked["entryPoint"], given["spark.archives"].removesuffix("#lakehouse"), *jars}
    assert carried == {f"s3://lake/{item['Key']}" for item in kept}
    names = {jar.rpartition("/")[2] for jar in jars}
    assert log_store.name in names and not any("hadoop-aws" in name or "awssdk" in name for name in names)


def test_what_cannot_be_a_job_is_refused_before_anything_is_sent(tmp_path: Path, outputs: dict[str, Any]) -> None:
    submit = script("submit")
    with pytest.raises(ConfigError, match="A job is one of: run, sla, maintain, snapshot"):
        submit.start(outputs, ["secrets", "list"], tmp_path / "a")
    with pytest.raises(ConfigError, match="`make emr-archive` makes it"):
        submit.start(outputs, ["run"], tmp_path / "a")
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="lake")


@pytest.mark.slow
def test_a_cancelled_or_failed_job_is_not_a_success(tmp_path: Path, outputs: dict[str, Any], log_store: Path) -> None:
    submit = script("submit")
    archive = tmp_path / "lakehouse.tar.gz"
    archive.write_bytes(b"any")
    job = submit.start(outputs, ["maintain", "run"], archive)
    application = outputs["emr"]["value"]["application"]
    boto3.client("emr-serverless").cancel_job_run(applicationId=application, jobRunId=job)
    assert submit.watch(application, job, 0) != "SUCCESS"


@pytest.mark.campaign
@pytest.mark.spark
def test_the_archive_runs_the_day_in_an_empty_folder(tmp_path: Path) -> None:
    """Given only the archive, Spark and a home with deliveries, Then the entry point does the day and ends green; and a
    wrong command ends it with its own exit code."""
    import pyspark

    archive, home, empty = tmp_path / "lakehouse.tar.gz", tmp_path / "lake", tmp_path / "empty"
    subprocess.run([sys.executable, EMR / "archive.py", archive], check=True, capture_output=True)
    empty.mkdir()
    for file in (PROJECT_ROOT / "seeds" / "landing").glob("*/batch_0.*"):
        (home / "landing" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, home / "landing" / file.parent.name)
    shutil.copy(EMR / "entry.py", empty)
    submit = script("submit")
    jars = [str(FOLDER / jar.file) for jar in pinned()]
    settings = dict(
        word.split("=", 1)
        for word in shlex.split(submit.spark_parameters(str(home), str(archive), jars, {}))
        if word != "--conf"
    )
    settings |= {"spark.master": "local[2]", "spark.driver.memory": "2g", "spark.sql.shuffle.partitions": "2"}
    spark = Path(pyspark.__path__[0])
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "JAVA_HOME", "HOME", "LANG")}
    given = {
        "SPARK_HOME": str(spark), "PYSPARK_PYTHON": sys.executable, "LAKEHOUSE_HOME": str(home),
        "LAKEHOUSE_SECRETS": "file", "LAKEHOUSE_STATE_STORE": "file", "LAKEHOUSE_METRICS": "file",
        "LAKEHOUSE_LINEAGE": "file", "LAKEHOUSE_ALERTS": '["console"]', "LAKEHOUSE_EXTRACT": "[]",
        "LAKEHOUSE_PUBLISH": '["duckdb"]', "LAKEHOUSE_CATALOG": "none",
    }  # fmt: skip

    def job(*command: str) -> subprocess.CompletedProcess[str]:
        line = [str(spark / "bin" / "spark-submit"), *(f"--conf={name}={value}" for name, value in settings.items())]
        return subprocess.run(
            [*line, "entry.py", *command],
            cwd=empty,
            env={**clean, **given},
            capture_output=True,
            text=True,
            timeout=900,
        )

    done = job("run", "--env", "prod", "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = json.loads((home / "state" / "last_run.json").read_text())
    assert {step["outcome"] for step in record["steps"]} == {"ok"} and len(record["steps"]) == 3
    assert json.loads((home / "home.json").read_text())["environment"] == "prod"
    assert job("contracts", "nonsense").returncode == 2
