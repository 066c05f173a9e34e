"""The one place that makes a Spark session, from the dbt profile.

dbt-spark's session method takes the process's session if there is one, so ingestion, dbt and
publishing share the session made here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined

from python_ops.config import PROJECT_ROOT, Settings
from python_ops.errors import ConfigError, OpsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PROFILES = PROJECT_ROOT / "profiles" / "profiles.yml"


def spark_settings(settings: Settings) -> dict[str, str]:
    """`server_side_parameters` of the environment's target, rendered as dbt renders them.

    Raises:
        ConfigError: the target is not in profiles.yml.
    """
    profile = yaml.safe_load(PROFILES.read_text())["lakehouse"]
    try:
        parameters = profile["outputs"][settings.target]["server_side_parameters"]
    except KeyError as exc:
        known = ", ".join(sorted(profile["outputs"]))
        raise ConfigError(f"Target {settings.target!r} is not in {PROFILES}: it has {known}.") from exc
    jinja = Environment(undefined=StrictUndefined, autoescape=False)
    jinja.globals["env_var"] = _env_var
    return {name: jinja.from_string(str(value)).render() for name, value in parameters.items()}


def kafka_jars() -> tuple[str, ...]:
    """Coordinates of the jars that a session needs to read Kafka."""
    return tuple(yaml.safe_load(PROFILES.read_text())["config_anchors"]["kafka_jars"])


def export_environment(settings: Settings) -> None:
    """Sets the variables that profiles.yml and dbt read, so that all agree on one home."""
    os.environ["LAKEHOUSE_HOME"] = str(settings.home_path)
    os.environ["LAKEHOUSE_SCHEMA_PREFIX"] = settings.schema_prefix
    os.environ["DBT_PROFILES_DIR"] = str(PROFILES.parent)
    for folder in ("logs", "derby"):
        (settings.home_path / folder).mkdir(parents=True, exist_ok=True)


def session(settings: Settings) -> SparkSession:
    """The process's Spark session, started on first use.

    Raises:
        OpsError: Java or a jar is missing; the text says where the log is.
    """
    export_environment(settings)
    os.chdir(PROJECT_ROOT)  # log4j2's file is named relative to the project
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.enableHiveSupport()
    for name, value in spark_settings(settings).items():
        builder = builder.config(name, value)
    log = settings.home_path / "logs" / "spark-start.log"
    try:
        with _stderr_to(log):
            return builder.getOrCreate()
    except (PySparkRuntimeError, FileNotFoundError) as exc:
        raise OpsError(
            f"Spark did not start ({exc}). Its output is in {log}. "
            "Java 17 or 21 must be on PATH or in JAVA_HOME; the log names a jar that could not be fetched."
        ) from exc


@contextmanager
def _stderr_to(path: Any) -> Iterator[None]:
    """Sends the process's stderr, the JVM's start-up chatter included, to a file."""
    sys.stderr.flush()
    saved = os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _env_var(name: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigError(f"profiles.yml needs the environment variable {name}, which is not set.")
    return value
