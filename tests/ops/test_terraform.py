"""infra/terraform applied to moto, and the product at work on what it made.

It runs where `terraform` is on PATH and finds the provider without a download: in a folder of plugins that TF_PLUGINS
names, or in the places where a machine keeps one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from servers import on_moto

from python_ops.lake.config import PROJECT_ROOT, load_settings
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.secrets.providers import AwsProvider
from python_ops.lake.state.dynamodb import DynamoStore
from python_ops.lake.storage import folder_at
from python_ops.watch.alerts.message import Message
from python_ops.watch.alerts.targets import Sns

SOURCE = PROJECT_ROOT / "infra" / "terraform"
PROVIDER = "registry.terraform.io/hashicorp/aws"
# moto has no bucket.host names, and the state of a test is a file.
OVERRIDE = """
terraform {
  backend "local" {}
}
provider "aws" {
  s3_use_path_style = true
  max_retries       = 2
}
provider "aws" {
  alias             = "recovery"
  s3_use_path_style = true
  max_retries       = 2
}
"""


def plugins() -> str:
    """The folder of plugins; empty where there is none."""
    usual = [Path.home() / ".terraform.d/plugins", Path("/usr/local/share/terraform/plugins"), *Path("/opt").glob("*")]
    places = [Path(os.environ["TF_PLUGINS"])] if os.environ.get("TF_PLUGINS") else usual
    return next((str(place) for place in places if (place / PROVIDER).is_dir()), "")


def terraform(folder: Path, *arguments: str) -> str:
    """Runs it in a folder; gives what it prints."""
    # The variable may name a file that is not there, which terraform warns of.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    done = subprocess.run(
        ["terraform", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"terraform {arguments[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("terraform"), reason="terraform is not on PATH"),
    pytest.mark.skipif(not plugins(), reason=f"no folder of plugins has {PROVIDER}"),
]


class Terraform:
    """A copy of infra/terraform in a folder of its own, beside what it reads of the project."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "infra" / "terraform"
        shutil.copytree(SOURCE, self.folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        (self.folder / "test_override.tf").write_text(OVERRIDE)
        for name in ("python_ops", "dbt_project.yml"):
            (place / name).symlink_to(PROJECT_ROOT / name)
        self("init", "-input=false", f"-plugin-dir={plugins()}")

    def __call__(self, *arguments: str) -> str:
        return terraform(self.folder, *arguments)


def actions(role: str) -> dict[str, list[str]]:
    """What a role may do, with the resources of each action."""
    policy = boto3.client("iam").get_role_policy(RoleName=role, PolicyName="job")["PolicyDocument"]
    found: dict[str, list[str]] = {}
    for statement in policy["Statement"]:  # type: ignore[index]
        listed, on = (
            [part] if isinstance(part, str) else part for part in (statement["Action"], statement["Resource"])
        )
        for action in listed:
            found.setdefault(action, []).extend(on)
    return found


def test_the_files_are_formatted() -> None:
    done = subprocess.run(["terraform", "fmt", "-check", "-recursive", str(SOURCE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    assert "valid" in Terraform(tmp_path)("validate", "-no-color")


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory, moto: str) -> Iterator[dict[str, Any]]:
    """The outputs of prod, applied to an empty moto, with what `lakeops` says of secrets and the dashboard."""
    place = tmp_path_factory.mktemp("applied")
    inputs = place / "inputs.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        on_moto(moto, monkeypatch)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        # An application of AWS is CREATED before it is STARTED, and Terraform waits for that.
        monkeypatch.setattr("moto.emrserverless.models.APPLICATION_STATUS", "CREATED")
        with inputs.open("w") as file:
            subprocess.run([SOURCE / "inputs.sh", "prod"], stdout=file, check=True, timeout=120)
        terraform = Terraform(place)
        given = {
            "environment": "prod", "region": "eu-west-1", "recovery_region": "eu-central-1", "inputs": str(inputs),
            "emr_release": "emr-7.13.0", "with_athena": "false", "with_lake_formation": "false",
        }  # fmt: skip
        terraform("apply", "-auto-approve", "-input=false", *(f"-var={name}={value}" for name, value in given.items()))
        yield {name: output["value"] for name, output in json.loads(terraform("output", "-json")).items()}


@pytest.mark.campaign
def test_the_product_works_on_what_terraform_made(
    tmp_path: Path, applied: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then state, secrets, alerts, figures and snapshots of prod go where its settings say; a bucket has its guards."""
    for name, value in applied["variables"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path))  # a lake on a bucket has tests of its own
    settings = load_settings("prod")

    store = DynamoStore(settings.state_table)
    assert store.put("watermark", "fx_rates", {"at": "2025-03-01"}, 0).revision == 1
    assert store.names("watermark") == ["fx_rates"]
    dynamo = boto3.client("dynamodb")
    until = dynamo.describe_time_to_live(TableName=settings.state_table)["TimeToLiveDescription"]
    assert until == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}

    secret = settings.secrets_prefix + "redshift"
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString='{"host": "h"}')
    assert AwsProvider(settings.secrets_prefix).get("redshift") == '{"host": "h"}'

    place = folder_at(settings.recovery, settings.recovery_region)
    with pytest.raises(OpsError, match="403"):  # moto is spoken to without TLS
        place.write("ledger.json", b"{}")
    bucket = settings.recovery.removeprefix("s3://").partition("/")[0]
    boto3.client("s3", region_name=settings.recovery_region).delete_bucket_policy(Bucket=bucket)
    place.write("ledger.json", b"{}")
    assert place.names() == {"ledger.json": 2}
    home = applied["variables"]["LAKEHOUSE_HOME"].removeprefix("s3://").partition("/")[0]
    s3 = boto3.client("s3")
    assert s3.get_bucket_versioning(Bucket=home)["Status"] == "Enabled"
    (encryption,) = s3.get_bucket_encryption(Bucket=home)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    (denied,) = json.loads(s3.get_bucket_policy(Bucket=home)["Policy"])["Statement"]
    assert denied["Effect"] == "Deny" and denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    (copied,) = s3.get_bucket_replication(Bucket=home)["ReplicationConfiguration"]["Rules"]
    assert (copied["Status"], copied["Destination"]["Bucket"]) == ("Enabled", f"arn:aws:s3:::{bucket}")

    sqs = boto3.client("sqs")
    queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    boto3.client("sns").subscribe(TopicArn=settings.alerts_topic, Protocol="sqs", Endpoint=arn)
    target = Sns(Lake(settings))
    target.send(target.payload(Message("prod", [], recovered=["stale: fx_rates"])), 5, "")
    (told,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert "recovered: stale: fx_rates" in json.loads(told["Body"])["Message"]

    watch = boto3.client("cloudwatch")
    (board,) = watch.list_dashboards()["DashboardEntries"]
    assert board["DashboardName"] == "Lakehouse-prod"
    alarms = {alarm["AlarmName"]: alarm for alarm in watch.describe_alarms()["MetricAlarms"]}
    assert {"Lakehouse-prod watermark_lag_seconds fx_rates", "Lakehouse-prod publish_lag_seconds gold.fct_orders",
            "Lakehouse-prod failed_steps run", "Lakehouse-prod no run for two days"} <= set(alarms)  # fmt: skip
    late = alarms["Lakehouse-prod watermark_lag_seconds fx_rates"]
    assert (late["Namespace"], late["Threshold"]) == (settings.metrics_namespace, 93600)
    assert {pair["Name"]: pair["Value"] for pair in late["Dimensions"]} == {"Environment": "prod", "Source": "fx_rates"}

    glue = boto3.client("glue").get_databases()["DatabaseList"]
    assert {base["LocationUri"] for base in glue} == {
        f"s3://{home}/lake/warehouse/{layer}.db" for layer in ("bronze", "dlq", "silver", "gold", "ops")
    }


@pytest.mark.campaign
def test_a_role_may_do_what_its_job_does_and_no_more(applied: dict[str, Any]) -> None:
    roles = {job: actions(arn.rpartition("/")[2]) for job, arn in applied["emr"]["roles"].items()}
    assert set(roles) == {"run", "check", "maintain", "snapshot"}
    assert not [(job, action) for job, may in roles.items() for action in may if action.endswith("*")]
    writes = {job: may.get("s3:PutObject", []) for job, may in roles.items()}
    lake = applied["variables"]["LAKEHOUSE_HOME"].replace("s3://", "arn:aws:s3:::")
    assert f"{lake}/*" in writes["run"] and f"{lake}/*" in writes["maintain"]
    assert f"{lake}/*" not in [*writes["check"], *writes["snapshot"]]
    recovery = applied["variables"]["LAKEHOUSE_RECOVERY"].replace("s3://", "arn:aws:s3:::")
    assert [job for job, places in writes.items() if f"{recovery}/*" in places] == ["snapshot"]
    assert [job for job, may in roles.items() if "secretsmanager:GetSecretValue" in may] == ["check", "run"]
    assert all("dynamodb:PutItem" in may for may in roles.values())
