"""Figures to Amazon CloudWatch, and a dashboard of them."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import compress
from typing import TYPE_CHECKING, Any

from python_ops.lake import refused
from python_ops.lake.artifacts import Manifest
from python_ops.lake.aws import boto3, client
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import Metric, metrics_file, read

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

_PER_CALL = 500  # CloudWatch takes 1000 figures and 1 MB in a call
_CONNECT_SECONDS, _ANSWER_SECONDS = 1.0, 2.0
_TAKEN_FOR = timedelta(days=14) - timedelta(hours=1)  # CloudWatch takes two weeks; the hour is for clocks
_REFUSED = frozenset({"InvalidParameterValue", "InvalidParameterCombination", "MissingParameter", "ValidationError"})
_BEGIN_SECONDS = 2.0  # no call begins later, so that the last ends within five seconds


def push(lake: Lake, client: CloudWatchClient | None = None) -> int:
    """Sends the figures that were not sent yet, in order. What CloudWatch does not take now is sent next time.

    A figure that is invalid, or too old for it, goes to the file of refused ones (`python_ops.lake.refused`).

    Returns:
        Figures sent.

    Raises:
        ConfigError: no AWS region is set.
        OpsError: CloudWatch did not take them all within five seconds.
    """
    boto3()
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    waiting, sent, done, started = _unsent(lake), 0, 0, time.monotonic()
    oldest = datetime.now(UTC) - _TAKEN_FOR
    is_old = [datetime.fromisoformat(metric.at) < oldest for metric in waiting]
    for metric in compress(waiting, is_old):
        refused.keep(lake, "cloudwatch", "CloudWatch takes no figure older than two weeks", asdict(metric))
    done = sum(is_old)  # figures are in the order of time
    fresh = waiting[done:]
    parts = [fresh[begin : begin + _PER_CALL] for begin in range(0, len(fresh), _PER_CALL)]
    try:
        client = client or _client()
        while parts:
            if time.monotonic() - started > _BEGIN_SECONDS:
                raise OpsError(f"CloudWatch took {sent} of {len(waiting)} figures in time; the rest is sent next time.")
            part = parts.pop(0)
            try:
                data = [_datum(lake, metric) for metric in part]
                client.put_metric_data(Namespace=lake.settings.metrics_namespace, MetricData=data)
                sent += len(part)
            except ClientError as exc:
                if exc.response["Error"]["Code"] not in _REFUSED:
                    raise
                if len(part) > 1:  # one figure fails them all: look for it by halves
                    parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
                    continue
                refused.keep(lake, "cloudwatch", f"CloudWatch refused it: {exc}", asdict(part[0]))
            done += len(part)
    except (BotoCoreError, ClientError, ResponseParserError) as exc:
        code = exc.response["Error"]["Code"] if isinstance(exc, ClientError) else type(exc).__name__
        raise OpsError(
            f"CloudWatch took {sent} of {len(waiting)} figures ({code}); the rest is sent next time."
        ) from exc
    finally:
        if done:
            _remember(lake, waiting[done - 1])
    return sent


def dashboard(lake: Lake, manifest: Manifest) -> dict[str, Any]:
    """A CloudWatch dashboard body: jobs, sources, and each gold table, as far as their figures are sent.

    Raises:
        ConfigError: no AWS region is set.
    """
    region = _region()
    gold = sorted(model.name for model in manifest.models.values() if model.layer == "gold")
    tables = [f"{lake.schema_name('gold')}.{name}" for name in gold]
    rows = [
        ("Seconds per step", [("run_seconds", "job", job) for job in ("ingest", "dbt build", "publish", "run")]),
        ("Steps that failed", [("failed_steps", "job", "run")]),
        ("Rows accepted", [("rows_accepted", "source", source) for source in lake.contracts.sources]),
        ("Rows quarantined", [("rows_quarantined", "source", source) for source in lake.contracts.sources]),
        (
            "Seconds since the last delivery",
            [("watermark_lag_seconds", "source", source) for source in lake.contracts.sources],
        ),
        ("Seconds per gold model", [("build_seconds", "model", name) for name in gold]),
        ("Rows applied by gold models", [("rows_applied", "model", name) for name in gold]),
        ("Rows of gold tables", [("rows", "table", table) for table in tables]),
        ("Publish lag in seconds", [("publish_lag_seconds", "table", table) for table in tables]),
        ("Age of the last snapshot in seconds", [("snapshot_age_seconds", "job", "snapshot")]),
        ("Bytes on disk", [("bytes_on_disk", "table", table) for table in tables]),
    ]
    chosen = [(title, [line for line in lines if _is_sent(lake, *line)]) for title, lines in rows]
    shown = [(title, lines) for title, lines in chosen if lines]
    return {"widgets": [_widget(lake, region, place, title, lines) for place, (title, lines) in enumerate(shown)]}


def put_dashboard(lake: Lake, body: dict[str, Any], client: CloudWatchClient | None = None) -> str:
    """Makes or replaces the dashboard; returns its name.

    Raises:
        ConfigError: no AWS region is set.
        OpsError: CloudWatch refuses it.
    """
    boto3()
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    name = lake.settings.metrics_namespace.replace("/", "-")
    try:
        (client or _client()).put_dashboard(DashboardName=name, DashboardBody=json.dumps(body))
    except (BotoCoreError, ClientError, ResponseParserError) as exc:
        raise OpsError(f"CloudWatch did not take the dashboard {name} ({type(exc).__name__}: {exc}).") from exc
    return name


def _widget(lake: Lake, region: str, place: int, title: str, lines: list[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        "type": "metric",
        "x": 12 * (place % 2),
        "y": 6 * (place // 2),
        "width": 12,
        "height": 6,
        "properties": {
            "title": title,
            "region": region,
            "period": 3600,
            "stat": "Maximum",
            "view": "timeSeries",
            "metrics": [
                [
                    lake.settings.metrics_namespace,
                    name,
                    *(part for pair in _pairs(lake, kind, subject) for part in pair),
                ]
                for name, kind, subject in lines
            ],
        },
    }


def _datum(lake: Lake, metric: Metric) -> Any:
    return {
        "MetricName": metric.name,
        "Dimensions": [{"Name": n, "Value": v} for n, v in _pairs(lake, metric.kind, metric.subject)],
        "Timestamp": datetime.fromisoformat(metric.at),
        "Value": metric.value,
        "Unit": "Seconds" if metric.name.endswith("seconds") else "Bytes" if "bytes" in metric.name else "Count",
    }


def _pairs(lake: Lake, kind: str, subject: str) -> list[tuple[str, str]]:
    return [("Environment", lake.settings.target), (kind.capitalize(), subject)]


def _unsent(lake: Lake) -> list[Metric]:
    found = read(lake)
    with suppress(OSError, ValueError, TypeError):
        last = Metric(**json.loads(_mark(lake).read_text(encoding="utf-8")))
        found = found[found.index(last) + 1 :]
    return [metric for metric in found if _is_sent(lake, metric.name, metric.kind, metric.subject)]


def _is_sent(lake: Lake, name: str, kind: str, subject: str) -> bool:
    """Whether the environment sends a figure: CloudWatch bills each name with its dimensions as a metric."""
    return any(fnmatchcase(f"{kind}.{name}.{subject}", pattern) for pattern in lake.settings.metrics_send)


def _remember(lake: Lake, last: Metric) -> None:
    write_whole(_mark(lake), json.dumps(asdict(last)))


def _mark(lake: Lake) -> Any:
    return metrics_file(lake).with_name("sent.json")


def _client() -> CloudWatchClient:
    made: CloudWatchClient = client("cloudwatch", _region(), _CONNECT_SECONDS, _ANSWER_SECONDS, attempts=1)
    return made


def _region() -> str:
    """The region of the figures and of their dashboard.

    Raises:
        ConfigError: none is set.
    """
    sdk = boto3()
    from botocore.exceptions import BotoCoreError

    try:
        found: str | None = os.environ.get("AWS_REGION") or sdk.Session().region_name
    except BotoCoreError as exc:
        raise ConfigError(f"The AWS settings cannot be used: {exc}. Correct AWS_PROFILE or ~/.aws/config.") from exc
    if not found:
        raise ConfigError(
            "CloudWatch needs an AWS region. Looked for AWS_REGION, AWS_DEFAULT_REGION, then the region of the AWS "
            "profile. Set one, such as `export AWS_REGION=eu-west-1`."
        )
    return found
