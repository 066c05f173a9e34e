"""What an environment needs outside its machine, as `lakeops doctor` sees it: on moto, PostgreSQL, and nobody."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from servers import Server

from python_ops.lake.aws import client
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.watch import doctor, services
from python_ops.watch.finding import Check, Outcome

SIX_MINUTES_LATER = """
import time, time_machine
from python_ops.watch.services import check_clock
with time_machine.travel(time.time() + 360):
    found = check_clock()
print(found.outcome, found.found)
"""
ON_AWS = {"secrets": "aws", "secrets_prefix": "p/", "state_store": "dynamodb", "state_table": "state",
          "alerts": ("console", "sns"), "recovery": "s3://recovery/snapshots", "publish": ("postgres",),
          "catalog": "glue"}  # fmt: skip


def found(lake: Lake) -> dict[str, Check]:
    """What `lakeops doctor` says of them."""
    names = {name for name, _ in services.to_check(lake)}
    return {check.name: check for check in doctor.checks(lake) if check.name in names}


@pytest.fixture
def lake(tmp_path: Path, aws: str, on_postgres: Server) -> Lake:
    """An environment that has all it needs."""
    boto3.client("dynamodb").create_table(
        TableName="state", KeySchema=[{"AttributeName": "record", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "record", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
    )  # fmt: skip
    topic = boto3.client("sns").create_topic(Name="alerts")["TopicArn"]
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="recovery", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket="recovery", VersioningConfiguration={"Status": "Enabled"})
    boto3.client("secretsmanager").create_secret(Name="p/postgres", SecretString=json.dumps(on_postgres.secret))
    boto3.client("secretsmanager").create_secret(Name="p/publish_pii_key", SecretString="k" * 32)
    return Lake(Settings(home=tmp_path, alerts_topic=topic, **ON_AWS))


def test_all_that_the_settings_name_is_there(lake: Lake) -> None:
    shown = found(lake)
    assert {name: check.outcome for name, check in shown.items()} == dict.fromkeys(
        ["clock", "state table", "topic", "bucket", "catalog", "secrets", "warehouse postgres"], Outcome.OK
    )
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="recovery")
    assert boto3.client("dynamodb").scan(TableName="state")["Items"] == []


def test_each_fault_is_told_with_its_place_and_without_a_value(lake: Lake) -> None:
    boto3.client("dynamodb").delete_table(TableName="state")
    boto3.client("sns").delete_topic(TopicArn=lake.settings.alerts_topic)
    boto3.client("s3").put_bucket_versioning(Bucket="recovery", VersioningConfiguration={"Status": "Suspended"})
    wrong = {"host": "127.0.0.1", "port": 1, "dbname": "d", "user": "u", "password": "canary"}
    boto3.client("secretsmanager").put_secret_value(SecretId="p/postgres", SecretString=json.dumps(wrong))
    shown = found(lake)
    assert {name for name, check in shown.items() if check.outcome is Outcome.FAIL} == {
        "state table", "topic", "warehouse postgres",
    }  # fmt: skip
    assert "no DynamoDB table state" in shown["state table"].found and "NotFound" in shown["topic"].found
    assert shown["bucket"].outcome is Outcome.WARN and "versioning is Suspended" in shown["bucket"].found
    assert "canary" not in repr(shown)
    boto3.client("secretsmanager").delete_secret(SecretId="p/postgres", ForceDeleteWithoutRecovery=True)
    without = found(Lake(lake.settings))
    assert without["secrets"].outcome is Outcome.FAIL and "'p/postgres' in AWS" in without["secrets"].found


def test_a_clock_that_aws_would_refuse(lake: Lake) -> None:
    done = subprocess.run([sys.executable, "-c", SIX_MINUTES_LATER], capture_output=True, text=True, check=True)
    assert re.match("fail 3[56][0-9] s", done.stdout), done.stdout


def test_prod_without_anything_fails_by_name_and_local_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_CONFIG_FILE": "/nowhere",
        "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    topic = "arn:aws:sns:eu-west-1:123456789012:alerts"
    by_name = found(Lake(Settings(home=tmp_path, target="prod", alerts_topic=topic, **ON_AWS)))
    assert {check.outcome for check in by_name.values()} == {Outcome.FAIL}
    assert "SPARK_REMOTE names none" in by_name["spark server"].found
    assert "AWS did not answer for STS" in by_name["clock"].found and topic in by_name["topic"].found
    assert list(found(Lake(Settings(home=tmp_path)))) == ["secrets"]


def test_the_region_is_that_of_the_variable_that_messages_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 itself reads AWS_DEFAULT_REGION alone."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert client("sns").meta.region_name == "eu-west-3"
    assert client("sns", "us-east-1").meta.region_name == "us-east-1"
