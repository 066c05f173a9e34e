"""Figures sent to CloudWatch: each once, kept while it does not take them; what fails there fails nothing else."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import artifact_files as files
import boto3
import pytest
from pytest_httpserver import HTTPServer
from test_alerts import FAILURES, failing

from python_ops.lake import refused
from python_ops.lake.artifacts import load_manifest
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import Metric, read, record
from python_ops.run import daily
from python_ops.run.daily import Job, Step, aftermath
from python_ops.watch.metrics.cloudwatch import dashboard, push, put_dashboard


def figures(count: int) -> list[Metric]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [Metric("rows", "table", f"gold.t{n}", n, now, "r") for n in range(count)]


def test_cloudwatch_gets_each_figure_once(tmp_path: Path, aws: str) -> None:
    lake = Lake(Settings(home=tmp_path, metrics_namespace="Lakehouse/test", target="dev"))
    record(lake, figures(1200))
    assert (push(lake), push(lake)) == (1200, 0)
    record(lake, [Metric("rows", "table", "gold.new", 5, datetime.now(UTC).isoformat(timespec="seconds"), "r2")])
    assert push(lake) == 1
    client = boto3.client("cloudwatch")
    found = client.get_metric_statistics(
        Namespace="Lakehouse/test",
        MetricName="rows",
        Dimensions=[{"Name": "Environment", "Value": "dev"}, {"Name": "Table", "Value": "gold.t7"}],
        StartTime=datetime.now(UTC) - timedelta(hours=1),
        EndTime=datetime.now(UTC) + timedelta(hours=1),
        Period=3600,
        Statistics=["Maximum"],
    )["Datapoints"]
    assert [point["Maximum"] for point in found] == [7.0]


@FAILURES
@pytest.mark.slow
def test_what_cloudwatch_does_not_take_is_sent_next_time(
    tmp_path: Path, aws: str, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """Given a CloudWatch that fails, Then it is asked once, five seconds pass at most, and no figure is lost."""
    lake = Lake(Settings(home=tmp_path))
    record(lake, figures(1200))
    with failing(httpserver, status) as address, monkeypatch.context() as given:
        given.setenv("AWS_ENDPOINT_URL", address)
        started = time.monotonic()
        with pytest.raises(OpsError, match=r"took 0 of 1200 figures \(\w+\); the rest is sent next time"):
            push(lake)
        assert time.monotonic() - started < 5.5
        assert status is None or len(httpserver.log) == 1
    assert push(lake) == 1200


def test_figures_that_cloudwatch_never_takes_do_not_keep_the_others(tmp_path: Path, aws: str) -> None:
    """Given figures older than two weeks, and one that is no number, Then the rest is sent and they are kept aside."""
    lake = Lake(Settings(home=tmp_path))
    old = (datetime.now(UTC) - timedelta(days=15)).isoformat(timespec="seconds")
    given = figures(1200)
    given[700] = replace(given[700], value=float("nan"))
    record(lake, [Metric("rows", "table", "gold.old", 1, old, "r0"), *given])
    assert (push(lake), push(lake)) == (1199, 0)
    kept = [json.loads(line) for line in (lake.state / "refused" / "cloudwatch.jsonl").read_text().splitlines()]
    assert [line["value"]["subject"] for line in kept] == ["gold.old", "gold.t700"]
    assert "older than two weeks" in kept[0]["reason"] and "InvalidParameterValue" in kept[1]["reason"]
    (text,) = refused.told(lake)
    assert text.startswith("2 messages were refused for good")


def test_cloudwatch_gets_what_the_environment_chose(tmp_path: Path, aws: str, artifacts: Path) -> None:
    """Given figures of every kind, Then those of the patterns are sent, all kept, and the dashboard has no other."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    given = [
        Metric("run_seconds", "job", "run", 1, now, "r"), Metric("build_seconds", "model", "dim_a", 1, now, "r"),
        Metric("rows", "table", "gold.dim_a", 1, now, "r"), Metric("rows", "table", "silver.x", 1, now, "r"),
        Metric("bytes", "table", "gold.dim_a", 1, now, "r"),
    ]  # fmt: skip
    counts = {}
    for name, patterns in {"default": None, "all": ("*",), "few": ("job.*", "model.build_seconds.*")}.items():
        chosen = {} if patterns is None else {"metrics_send": patterns}
        lake = Lake(Settings(home=tmp_path / name, **chosen))
        record(lake, given)
        counts[name] = (push(lake), push(lake), len(read(lake)))
    assert counts == {"default": (2, 0, 5), "all": (5, 0, 5), "few": (2, 0, 5)}
    lines = [line for w in dashboard(lake, load_manifest(artifacts))["widgets"] for line in w["properties"]["metrics"]]
    assert {line[1] for line in lines} == {"run_seconds", "failed_steps", "snapshot_age_seconds", "build_seconds"}


def test_nobody_listening_is_an_error_that_names_it(tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(Settings(home=tmp_path))
    record(lake, figures(3))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OpsError, match=r"took 0 of 3 figures \(EndpointConnectionError\); the rest is sent next time"):
        push(lake)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Artifacts of a green build."""
    files.write_manifest(tmp_path / "target", files.model("dim_a"), files.model("slv_x", layer="silver"))
    files.write_run_results(tmp_path / "target", {"model.lakehouse.dim_a": "success"})
    return tmp_path / "target"


def test_the_dashboard_is_made_from_the_manifest_and_accepted(tmp_path: Path, aws: str, artifacts: Path) -> None:
    lake = Lake(Settings(home=tmp_path, metrics_namespace="Lakehouse/test"))
    body = dashboard(lake, load_manifest(artifacts))
    assert put_dashboard(lake, body) == "Lakehouse-test"
    kept = json.loads(boto3.client("cloudwatch").get_dashboard(DashboardName="Lakehouse-test")["DashboardBody"])
    assert kept == body
    lines = [line for widget in kept["widgets"] for line in widget["properties"]["metrics"]]
    assert ["Lakehouse/test", "rows", "Environment", "local", "Table", "gold.dim_a"] in lines
    assert not any("slv_x" in line for line in lines)


@pytest.fixture
def no_region(aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AWS without a region, whatever this machine has."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws_config"))


@pytest.mark.usefixtures("no_region")
def test_the_region_is_looked_for_in_order(tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given one more place that names a region, Then it is the dashboard's; Given none, Then the error says where."""
    lake, manifest = Lake(Settings(home=tmp_path)), load_manifest(artifacts)
    record(lake, figures(1))
    for ask in (lambda: dashboard(lake, manifest), lambda: push(lake), lambda: put_dashboard(lake, {})):
        with pytest.raises(ConfigError, match=r"Looked for AWS_REGION, AWS_DEFAULT_REGION, .* `export AWS_REGION="):
            ask()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match=r"nobody.* Correct AWS_PROFILE"):
        dashboard(lake, manifest)
    monkeypatch.delenv("AWS_PROFILE")

    (tmp_path / "aws_config").write_text("[default]\nregion = eu-north-1\n")
    found = [{widget["properties"]["region"] for widget in dashboard(lake, manifest)["widgets"]}]
    for name, region in (("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_REGION", "eu-central-1")):
        monkeypatch.setenv(name, region)
        found.append({widget["properties"]["region"] for widget in dashboard(lake, manifest)["widgets"]})
    assert found == [{"eu-north-1"}, {"eu-west-1"}, {"eu-central-1"}]
    assert push(lake) == 1


@pytest.mark.usefixtures("no_region")
def test_a_target_without_settings_fails_neither_the_run_nor_the_alerts(tmp_path: Path, artifacts: Path) -> None:
    """Given a run that failed, and CloudWatch, Slack and SNS not set up, Then all is said and the console is told."""
    settings = Settings(home=tmp_path / "lake", metrics="cloudwatch", alerts=("slack", "sns", "console"))
    lake = Lake(settings, artifacts=artifacts)
    job = Job(lake, lambda what, value: None)
    job.steps = [Step("ingest", "failed", resume="lakeops ingest run")]
    job.save()
    said: list[str] = []
    breaches = aftermath(lake, said.append)
    assert "last run failed: ingest" in [breach.identity for breach in breaches]
    (figure, told, slack, sns) = said[:4]
    assert figure.startswith("warning: CloudWatch needs an AWS region.")
    assert told.startswith("Lakehouse local: ingest last run failed")
    assert slack.startswith("warning: Secret slack_webhook_url is not set.") and "kept and sent next time" in slack
    assert sns.startswith("warning: LAKEHOUSE_ALERTS_TOPIC is not the ARN of an SNS topic.")
    assert read(lake), "figures are recorded all the same"


def test_what_nobody_foresaw_is_said_without_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object, **options: object) -> None:
        raise RuntimeError("canary")

    for name in ("collect", "check", "gather"):
        monkeypatch.setattr(daily, name, fails)
    said: list[str] = []
    assert aftermath(Lake(Settings(home=tmp_path)), said.append) == []
    assert said == [
        f"warning: unexpected RuntimeError; `LAKEHOUSE_DEBUG=1 lakeops {command}` shows where."
        for command in ("metrics push", "sla check", "report")
    ]
