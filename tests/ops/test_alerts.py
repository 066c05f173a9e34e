"""Alerts against real receivers: one message per change, kept while it cannot be delivered, five seconds at most."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.watch.alerts import Breach, Cause
from python_ops.watch.alerts.notify import notify
from python_ops.watch.alerts.targets import Console

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STALE = Breach(Cause.FRESHNESS, "fx_rates", "a delivery every 26 h", "the last came 3 days ago", "Platform", "look")
FAILED = Breach(Cause.LAST_RUN, "dbt build", "every step ok", "dbt build failed", "Platform", "`dbt build`")


class Desk:
    """Settings with one target, and what was told."""

    def __init__(self, home: Path, alerts: tuple[Any, ...], **lake: Any) -> None:
        self.lake = Lake(Settings(home=home, alerts=alerts, **lake))
        self.said: list[str] = []

    def notify(self, *breaches: Breach, hours: float = 0) -> list[str]:
        lake = Lake(self.lake.settings)  # each time is a command of its own
        return notify(lake, breaches, self.said.append, now=NOW + timedelta(hours=hours))


@pytest.fixture
def slack(tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL", httpserver.url_for("/services/T0/B0/canary"))
    return Desk(tmp_path, ("slack",))


def received(httpserver: HTTPServer) -> list[Any]:
    return [request.get_json() for request, _ in httpserver.log]


def test_what_is_new_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ("console",))
    desk.notify()
    assert desk.said == []
    desk.notify(STALE)
    desk.notify(STALE, hours=1)
    assert len(desk.said) == 1 and desk.said[0].startswith("Lakehouse local: fx_rates stale")
    desk.notify(FAILED, STALE, hours=2)
    assert desk.said[1].startswith("Lakehouse local: dbt build last run failed, and 1 more"), "the cause first"
    desk.notify(STALE, hours=3)
    assert "recovered: last run failed: dbt build" in desk.said[2]
    desk.notify(STALE, hours=8.9)
    assert len(desk.said) == 3
    desk.notify(STALE, hours=9.1)
    assert len(desk.said) == 4, "a reminder after six hours"
    desk.notify(hours=10)
    assert desk.said[4].startswith("Lakehouse local: recovered")
    assert all("Owner: Platform. Next: " in said and "docs/runbooks/sla_breach.md#" in said for said in desk.said[:4])


def test_a_flapping_breach_is_told_six_times_an_hour_at_most(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ("console",))
    for minute in range(0, 60, 2):
        desk.notify(*([STALE] if minute % 4 else []), hours=minute / 60)
    assert len(desk.said) == 6
    desk.notify(STALE, FAILED, hours=2)
    assert len(desk.said) == 7


def test_slack_gets_one_message_of_blocks(slack: Desk, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/services/T0/B0/canary", method="POST").respond_with_data("ok")
    assert slack.notify(FAILED, STALE) == []
    (message,) = received(httpserver)
    assert [block["type"] for block in message["blocks"]] == ["header", "section", "section", "context"]
    assert "Also open:\n• fx_rates: stale (Platform)" in message["blocks"][2]["text"]["text"]
    assert message["blocks"][3]["elements"][0]["text"] == "error · 2026-03-01 12:00 UTC"
    assert "Owner: Platform · Next: `dbt build` · docs/runbooks/sla_breach.md#last-run-failed" in json.dumps(
        message, ensure_ascii=False
    )


@pytest.fixture
def app(tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Slack's API: it numbers messages, and wants the app's token."""
    monkeypatch.setenv("LAKEHOUSE_SECRET_SLACK_BOT_TOKEN", "xoxb-canary")

    def take(request: Request) -> Response:
        if request.headers["Authorization"] != "Bearer xoxb-canary":
            return Response('{"ok": false, "error": "invalid_auth"}')
        return Response(json.dumps({"ok": True, "channel": "C9", "ts": f"17.{len(httpserver.log)}"}))

    for method in ("chat.postMessage", "chat.update"):
        httpserver.expect_request(f"/api/{method}", method="POST").respond_with_handler(take)
    return Desk(tmp_path, ("slack",), alerts_channel="#lake", slack_api=httpserver.url_for("/api"))


def test_what_follows_is_said_in_the_thread_and_recovery_updates_the_message(app: Desk, httpserver: HTTPServer) -> None:
    """Given a breach, When another comes and both go, Then one conversation says so, and its head says it is over."""
    assert [app.notify(*b, hours=h) for h, b in enumerate([(STALE,), (STALE, FAILED), ()])] == [[], [], []]
    asked = [(request.path.removeprefix("/api/"), request.get_json()) for request, _ in httpserver.log]
    assert [(method, body.get("thread_ts"), body.get("ts")) for method, body in asked] == [
        ("chat.postMessage", None, None),
        ("chat.postMessage", "17.0", None),
        ("chat.update", None, "17.0"),
        ("chat.postMessage", "17.0", None),
    ]
    assert (asked[0][1]["channel"], asked[1][1]["channel"]) == ("#lake", "C9")
    assert asked[2][1]["text"] == "Lakehouse local: recovered"
    app.notify(STALE, hours=5)
    assert httpserver.log[-1][0].get_json().get("thread_ts") is None, "the next breach opens a conversation of its own"


def test_a_refused_token_is_a_warning_without_the_token(app: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_SECRET_SLACK_BOT_TOKEN", "xoxb-wrong")
    (warning,) = app.notify(STALE)
    assert "Slack refused chat.postMessage (invalid_auth): 1 alerts for slack are kept" in warning
    assert "xoxb" not in warning + (app.lake.state / "alerts.json").read_text()


def test_the_runbook_is_a_link_where_its_address_is_known(
    tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL", httpserver.url_for("/hook"))
    httpserver.expect_request("/hook").respond_with_data("ok")
    desk = Desk(tmp_path, ("slack", "console"), runbooks_url="https://git.example.com/lakehouse/")
    desk.notify(STALE)
    place = "https://git.example.com/lakehouse/docs/runbooks/sla_breach.md#stale"
    assert f"<{place}|runbook>" in json.dumps(received(httpserver)[0])
    assert f"Runbook: {place}" in desk.said[0]


def test_what_is_new_stands_in_the_header_and_recoveries_stand_apart(
    slack: Desk, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an open cause, When a lesser breach is new and another goes, Then the header says what is new."""
    httpserver.expect_request("/services/T0/B0/canary").respond_with_data("ok")
    slack.lake = slack.lake.with_settings(report_url="https://lake.example.com/report.html")
    rows = Breach(Cause.ROWS, "dim_a", "at least 1 rows", "0", "Sales", "`dbt build`")
    for hours, breaches in enumerate([(FAILED, STALE), (FAILED, rows), (FAILED, rows), ()]):
        slack.notify(*breaches, hours=hours * 4)
    titles = [message["blocks"][0]["text"]["text"] for message in received(httpserver)]
    assert titles == [
        "Lakehouse local: dbt build last run failed, and 1 more",
        "Lakehouse local: dim_a too few rows, and 1 more",
        "Lakehouse local: recovered",
    ]
    second = received(httpserver)[1]["blocks"]
    assert second[3]["text"]["text"] == "Recovered:\n• stale: fx_rates"
    assert second[4]["elements"][0]["text"].endswith(" · <https://lake.example.com/report.html|report>")
    slack.notify(FAILED, hours=20)
    slack.notify(FAILED, hours=27)
    assert received(httpserver)[-1]["text"] == "Lakehouse local: still open: dbt build last run failed"


def test_a_name_cannot_call_the_channel(slack: Desk, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/services/T0/B0/canary").respond_with_data("ok")
    slack.notify(Breach(Cause.ROWS, "<!channel> & co", "1", "<@U1>", "<!here>", "x"))
    (message,) = received(httpserver)
    sections = json.dumps(message["blocks"][1:]) + message["text"]
    assert "<" not in sections and "&lt;!channel&gt; &amp; co" in sections


def test_block_kit_takes_the_longest_message(slack: Desk, httpserver: HTTPServer) -> None:
    """Slack refuses a message beyond its limits as a whole: what does not fit is counted."""
    httpserver.expect_request("/services/T0/B0/canary").respond_with_data("ok")
    long = [Breach(Cause.ROWS, f"{n}&<" * 900, "<" * 9000, "&" * 9000, "o>" * 900, "x" * 9000) for n in range(60)]
    long = [replace(breach, affects=("&" * 900,) * 60, readers=("<" * 900,) * 60) for breach in long]
    slack.notify(*long)
    slack.notify(*long[40:], hours=1)
    first, second = received(httpserver)
    for message in (first, second):
        assert len(message["blocks"]) <= 50
        for block in message["blocks"]:
            told = block["elements"][0]["text"] if block["type"] == "context" else block["text"]["text"]
            assert 0 < len(told) <= (150 if block["type"] == "header" else 3000)
            assert block["type"] == "header" or not re.search("&(?!amp;|lt;|gt;)|[<>]", told), (
                "escaped, and not cut within"
            )
    more = [re.findall(r"and (\d+) more", json.dumps(message)) for message in (first, second)]
    assert more[0][0] == "59" and more[1][0] == "19", "the title"
    named = json.dumps(first["blocks"][2]).count("\\u2022")
    assert str(59 - named) in more[0], "breaches that are not named are counted"
    gone = json.dumps(second["blocks"][3]).count("\\u2022")
    assert str(40 - gone) in more[1], "and so are recoveries"


def test_a_breach_says_what_it_affects_and_who_reads_it(slack: Desk, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/services/T0/B0/canary").respond_with_data("ok")
    tables = tuple(f"fct_{letter}" for letter in "abcdefg")
    slack.lake = slack.lake.with_settings(alerts=("slack", "console"))
    slack.notify(replace(STALE, affects=tables, readers=("revenue_dashboard",)))
    told = "Affects fct_a, fct_b, fct_c, fct_d, fct_e and 2 more. Read by revenue_dashboard."
    (message,) = received(httpserver)
    assert message["blocks"][1]["text"]["text"].splitlines() == [
        "fx_rates is stale: the last came 3 days ago; a delivery every 26 h is promised.",
        told,
        "Owner: Platform · Next: look · docs/runbooks/sla_breach.md#stale",
    ]
    assert f"promised.\n  {told}\n  Owner: Platform." in slack.said[0]


@pytest.mark.parametrize("refusal", [Response("invalid_blocks", status=400), Response("too large", status=413)])
def test_a_message_that_slack_never_takes_does_not_keep_the_next(
    slack: Desk, httpserver: HTTPServer, refusal: Response
) -> None:
    hook = "/services/T0/B0/canary"
    httpserver.expect_ordered_request(hook).respond_with_response(refusal)
    httpserver.expect_ordered_request(hook).respond_with_data("ok")
    (warning,) = slack.notify(STALE)
    assert f"Slack answered {refusal.status_code} (" in warning and "is not sent again" in warning
    assert slack.notify(STALE, FAILED, hours=1) == []
    kept = json.loads((slack.lake.state / "refused" / "slack.jsonl").read_text())
    assert "fx_rates" in json.dumps(kept["value"]) and "canary" not in json.dumps(kept)


def test_a_conversation_that_somebody_deleted_is_begun_anew(app: Desk, httpserver: HTTPServer) -> None:
    app.notify(STALE)
    gone, taken = {"ok": False, "error": "message_not_found"}, {"ok": True, "channel": "C", "ts": "1"}
    httpserver.expect_oneshot_request("/api/chat.update").respond_with_json(gone)
    httpserver.expect_oneshot_request("/api/chat.postMessage").respond_with_json(taken)
    assert app.notify(hours=1) == []
    last = httpserver.log[-1][0].get_json()
    assert last["text"] == "Lakehouse local: recovered" and "thread_ts" not in last


def test_a_message_that_sns_never_takes_does_not_keep_the_next(tmp_path: Path, aws: str) -> None:
    """Given a message beyond SNS's 256 KiB that waits, and one of another version, Then the next is delivered."""
    topic = boto3.client("sns").create_topic(Name="alerts")["TopicArn"]
    desk = Desk(tmp_path, ("sns",), alerts_topic=topic)
    waits = [{"Subject": "s", "Message": "x" * 300_000}, ["not", "a", "message"]]
    memory = {"open": [], "told_at": [], "waiting": waits, "thread": ""}
    desk.lake.state.mkdir(parents=True)
    (desk.lake.state / "alerts.json").write_text(json.dumps({"sns": memory}))
    first, second = desk.notify(STALE)
    assert "SNS did not take it (InvalidParameter)" in first and "no message for sns" in second
    assert json.loads((desk.lake.state / "alerts.json").read_text())["sns"]["waiting"] == []
    assert len((desk.lake.state / "refused" / "sns.jsonl").read_text().splitlines()) == 2


FAILURES = pytest.mark.parametrize("status", [429, 500, None], ids=["429 for an hour", "500", "hanging"])


@contextmanager
def failing(httpserver: HTTPServer, status: int | None) -> Iterator[str]:
    """Address of a receiver that answers everything with a status; with None it takes everything and never answers."""
    if status is None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
        return
    expected = httpserver.expect_request(re.compile(""))
    expected.respond_with_data("slow down", status=status, headers={"Retry-After": "3600"})
    yield httpserver.url_for("")
    httpserver.clear()


@FAILURES
@pytest.mark.slow
def test_what_slack_does_not_take_is_sent_next_time_in_order(
    slack: Desk, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """Given a receiver that fails, Then five seconds pass at most, nothing is raised, and nothing is lost or secret."""
    with failing(httpserver, status) as address, monkeypatch.context() as given:
        given.setenv("LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL", f"{address}/canary")
        started = time.monotonic()
        (warning,) = slack.notify(STALE)
        assert time.monotonic() - started < 5.5
    told = f"Slack answered {status}" if status else "Slack could not be reached (ReadTimeout)"
    assert warning == f"{told}: 1 alerts for slack are kept and sent next time."
    assert "canary" not in (slack.lake.state / "alerts.json").read_text()
    httpserver.expect_request("/services/T0/B0/canary").respond_with_data("ok")
    assert slack.notify(STALE, FAILED, hours=1) == []
    assert ["and 1 more" in message["text"] for message in received(httpserver)] == [False, True]


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that Slack's target waits, instead of the waiting."""
    seconds: list[float] = []
    clock = SimpleNamespace(sleep=seconds.append, monotonic=time.monotonic)
    monkeypatch.setattr("python_ops.watch.alerts.targets.time", clock)
    return seconds


@pytest.mark.parametrize(
    "asked",
    ["1", "0", "", "soon", "-5", "²", "Sun, 01 Mar 2020 12:00:00 GMT", "Wed, 21 Oct 99999999999 07:28:00 GMT"],
)
def test_a_short_retry_after_is_waited_for_and_one_without_sense_is_a_second(
    slack: Desk, httpserver: HTTPServer, waited: list[float], asked: str
) -> None:
    httpserver.expect_oneshot_request("/services/T0/B0/canary").respond_with_data(
        "", status=429, headers={"Retry-After": asked}
    )
    httpserver.expect_request("/services/T0/B0/canary").respond_with_data("ok")
    assert slack.notify(STALE) == []
    assert (waited, len(received(httpserver))) == ([1], 2)


@pytest.mark.parametrize(("seconds", "is_sent"), [(3.5, True), (3600, False)])
def test_a_retry_after_may_be_a_date(
    slack: Desk, httpserver: HTTPServer, waited: list[float], seconds: float, is_sent: bool
) -> None:
    def ask(request: Request) -> Response:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        return Response(status=429, headers={"Retry-After": format_datetime(at, usegmt=True)})

    httpserver.expect_oneshot_request("/services/T0/B0/canary").respond_with_handler(ask)
    httpserver.expect_request("/services/T0/B0/canary").respond_with_data("ok")
    warnings = slack.notify(STALE)
    assert [warning.split(":")[0] for warning in warnings] == ([] if is_sent else ["Slack answered 429"])
    assert len(waited) == is_sent and all(1 <= wait <= seconds for wait in waited)


def test_nobody_listening_and_no_address_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, ("slack", "console"))
    (warning,) = desk.notify(STALE)
    assert "Secret slack_webhook_url is not set" in warning and len(desk.said) == 1, "the others are told all the same"
    monkeypatch.setenv("LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL", "http://127.0.0.1:9/canary")
    (warning,) = desk.notify(STALE)
    assert "could not be reached" in warning and "canary" not in warning


@dataclass
class Topic:
    """An SNS topic in moto, and a queue that it delivers to."""

    arn: str
    queue: str

    def subjects(self) -> list[str]:
        """Subjects of what has come; each once."""
        told = boto3.client("sqs").receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"])["Subject"] for message in told]


@pytest.fixture
def topic(aws: str) -> Topic:
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return Topic(topic, queue)


def test_sns_delivers_to_its_subscribers(tmp_path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a topic's ARN, Then it is told, in the region that the ARN names."""
    with monkeypatch.context() as given:
        given.delenv("AWS_DEFAULT_REGION")
        assert Desk(tmp_path, ("sns",), alerts_topic=topic.arn).notify(STALE) == []
    (message,) = boto3.client("sqs").receive_message(QueueUrl=topic.queue)["Messages"]
    body = json.loads(message["Body"])
    assert body["Subject"] == "Lakehouse local: fx_rates stale"
    assert "fx_rates is stale: the last came 3 days ago; a delivery every 26 h is promised." in body["Message"]
    (warning,) = Desk(tmp_path / "other", ("sns",), alerts_topic=topic.arn + "x").notify(STALE)
    assert "SNS did not take it (NotFound" in warning
    (warning,) = Desk(tmp_path / "none", ("sns",)).notify(STALE)
    assert "LAKEHOUSE_ALERTS_TOPIC is not the ARN of an SNS topic" in warning


@FAILURES
@pytest.mark.slow
def test_what_sns_does_not_take_is_sent_next_time_in_order(
    tmp_path: Path, topic: Topic, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    desk = Desk(tmp_path, ("sns", "console"), alerts_topic=topic.arn)
    with failing(httpserver, status) as address, monkeypatch.context() as given:
        given.setenv("AWS_ENDPOINT_URL", address)
        started = time.monotonic()
        (warning,) = desk.notify(STALE)
        assert time.monotonic() - started < 5.5
        assert status is None or len(httpserver.log) == 1, "asked once"
    assert warning.startswith("SNS did not take it (") and "1 alerts for sns are kept and sent next time" in warning
    assert len(desk.said) == 1, "the others are told all the same"
    assert desk.notify(STALE, FAILED, hours=1) == []
    assert topic.subjects() == [
        "Lakehouse local: fx_rates stale",
        "Lakehouse local: dbt build last run failed, and 1 more",
    ]


@pytest.mark.slow
def test_a_target_that_hangs_leaves_time_for_the_next(
    tmp_path: Path, topic: Topic, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(httpserver, None) as address:
        monkeypatch.setenv("LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL", address)
        started = time.monotonic()
        (warning,) = Desk(tmp_path, ("slack", "sns"), alerts_topic=topic.arn).notify(STALE)
        assert time.monotonic() - started < 5.5
    assert "Slack could not be reached" in warning
    assert topic.subjects() == ["Lakehouse local: fx_rates stale"]


def test_whatever_a_target_raises_is_a_warning_without_its_text(tmp_path: Path) -> None:
    class Broken(Console):
        name = "broken"

        def send(self, payload: Any, seconds: float, thread: str) -> str:
            raise RuntimeError("canary")

    said: list[str] = []
    lake = Lake(Settings(home=tmp_path))
    (warning,) = notify(lake, [STALE], said.append, [Broken(said.append), Console(said.append)], NOW)
    assert warning == "unexpected RuntimeError: 1 alerts for broken are kept and sent next time."
    assert len(said) == 1
    (tmp_path / "state" / "alerts.tmp").mkdir()
    (warning,) = notify(lake, [], said.append, [Console(said.append)], NOW)
    assert "alerts.tmp cannot be written (Is a directory): what was told is told again next time." in warning
