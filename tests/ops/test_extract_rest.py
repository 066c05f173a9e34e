"""Extraction from an API in the manner of CRM vendors, over real HTTP."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from extraction import failed, lake_with, landed, mark, pull, source, use, versions
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler

from python_ops.lake.http import retry_after
from python_ops.lake.lake import Lake
from python_ops.lake.state.watermarks import Watermark, advance, read

TOKEN = "canary-token-81f3"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIELDS = {
    "path": "/crm/v3/tickets", "records": "results", "next": "paging.next.after", "next_param": "after",
    "since_param": "updated_since", "page_param": "limit", "page_rows": 2,
}  # fmt: skip


def ticket(number: int, minutes_ago: float, **more: Any) -> dict[str, Any]:
    at = (NOW - timedelta(minutes=minutes_ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"ticket_id": number, "subject": f"no. {number}", "hours": 1.50, "updated_at": at, **more}


class Desk:
    """The API: pages of two, changes since a time, one token that is accepted."""

    def __init__(self, server: HTTPServer) -> None:
        self.server, self.tickets, self.token, self.now = server, [ticket(n, 100 - n) for n in range(5)], TOKEN, NOW
        self.asked: list[dict[str, str]] = []
        self.before: Callable[[Request], Response | None] = lambda request: None
        server.expect_request("/crm/v3/tickets").respond_with_handler(self.answer)

    def answer(self, request: Request) -> Response:
        self.asked.append(dict(request.args))
        if (early := self.before(request)) is not None:
            return early
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return Response("who are you", 401)
        since = request.args.get("updated_since", "")
        start, size = int(request.args.get("after", 0)), int(request.args["limit"])
        found = [t for t in self.tickets if str(t["updated_at"]) >= since]
        body: dict[str, Any] = {"results": found[start : start + size]}
        if start + size < len(found):
            body["paging"] = {"next": {"after": str(start + size)}}
        return Response(json.dumps(body))


@pytest.fixture
def desk(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(httpserver)
    date = lambda handler, timestamp=None: format_datetime(desk.now, usegmt=True)  # noqa: E731
    monkeypatch.setattr(WSGIRequestHandler, "date_time_string", date)
    return desk


@pytest.fixture
def lake(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    use(monkeypatch, source("rest", "jsonl", **FIELDS))
    return lake_with(tmp_path / "lake", tickets={"url": desk.server.url_for(""), "token": TOKEN})


def test_all_pages_land_and_then_only_what_changed(desk: Desk, lake: Lake) -> None:
    """Given pages of two, When a ticket changes, Then it alone lands: the overlap is read again and has landed."""
    assert (pull(lake).rows, len(landed(lake))) == (5, 5)
    assert mark(lake) == Watermark(desk.tickets[4]["updated_at"], "4")
    again = pull(lake)
    assert (again.rows, again.files, again.again) == (0, (), 5)
    assert desk.asked[-1]["updated_since"] < desk.tickets[4]["updated_at"], "the overlap"
    desk.tickets[1] = ticket(1, 0.5, subject="changed")
    assert pull(lake).rows == 1
    assert landed(lake)[-1]["subject"] == "changed"


def test_numbers_keep_their_digits_and_unknown_fields_stay(desk: Desk, lake: Lake) -> None:
    digits = "12345678901234567.123456789012345678"
    desk.before = lambda request: Response(
        f'{{"results": [{{"ticket_id": 9007199254740993, "hours": {digits}, "new": {{"a": [1.10]}}, '
        f'"updated_at": "2026-03-01T11:00:00Z"}}]}}'
    )
    pull(lake)
    (file,) = (lake.landing / "tickets").iterdir()
    text = gzip.decompress(file.read_bytes()).decode()
    assert digits in text and "9007199254740993" in text and '"new":{"a":[1.10]}' in text


def test_a_path_gives_a_column(desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"ticket_id": "id", "updated_at": "properties.changed", "subject": "properties.title"}
    use(monkeypatch, source("rest", "jsonl", columns=columns, **FIELDS))
    given = {"id": 7, "properties": {"changed": "2026-03-01T11:00:00Z", "title": "t", "x": 1}, "archived": False}
    desk.before = lambda request: Response(json.dumps({"results": [given]}))
    pull(lake)
    assert landed(lake) == [{"archived": False, "ticket_id": 7, "updated_at": "2026-03-01T11:00:00Z", "subject": "t"}]


def test_a_next_link_is_followed_on_the_same_server_only(
    desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, source("rest", "jsonl", **{**FIELDS, "next": "next", "next_param": ""}))
    link = ["/crm/v3/tickets?page=2"]
    desk.before = lambda request: Response(
        json.dumps({"results": [ticket(9, 5)], "next": None if "page" in request.args else link[0]})
    )
    assert pull(lake).rows + len(landed(lake)) > 1
    link[0] = "http://127.0.0.1:9/steal"
    assert "another server, http://127.0.0.1:9/steal. It was not asked" in failed(lake)
    link[0] = "?limit=2"
    desk.before = lambda request: Response(json.dumps({"results": [], "next": "?page=2"}))
    assert "was read already" in failed(lake)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again_in_bounds(
    desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("python_ops.jobs.extract._sleep", lambda stop, seconds: waits.append(seconds))
    left = [3]

    def before(request: Request) -> Response | None:
        left[0] -= 1
        return Response("busy", status, headers={"Retry-After": "7"} if status == 429 else {}) if left[0] >= 0 else None

    desk.before = before
    assert pull(lake).rows == 5
    assert len(waits) == 3
    assert waits == [7.0] * 3 if status == 429 else waits == sorted(waits)
    left[0] = 1000
    assert f"answered {status}" in failed(lake)
    assert len(waits) == 3 + 4, "five tries in all"


def test_a_wait_beyond_our_patience_ends_the_pull(desk: Desk, lake: Lake) -> None:
    desk.before = lambda request: Response("", 429, headers={"Retry-After": "3600"})
    assert "wants 3600 s without requests. Run again after that" in failed(lake)
    assert len(desk.asked) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("17") == 17.0
    assert retry_after(format_datetime(NOW + timedelta(seconds=9), usegmt=True), NOW) == 9.0
    assert retry_after(format_datetime(NOW - timedelta(seconds=9), usegmt=True), NOW) == 0.0
    assert [retry_after(text) for text in ("", "soon", "²", "Fri, 31 Dec 99999 23:59:59 GMT")] == [None] * 4


def test_a_token_that_expires_in_the_middle_is_renewed_once(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, source("rest", "jsonl", **FIELDS))
    given = {"url": desk.server.url_for(""), "client_id": "desk-client", "client_secret": "canary-client-secret"}
    lake = lake_with(tmp_path / "lake", tickets={**given, "token_url": desk.server.url_for("/oauth/token")})
    issued: list[str] = []

    def token(request: Request) -> Response:
        assert request.form["grant_type"] == "client_credentials"
        assert request.form["client_secret"] == "canary-client-secret"
        issued.append(f"canary-access-{len(issued)}")
        desk.token = issued[-1]
        return Response(json.dumps({"access_token": issued[-1], "expires_in": 60}))

    desk.server.expect_request("/oauth/token").respond_with_handler(token)
    requests = [0]

    def expire(request: Request) -> None:
        requests[0] += 1
        if requests[0] == 3:
            desk.token = "of another time"

    desk.before = expire
    assert pull(lake).rows == 5
    assert len(issued) == 2
    desk.server.clear()
    desk.server.expect_request("/oauth/token").respond_with_handler(token)
    desk.server.expect_request("/crm/v3/tickets").respond_with_data("no", 401)
    message = failed(lake)
    assert "the token is refused" in message and "canary" not in message


def test_a_rotated_token_is_read_afresh(desk: Desk, lake: Lake) -> None:
    """Given a token in the secret, When it is rotated during a pull, Then the secret is read again."""
    requests = [0]

    def rotate(request: Request) -> None:
        requests[0] += 1
        if requests[0] == 3:
            desk.token = "canary-token-rotated"
            lake_with(lake.home, tickets={"url": desk.server.url_for(""), "token": desk.token})

    desk.before = rotate
    assert pull(lake).rows == 5


def test_a_refused_token_is_named_and_not_shown(desk: Desk, lake: Lake) -> None:
    desk.token = "another"
    message = failed(lake)
    assert "answered 401" in message and "Renew the secret" in message and TOKEN not in message
    for file in lake.home.rglob("*"):
        if file.is_file() and file.name != "secrets.json":
            assert TOKEN.encode() not in file.read_bytes(), file


def test_the_sources_clock_counts_not_ours(desk: Desk, lake: Lake) -> None:
    """Given a machine whose clock is wrong by a year, When it pulls, Then it lands the same, once."""
    for wrong in (NOW - timedelta(days=365), NOW + timedelta(days=365)):
        with time_machine.travel(wrong):
            pull(lake)
    assert set(versions(lake).values()) == {1} and len(versions(lake)) == 5
    desk.tickets.append(ticket(9, -30))
    result = pull(lake)
    assert result.rows == 0
    assert "1 rows have their updated_at after the source's clock" in " ".join(result.warnings)
    desk.now += timedelta(hours=1)
    assert pull(lake).rows == 1


def test_rows_without_a_time_land_and_are_reported(desk: Desk, lake: Lake) -> None:
    desk.tickets += [ticket(7, 1, updated_at=None), ticket(8, 1, updated_at="yesterday")]
    desk.before = lambda request: Response(json.dumps({"results": desk.tickets}))
    result = pull(lake)
    assert (result.rows, result.without_time) == (7, 2)
    assert "2 rows landed without a usable updated_at" in result.warnings


def test_a_watermark_ahead_of_the_source_is_refused_with_both_times(desk: Desk, lake: Lake) -> None:
    pull(lake)
    store = lake.store
    advance(store, "tickets", Watermark("2031-01-01T00:00:00Z"), read(store, "tickets")[1])
    message = failed(lake)
    assert "2031-01-01T00:00:00" in message and "2026-03-01T12:00:00" in message
    assert "lakeops watermark set tickets 2026-03-01T10:24:00.000000+00:00 --key '4' --force --execute" in message
    assert len(landed(lake)) == 5


def test_a_watermark_moved_by_hand_reads_again_or_says_what_is_skipped(desk: Desk, lake: Lake) -> None:
    pull(lake)
    store = lake.store
    advance(store, "tickets", Watermark(desk.tickets[0]["updated_at"]), read(store, "tickets")[1], force=True)
    result = pull(lake)
    assert "the watermark was set back from 2026-03-01T10:24:00" in result.warnings[0]
    assert set(versions(lake).values()) == {2}, "landed again: what was seen counts for its own watermark only"
    store.delete("watermark", "tickets", read(store, "tickets")[1])
    assert pull(lake).rows == 5
    advance(store, "tickets", Watermark("2026-03-01T11:00:00Z"), read(store, "tickets")[1])
    assert "set ahead of the last landing file" in pull(lake).warnings[0]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Response("<html>"), "did not answer with JSON"),
        (Response('{"items": []}'), "no list of objects at 'results'"),
        (Response('{"results": [1]}'), "no list of objects"),
        (Response("gone", 404), "answered 404 NOT FOUND. Look at path"),
        (Response("", 302, headers={"Location": "http://127.0.0.1:9/"}), "it moved"),
    ],
)
def test_a_wrong_answer_lands_nothing(desk: Desk, lake: Lake, answer: Response, told: str) -> None:
    desk.before = lambda request: answer
    assert told in failed(lake)
    assert not landed(lake) and mark(lake) is None
    assert not list(lake.landing.rglob("*.tmp"))
