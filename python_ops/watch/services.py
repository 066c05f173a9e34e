"""Checks what an environment needs outside this machine: its Spark server, AWS, secrets, warehouses. Starts no JVM.

Each is asked for only where the environment's settings name it. What is written for a try is removed again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version
from urllib.parse import urlsplit
from uuid import uuid4

from python_ops.jobs.publish.warehouses import warehouse
from python_ops.lake import warm
from python_ops.lake.aws import client, explained
from python_ops.lake.buckets import on_bucket
from python_ops.lake.config import is_address
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.jars import log_store
from python_ops.lake.lake import Lake
from python_ops.lake.spark import check_needs, is_connect, server_version
from python_ops.lake.storage import folder_at
from python_ops.watch.credentials import faults_of, where_found
from python_ops.watch.finding import Check, Outcome

CLOCK_WARN, CLOCK_FAIL = 60, 300  # seconds; AWS refuses a signature that is five minutes off


def to_check(lake: Lake) -> Iterator[tuple[str, Callable[[], Check | list[Check]]]]:
    """Names of the checks, and what makes each."""
    settings = lake.settings
    yield "spark server", partial(check_server, lake)
    if (on_bucket(settings.place) or settings.metastore) and not is_connect(settings):
        yield "spark's needs", partial(check_needs_of_spark, lake)
    if settings.metastore.startswith("thrift://"):
        yield "metastore", partial(check_hive_metastore, settings.metastore)
    if settings.secrets == "aws" or settings.state_store == "dynamodb":
        yield "clock", check_clock
    if settings.state_store == "dynamodb":
        yield "state table", partial(check_state, lake)
    if "sns" in settings.alerts:
        yield "topic", partial(check_topic, lake)
    for place, region in ((str(settings.home), ""), (settings.recovery, settings.recovery_region)):
        if is_address(place):
            yield "bucket", partial(check_bucket, place, region)
    if settings.catalog == "glue":
        yield "catalog", check_catalog
    yield "secrets", partial(check_secrets, lake)
    for name in settings.publish:
        if name != "duckdb":
            yield f"warehouse {name}", partial(check_warehouse, lake, name)


def check_server(lake: Lake) -> list[Check]:
    """Whether the Spark Connect server, if the environment has one, answers, takes the token, and is of the client's
    version; else whether a warm one of this machine is up."""
    if not is_connect(lake.settings):
        server = warm.find(lake.settings)
        told = f"a warm one is up, on port {server.port}, since {server.since}" if server else ""
        return [Check("spark server", Outcome.OK, told)] if told else []
    there, here = server_version(lake.settings), version("pyspark")
    if there.split(".")[:2] != here.split(".")[:2]:
        fix = "Start a server of this version, or install the server's version here."
        return [Check("spark server", Outcome.FAIL, f"Spark {there}, and the client is {here}", fix)]
    return [Check("spark server", Outcome.OK, f"Spark {there}")]


def check_needs_of_spark(lake: Lake) -> Check:
    """Whether this machine's Spark has what it needs for a home in a bucket, or for the metastore."""
    check_needs(lake.settings)
    told = f"the log store is {log_store().name}" if on_bucket(lake.home) else "nothing is lacking"
    return Check("spark's needs", Outcome.OK, told)


def check_hive_metastore(addresses: str) -> Check:
    """Whether one of the Hive metastore's addresses, which are separated by commas, takes connections."""
    told = []
    for address in addresses.split(","):
        place = urlsplit(address)
        try:
            socket.create_connection((place.hostname, place.port or 9083), timeout=5).close()
            return Check("metastore", Outcome.OK, f"{address} takes connections")
        except OSError as exc:
            told.append(f"{address} does not answer ({exc})")
    return Check("metastore", Outcome.FAIL, "; ".join(told), "Start it, or correct LAKEHOUSE_METASTORE.")


def check_clock() -> Check:
    """How far this machine's clock is from AWS's. Who one is may be asked without a permission."""
    with _asking("STS"):
        answer = client("sts").get_caller_identity()
    there = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    off = abs((datetime.now(UTC) - there).total_seconds())
    found = f"{off:.0f} s from AWS's, account {answer['Account']}"
    outcome = Outcome.FAIL if off > CLOCK_FAIL else Outcome.WARN if off > CLOCK_WARN else Outcome.OK
    return Check("clock", outcome, found, "" if outcome is Outcome.OK else "Set the clock, by NTP.")


def check_state(lake: Lake) -> Check:
    """Whether records of the state table can be written, read and removed."""
    name = uuid4().hex
    record = lake.store.put("doctor", name, {}, 0, int(datetime.now(UTC).timestamp()))
    lake.store.get("doctor", name)
    lake.store.delete("doctor", name, record.revision)
    return Check("state table", Outcome.OK, f"{lake.settings.state_table} can be read and written")


def check_topic(lake: Lake) -> Check:
    """Whether the topic of alerts is there."""
    arn = lake.settings.alerts_topic
    if arn.count(":") != 5:
        raise ConfigError(f"LAKEHOUSE_ALERTS_TOPIC is {arn!r}, which is no ARN of a topic.")
    with _asking(arn):
        client("sns", arn.split(":")[3]).get_topic_attributes(TopicArn=arn)
    return Check("topic", Outcome.OK, arn)


def check_bucket(place: str, region: str) -> Check:
    """Whether objects can be written, read and removed, and are kept when they are replaced."""
    folder, name = folder_at(place, region), f"state/doctor/{uuid4().hex}"
    folder.write(name, b"doctor")
    folder.read(name)
    folder.remove(name)
    bucket = folder.url.removeprefix("s3://").partition("/")[0]
    with _asking(f"the versioning of {bucket}"):
        told = client("s3", region).get_bucket_versioning(Bucket=bucket).get("Status", "never on")
    if told != "Enabled":
        fix = "Switch it on: what is removed by mistake cannot be had back without it."
        return Check("bucket", Outcome.WARN, f"{folder.url} can be read and written; versioning is {told}", fix)
    return Check("bucket", Outcome.OK, f"{folder.url} can be read and written, and is versioned")


def check_catalog() -> Check:
    """Whether Glue answers, and lets us list its databases."""
    with _asking("Glue's databases"):
        found = client("glue").get_databases(MaxResults=100)["DatabaseList"]
    return Check("catalog", Outcome.OK, f"Glue answers; {len(found)} databases are seen")


def check_secrets(lake: Lake) -> Check:
    """Whether every secret that the settings ask for is there, with its fields."""
    asked = where_found(lake)
    if told := [fault for secret in asked for fault in faults_of(lake.secrets, secret)]:
        return Check("secrets", Outcome.FAIL, told[0] + (f" And {len(told) - 1} more." if told[1:] else ""),
                     f"`lakeops secrets check --env {lake.settings.target}` lists all.")  # fmt: skip
    return Check("secrets", Outcome.OK, ", ".join(secret.name for secret in asked) or "none is needed")


def check_warehouse(lake: Lake, name: str) -> Check:
    """Whether the warehouse lets us in."""
    try:
        served = warehouse(lake, name).served()
    except OpsError as exc:
        return Check(f"warehouse {name}", Outcome.FAIL, str(exc), "Correct what it says, or the secret.")
    return Check(f"warehouse {name}", Outcome.OK, f"answers; {len(served)} tables are served")


def _asking(what: str) -> AbstractContextManager[None]:
    return explained("AWS", what, "Look at its name and at this role.")
