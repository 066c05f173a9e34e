"""Runs a lakeops command as a job of EMR Serverless, and ends as the job does: 0 or 1.

Usage: submit.py OUTPUTS COMMAND…     such as  .venv/bin/python infra/emr/submit.py target/emr/prod.json run --env prod

OUTPUTS is what `terraform output -json` printed. The command's first word says which role the job has. What the job
runs (entry.py, the archive of `make emr-archive`, Spark's jars) goes to the lake's bucket once, under the hash of its
bytes.
Ctrl-C cancels the job. `EMR_DRIVER` and `EMR_EXECUTORS` set its size (cores:memory; cores:memory:most executors).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from python_ops.lake.aws import client
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.jars import FOLDER, log_store, pinned
from python_ops.lake.spark import spark_settings

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / "target" / "emr" / "lakehouse.tar.gz"
ENTRY = Path(__file__).with_name("entry.py")
ROLES = {"run": "run", "sla": "check", "maintain": "maintain", "snapshot": "snapshot"}
HOURS = 12  # after which EMR ends a job
SECONDS_BETWEEN_LOOKS = 15.0
ENDED = ("SUCCESS", "FAILED", "CANCELLED")
# A driver's settings that are this machine's, or that are given below.
_OWN = ("spark.driver.", "spark.jars", "spark.master", "spark.app.name", "spark.sql.warehouse.dir", "spark.ui.")
_NOT_THE_JOBS = ("LAKEHOUSE_SECRET", "LAKEHOUSE_PROJECT", "LAKEHOUSE_ENV", "LAKEHOUSE_RUNNER", "LAKEHOUSE_JARS",
                 "LAKEHOUSE_CORES", "LAKEHOUSE_DRIVER", "LAKEHOUSE_CONNECT")  # fmt: skip
# Of the jars, what a cluster's Spark has of its own: Hadoop's S3A, of the version of its Hadoop.
_CLUSTERS = ("org.apache.hadoop:", "org.reactivestreams:", "software.amazon.")


def upload(s3: Any, place: str, path: Path) -> str:
    """Puts a file under the hash of its bytes, if it is not there; returns its address."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    with path.open("rb") as file:
        key = f"{prefix}/{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}/{path.name}"
    if not s3.list_objects_v2(Bucket=bucket, Prefix=key).get("KeyCount"):
        s3.upload_file(str(path), bucket, key)
    return f"s3://{bucket}/{key}"


def spark_parameters(home: str, archive: str, jars: list[str], variables: dict[str, str]) -> str:
    """The options of spark-submit: the profile's settings, what the job carries, and variables of the driver."""
    driver, executors = os.environ.get("EMR_DRIVER", "4:14g"), os.environ.get("EMR_EXECUTORS", "4:14g:6")
    cores, memory = driver.split(":")
    executor_cores, executor_memory, most = executors.split(":")
    profile = spark_settings(Settings(metastore=variables.get("LAKEHOUSE_METASTORE", "")))
    java = "-Duser.timezone=UTC -XX:-DontCompileHugeMethods"  # of what the profile says, what holds elsewhere too
    settings = {
        **{name: value for name, value in profile.items() if not name.startswith(_OWN)},
        "spark.sql.warehouse.dir": f"{home}/warehouse",
        "spark.archives": f"{archive}#lakehouse",
        "spark.jars": ",".join(jars),
        "spark.driver.cores": cores,
        "spark.driver.memory": memory,
        "spark.driver.extraJavaOptions": java,
        "spark.executor.cores": executor_cores,
        "spark.executor.memory": executor_memory,
        "spark.executor.extraJavaOptions": java,
        "spark.dynamicAllocation.maxExecutors": most,
        # One task per core of the largest cluster; adaptive execution joins the small ones.
        "spark.sql.shuffle.partitions": str(int(executor_cores) * int(most)),
        **{f"spark.emr-serverless.driverEnv.{name}": value for name, value in variables.items()},
    }
    return " ".join(f"--conf {shlex.quote(f'{name}={value}')}" for name, value in settings.items())


def settings_given() -> dict[str, str]:
    """LAKEHOUSE_* variables of this process that the job's driver gets too. A secret is none: the job reads its own."""
    return {n: v for n, v in os.environ.items() if n.startswith("LAKEHOUSE_") and not n.startswith(_NOT_THE_JOBS)}


def start(outputs: dict[str, Any], command: list[str], archive: Path = ARCHIVE) -> str:
    """Starts the job; returns its id.

    Raises:
        ConfigError: the command has no role, or the archive or the log store was not made.
    """
    if command[:1] == [] or command[0] not in ROLES:
        raise ConfigError(f"No role runs {command[:1]}. A job is one of: {', '.join(ROLES)}.")
    if not archive.exists():
        raise ConfigError(f"{archive} is not there. `make emr-archive` makes it.")
    if not log_store().exists():
        raise ConfigError(f"{log_store()} is not there. `make logstore` makes it.")
    emr = outputs["emr"]["value"]
    variables = {"LAKEHOUSE_METASTORE": "glue", **settings_given(), **outputs["variables"]["value"]}
    s3 = client("s3", answer_seconds=60)
    carried = [upload(s3, emr["deploy"], path) for path in (ENTRY, archive)]
    files = [FOLDER / jar.file for jar in pinned() if not jar.coordinate.startswith(_CLUSTERS)]
    jars = [upload(s3, emr["deploy"], file) for file in (*files, log_store())]
    given: str = client("emr-serverless").start_job_run(
        applicationId=emr["application"],
        executionRoleArn=emr["roles"][ROLES[command[0]]],
        name=f"lakeops {command[0]}",
        executionTimeoutMinutes=HOURS * 60,
        jobDriver={
            "sparkSubmit": {
                "entryPoint": carried[0],
                "entryPointArguments": command,
                "sparkSubmitParameters": spark_parameters(variables["LAKEHOUSE_HOME"], carried[1], jars, variables),
            }
        },
        configurationOverrides={
            "monitoringConfiguration": {
                "s3MonitoringConfiguration": {"logUri": emr["log_uri"]},
                "cloudWatchLoggingConfiguration": {"enabled": True, "logGroupName": emr["log_group"]},
            }
        },
    )["jobRunId"]
    return given


def watch(application: str, job: str, wait: float = SECONDS_BETWEEN_LOOKS) -> str:
    """Waits until the job has ended; returns its state. Ctrl-C cancels it."""
    emr, told = client("emr-serverless"), ""
    try:
        while True:
            found = emr.get_job_run(applicationId=application, jobRunId=job)["jobRun"]
            if found["state"] != told:
                told = found["state"]
                print(f"{job}: {told} {found.get('stateDetails', '')}".rstrip(), flush=True)
            if told in ENDED:
                return str(told)
            time.sleep(wait)
    except KeyboardInterrupt:
        emr.cancel_job_run(applicationId=application, jobRunId=job)
        raise


def main(arguments: list[str]) -> int:
    """Starts a job and waits for it."""
    if len(arguments) < 2:
        print("Usage: submit.py OUTPUTS COMMAND…", file=sys.stderr)
        return 2
    try:
        outputs = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        job = start(outputs, arguments[1:])
        return 0 if watch(outputs["emr"]["value"]["application"], job) == "SUCCESS" else 1
    except (OpsError, OSError) as exc:
        print(f"submit.py: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, ConfigError | OSError) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
