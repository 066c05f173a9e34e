"""HTTP answers, bounded in time, size and tries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from python_ops.lake.errors import OpsError

ATTEMPTS = 5
CONNECT_SECONDS = 10
LONGEST_WAIT = 300.0  # an API that asks for more is left to the next run

_backoff = wait_exponential_jitter(initial=1, max=30)
_log = logging.getLogger(__name__)


class RefusedError(OpsError):
    """The token was refused (401)."""


class _AgainError(OpsError):
    """An answer that may be asked for again, after `wait` seconds where the server said so."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Client:
    """Asks one server.

    Args:
        name: The source, for messages.
        timeout: Seconds for one answer to begin, and between its pieces.
        limit: Bytes of the largest answer that is taken.
        sleep: Waits between tries.
    """

    def __init__(self, name: str, timeout: float, limit: int, sleep: Callable[[float], None]) -> None:
        self.name, self.timeout, self.limit, self.sleep = name, timeout, limit, sleep
        self.session = requests.Session()
        self.session.trust_env = False  # no credentials from a .netrc

    def ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, **options: Any
    ) -> tuple[requests.Response, bytes]:
        """An answer of 2xx or 304, and its body.

        429, 5xx and lost connections are tried again, up to five times in all; after what `Retry-After` says, else
        after 1, 2, 4 … seconds.

        Raises:
            RefusedError: 401.
            OpsError: the last try failed; the server asks for a longer wait than we give; any other answer, or one that
                is too large.
        """
        tries = Retrying(
            retry=retry_if_exception_type(_AgainError), stop=stop_after_attempt(ATTEMPTS), wait=_wait,
            sleep=self.sleep, reraise=True,
        )  # fmt: skip
        return tries(self._once, method, url, headers or {}, options)

    def close(self) -> None:
        """Ends the connection."""
        self.session.close()

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> tuple[requests.Response, bytes]:
        shown = place(url)
        try:
            with self.session.request(
                method, url, headers=dict(headers), timeout=(CONNECT_SECONDS, self.timeout), allow_redirects=False,
                stream=True, **options,
            ) as answer:  # fmt: skip
                self._judge(answer, shown)
                body = bytearray()
                for piece in answer.iter_content(1 << 16):
                    body += piece
                    if len(body) > self.limit:
                        raise OpsError(
                            f"{self.name}: {shown} answered with more than {self.limit} bytes. Nothing landed."
                        )
        except requests.RequestException as exc:
            raise _AgainError(f"{self.name}: {shown} did not answer in full ({type(exc).__name__}).") from exc
        return answer, bytes(body)

    def _judge(self, answer: requests.Response, shown: str) -> None:
        status = answer.status_code
        if status < HTTPStatus.MULTIPLE_CHOICES or status == HTTPStatus.NOT_MODIFIED:
            return
        text = f"{self.name}: {shown} answered {status} {answer.reason}"
        if status == HTTPStatus.UNAUTHORIZED:
            raise RefusedError(f"{text}: the token is refused. Renew the secret.")
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            wait = retry_after(answer.headers.get("Retry-After", ""))
            if wait is not None and wait > LONGEST_WAIT:
                raise OpsError(f"{text} and wants {wait:.0f} s without requests. Run again after that.")
            raise _AgainError(f"{text}.", wait)
        if status < HTTPStatus.BAD_REQUEST:
            raise OpsError(f"{text}: it moved, and the token is not sent elsewhere. Correct the address in the secret.")
        raise OpsError(f"{text}. Look at path and parameters in python_ops/jobs/extract/sources.yml.")


def retry_after(text: str, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or as a date; None where it says nothing."""
    try:
        if text.strip().isdigit():
            return float(text)
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, OverflowError):
        return None


def place(url: str) -> str:
    """An address without user, password and parameters: those may hold secrets."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    wait = error.wait if isinstance(error, _AgainError) and error.wait is not None else _backoff(state)
    _log.info("%s Trying again in %.1f s.", error, wait)
    return wait
