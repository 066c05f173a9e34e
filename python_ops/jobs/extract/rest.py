"""A list of an API, page by page, in the manner of CRM vendors: bearer token, changes since a time, next pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from python_ops.jobs.extract.reader import HttpReader, Row
from python_ops.jobs.extract.sources import Source
from python_ops.lake.errors import OpsError
from python_ops.lake.http import RefusedError, place
from python_ops.lake.secrets import Secret, Secrets
from python_ops.lake.secrets.forms import checked

PAGE_BYTES = 64 * 1024 * 1024


class RestReader(HttpReader):
    """Reads a list of an API, page by page.

    The secret has `url`, and `token`; or `token_url`, `client_id` and `client_secret`, for a token that expires
    (OAuth 2, client credentials). A token that is refused, also in the middle of a pull, is renewed once; then the
    secret is read afresh, and its previous version tried.

    An API's order is not relied on: the watermark moves when the last page has landed.
    """

    def __init__(self, source: Source, secrets: Secrets, sleep: Callable[[float], None]) -> None:
        super().__init__(source, PAGE_BYTES, sleep)
        self.secrets = secrets
        self.tokens: dict[str, str] = {}

    def now(self) -> datetime:
        """The Date header of an answer; this machine's clock if there is none."""
        answer, _ = self._get(self._address(), {self.source.page_param: "1"} if self.source.page_param else {})
        try:
            return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
        except (KeyError, ValueError):
            return datetime.now(UTC)

    def pages(self, since: datetime | None, until: datetime) -> Iterator[Sequence[Row]]:
        given = self.source
        asked = {
            given.since_param: _text(since) if since else "",
            given.until_param: _text(until),
            given.page_param: str(given.page_rows),
        }
        parameters = {name: value for name, value in asked.items() if name and value}
        start = self._address()
        url, query = start, dict(parameters)
        visited: set[int] = set()
        while True:
            place_of_page = hash((url, tuple(sorted(query.items()))))
            if place_of_page in visited:
                raise OpsError(
                    f"{given.name}: {place(url)} names a page as its next that was read already. Nothing landed."
                )
            visited.add(place_of_page)
            _, answer = self._get(url, query)
            yield [self._row(record) for record in self._records(answer)]
            following = _at(answer, given.next) if given.next else None
            if following in (None, "", False):
                return
            if given.next_param:
                query = {**parameters, given.next_param: str(following)}
            else:
                url, query = self._same_server(urljoin(url, str(following)), start), {}

    def _records(self, answer: Any) -> list[Any]:
        found = _at(answer, self.source.records) if self.source.records else answer
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise OpsError(
                f"{self.source.name}: the answer has no list of objects at {self.source.records or 'its top'!r}. "
                "Correct `records` in python_ops/jobs/extract/sources.yml. Nothing landed."
            )
        return found

    def _row(self, record: Mapping[str, Any]) -> Row:
        """A record under the contract's names. Fields that no column is made from keep their names."""
        paths = self.source.columns
        used = {path.split(".", 1)[0] for path in paths.values()}
        row = {name: value for name, value in record.items() if name not in used}
        return {**row, **{name: _at(record, path) for name, path in paths.items()}}

    def _same_server(self, url: str, start: str) -> str:
        """A next link, refused if it leads to another server: the token must not go there."""
        if urlsplit(url)[:2] != urlsplit(start)[:2]:
            raise OpsError(f"{self.source.name}: the next page is on another server, {place(url)}. It was not asked.")
        return url

    def _address(self) -> str:
        base = str(checked(self.secrets.get(self.source.secret), "extract.rest")["url"])
        return base.rstrip("/") + self.source.path

    def _get(self, url: str, query: Mapping[str, str]) -> tuple[requests.Response, Any]:
        answer, body = self.secrets.with_rotation(
            self.source.secret, lambda secret: self._ask(secret, url, query), lambda exc: isinstance(exc, RefusedError)
        )
        try:
            return answer, json.loads(body, parse_float=Decimal)
        except ValueError as exc:
            raise OpsError(f"{self.source.name}: {place(url)} did not answer with JSON. Nothing landed.") from exc

    def _ask(self, secret: Secret, url: str, query: Mapping[str, str]) -> tuple[requests.Response, bytes]:
        fields = checked(secret, "extract.rest")
        if not fields.get("token_url"):
            return self._ask_with(str(fields["token"]), url, query)
        known = hashlib.sha256(secret.reveal().encode()).hexdigest()
        if token := self.tokens.get(known):
            try:
                return self._ask_with(token, url, query)
            except RefusedError:
                del self.tokens[known]  # expired: it is renewed once
        self.tokens[known] = self._new_token(fields)
        return self._ask_with(self.tokens[known], url, query)

    def _ask_with(self, token: str, url: str, query: Mapping[str, str]) -> tuple[requests.Response, bytes]:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        return self.client.ask("GET", url, headers, params=dict(query))

    def _new_token(self, fields: Mapping[str, Any]) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": fields.get("client_id", ""),
            "client_secret": fields.get("client_secret", ""),
        }
        _, body = self.client.ask("POST", str(fields["token_url"]), {"Accept": "application/json"}, data=form)
        try:
            token = str(json.loads(body)["access_token"])
        except (ValueError, KeyError, TypeError):
            raise OpsError(f"{self.source.name}: {place(str(fields['token_url']))} gave no access_token.") from None
        return Secret("access token", token).reveal()  # masked from now on


def _at(value: Any, path: str) -> Any:
    """The value at a dotted path of an answer, or None."""
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _text(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
