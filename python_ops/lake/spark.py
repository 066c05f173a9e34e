"""The one place that makes a Spark session, from the dbt profile.

dbt-spark's session method takes the process's session if there is one, so ingestion, dbt and
publishing share the session made here.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import yaml
from jinja2 import Environment, StrictUndefined

from python_ops.lake import home, interrupts, jars, warm
from python_ops.lake.buckets import on_bucket
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.errors import ConfigError, OpsError, first_line, missing_extra
from python_ops.lake.warm import TOKEN

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PROFILES = PROJECT_ROOT / "profiles" / "profiles.yml"
LOG_STORE = ("spark.delta.logStore.s3.impl", "lakehouse.ConditionalPutLogStore")  # as profiles.yml has it


def spark_settings(settings: Settings) -> dict[str, str]:
    """`server_side_parameters` of the environment's target, rendered as dbt renders them; those of the target `local`
    where it has none, because a Spark Connect server is started with them. What is empty is left to Spark.

    Raises:
        ConfigError: the target is not in profiles.yml.
    """
    target = _target(settings)
    parameters = target.get("server_side_parameters") or _targets()["local"]["server_side_parameters"]
    jinja = Environment(undefined=StrictUndefined, autoescape=False)
    jinja.globals["env_var"] = partial(_env_var, {name: value for name, (value, _) in _variables(settings).items()})
    rendered = {name: jinja.from_string(str(value)).render().strip() for name, value in parameters.items()}
    return {name: value for name, value in rendered.items() if value}


def export_environment(settings: Settings) -> None:
    """Sets the variables that profiles.yml and dbt read, so that all agree on one home.

    A variable that the profile already has is left out, because dbt parses everything again when its text changes.
    """
    for name, (value, default) in _variables(settings).items():
        if value == default:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ["DBT_PROFILES_DIR"] = str(PROFILES.parent)
    os.umask(int(settings.umask, 8))
    for folder in ("logs", "derby"):
        (settings.workspace_path / folder).mkdir(parents=True, exist_ok=True)


def _variables(settings: Settings) -> dict[str, tuple[str, str]]:
    """Variables of profiles.yml, with the value of each and the default that it has there."""
    is_far = on_bucket(settings.place)
    return {
        "LAKEHOUSE_HOME": (str(settings.place if is_far else settings.home), ".lake"),
        "LAKEHOUSE_WORKSPACE": (str(settings.workspace_path if is_far else settings.home), str(settings.home)),
        "LAKEHOUSE_METASTORE": (settings.metastore, ""),
        "LAKEHOUSE_SCHEMA_PREFIX": (settings.schema_prefix, ""),
        "LAKEHOUSE_UMASK": (settings.umask, "077"),
        "LAKEHOUSE_JARS": (str(jars.FOLDER), str(PROJECT_ROOT / ".venv" / "jars")),
    }


def session(settings: Settings) -> SparkSession:
    """The process's Spark session, started on first use; a Spark Connect server's where the target has no settings.

    Raises:
        ConfigError: SPARK_REMOTE does not say where the server is, the server refuses the token, its client is not
            installed, or the home is another's, or was copied or moved; or the home is in a bucket, and Spark has no
            log store for many writers.
        OpsError: Java or a jar is missing, or the server does not answer; the text says what to do.
    """
    is_recorded = home.require(settings)
    before = signal.getsignal(signal.SIGINT)
    running = _connect(settings) if is_connect(settings) else _warm(settings) or own_session(settings)
    interrupts.watch(before)
    _hide_errors_of_its_own()
    if on_bucket(settings.place) and running.conf.get(LOG_STORE[0], None) != LOG_STORE[1]:
        raise ConfigError(
            f"The Spark server does not have the setting {LOG_STORE[0]}={LOG_STORE[1]}, without which commits of two "
            "writers to one table in a bucket get lost. Start it by infra/spark_connect.sh, or give it the setting and "
            "the jar that `make logstore` builds."
        )
    if is_connect(settings) or not is_recorded or settings.metastore:
        home.compare(settings, running)
    if not is_recorded:
        home.record(settings)
    if on_bucket(settings.place):
        home.register(settings, running)
    return running


def _hide_errors_of_its_own() -> None:
    """PySpark prints each error as JSON on stderr, with values of rows, before whoever asked has caught it."""
    from pyspark.logger import PySparkLogger

    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(name).disabled = True


def _warm(settings: Settings) -> SparkSession | None:
    """A session of the warm server of this machine, if one is up for this home (`lakeops spark start`)."""
    check_needs(settings)
    export_environment(settings)
    server = warm.usable(settings, spark_settings(settings))
    if server is None:
        return None
    os.environ["SPARK_REMOTE"] = f"sc://localhost:{server.port}"
    return _connect(settings)


def server_version(settings: Settings) -> str:
    """Version of the environment's Spark Connect server, which is asked; the home is not looked at.

    Raises:
        ConfigError, OpsError: as `session` does.
    """
    found: str = _connect(settings).version
    return found


def own_session(settings: Settings) -> SparkSession:
    """The session of Spark in this process, whatever the environment.

    Raises:
        ConfigError: the home is in a bucket and the log store is not built, or Glue is to be the metastore.
        OpsError: Java or a jar is missing; the text says what to do.
    """
    check_needs(settings)
    export_environment(settings)
    os.environ.pop("SPARK_REMOTE", None)
    os.chdir(PROJECT_ROOT)  # log4j2's file and the jars are named relative to the project
    jars.provide()
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.enableHiveSupport()
    for name, value in spark_settings(settings).items():
        builder = builder.config(name, value)
    log = settings.workspace_path / "logs" / "spark-start.log"
    try:
        with _stderr_to(log):
            return builder.getOrCreate()
    except (PySparkRuntimeError, FileNotFoundError) as exc:
        raise OpsError(
            f"Spark did not start ({exc}). Its output is in {log}. Java 17 or 21 must be on PATH or in JAVA_HOME."
        ) from exc


def check_needs(settings: Settings) -> None:
    """What a Spark of this machine needs that is not fetched.

    Raises:
        ConfigError: the home is in a bucket and the log store is not built, or Glue is to be the metastore.
    """
    if on_bucket(settings.place) and not jars.log_store().is_file():
        raise ConfigError(
            f"A home in a bucket ({settings.place}) needs Delta's log store for it, and {jars.log_store()} is not "
            "there. Without it, commits of two writers to one table get lost. Run `make logstore`."
        )
    if settings.metastore == "glue":
        raise ConfigError(
            "metastore is glue, whose client only EMR's Spark has (infra/emr). Here it can be thrift://host:9083, a "
            "Hive metastore, or empty: Derby on this machine."
        )


def server_place(settings: Settings) -> SplitResult:
    """Where SPARK_REMOTE says that the Spark Connect server is. The server is not asked.

    Raises:
        ConfigError: it does not say so.
    """
    place = urlsplit(os.environ.get("SPARK_REMOTE", ""))
    if place.scheme != "sc" or not place.hostname:
        raise ConfigError(
            f"Environment {settings.target} works on a Spark Connect server, and SPARK_REMOTE names none. Set it, "
            "such as SPARK_REMOTE=sc://host:15002; infra/spark_connect.sh starts a server."
        )
    if place.hostname == "127.0.0.1" and "use_ssl=true" not in place.path:
        raise ConfigError("Spark's client sends no token to 127.0.0.1 without TLS. Write localhost in SPARK_REMOTE.")
    return place


def _connect(settings: Settings) -> SparkSession:
    place = server_place(settings)
    try:
        socket.create_connection((place.hostname, place.port or 15002), timeout=5).close()
    except OSError as exc:
        raise OpsError(
            f"The Spark Connect server at {place.hostname} does not answer ({exc}). Start it, or correct SPARK_REMOTE."
        ) from exc
    export_environment(settings)
    given = _give_token(settings)
    from pyspark.errors import PySparkImportError
    from pyspark.sql import SparkSession

    # dbt-spark asks for Hive in front of each statement; the server has it since its start.
    warnings.filterwarnings("ignore", message="Failed to set spark.sql.catalogImplementation")
    try:
        running = SparkSession.builder.getOrCreate()
        from pyspark.errors.exceptions.connect import SparkConnectGrpcException
    except (PySparkImportError, ImportError) as exc:
        raise missing_extra(f"Spark Connect's client ({exc})", "connect") from exc
    try:
        running.version  # noqa: B018 - asks the server
    except SparkConnectGrpcException as exc:
        if exc.getGrpcStatusCode().name != "UNAUTHENTICATED":
            raise
        raise ConfigError(
            f"The Spark Connect server at {urlsplit(os.environ['SPARK_REMOTE']).hostname} refuses {given}. Nothing was "
            f"read or written. Give the token that it was started with, in {TOKEN} or as SPARK_REMOTE=sc://…/;token=…; "
            "infra/spark_connect.sh keeps its own in `connect.token` of the server's home."
        ) from exc
    return running


def _give_token(settings: Settings) -> str:
    """Sees to it that Spark's client finds a token, and says which one that is, without its value."""
    file = settings.workspace_path / "connect.token"
    if "token=" in os.environ["SPARK_REMOTE"]:
        return "the token in SPARK_REMOTE"
    if os.environ.get(TOKEN):
        return f"the token in {TOKEN}"
    try:
        os.environ[TOKEN] = file.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, PermissionError) as exc:
        return (
            f"a client without a token: SPARK_REMOTE and {TOKEN} have none, and {file} cannot be read ({exc.strerror})"
        )
    return f"the token of {file}"


def is_connect(settings: Settings) -> bool:
    """Whether the environment's Spark is a Connect server, which owns the settings."""
    return "server_side_parameters" not in _target(settings)


def run(spark: SparkSession, statement: str, failed: str, then: str) -> None:
    """Runs a statement.

    Args:
        failed: What was not done if Spark refuses, for the message.
        then: How things are then, and the next step.

    Raises:
        OpsError: Spark refuses.
    """
    from pyspark.errors import PySparkException

    try:
        spark.sql(statement).collect()
    except PySparkException as exc:
        raise OpsError(f"{failed}: {first_line(exc)} {then}") from exc


def separate_session(spark: SparkSession) -> SparkSession:
    """A session beside the given one, on the same Spark, with settings and temporary views of its own."""
    if hasattr(spark, "_jsparkSession"):
        return spark.newSession()
    return type(spark).builder.remote(os.environ["SPARK_REMOTE"]).create()


def _targets() -> dict[str, Any]:
    outputs: dict[str, Any] = yaml.safe_load(PROFILES.read_text())["lakehouse"]["outputs"]
    return outputs


def _target(settings: Settings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _targets()[settings.target]
        return found
    except KeyError as exc:
        known = ", ".join(sorted(_targets()))
        raise ConfigError(f"Target {settings.target!r} is not in {PROFILES}: it has {known}.") from exc


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


def _env_var(own: Mapping[str, str], name: str, default: str | None = None) -> str:
    value = own.get(name, os.environ.get(name, default))
    if value is None:
        raise ConfigError(f"profiles.yml needs the environment variable {name}, which is not set.")
    return value
