"""Credentials: looked up in one order, kept for minutes, never shown.

Every job takes its credentials from `Lake.secrets`. A `Secret` prints as `***`; what was revealed in this
process is masked in the command line's error messages as well (`mask`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from python_ops.lake.errors import ConfigError
from python_ops.lake.secrets.providers import CURRENT, PREVIOUS, Provider

TTL_SECONDS = 300.0

T = TypeVar("T")
_revealed: set[str] = set()


class Secret:
    """The text of a secret, masked wherever it is printed."""

    __slots__ = ("_text", "name")

    def __init__(self, name: str, text: str) -> None:
        self.name, self._text = name, text

    def reveal(self) -> str:
        """The text of the secret. From now on `mask` hides it."""
        _revealed.update(_parts(self._text))
        return self._text

    def json(self) -> Mapping[str, Any]:
        """The fields of a secret that is a JSON object.

        Raises:
            ConfigError: it is not one.
        """
        try:
            found = json.loads(self.reveal())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ConfigError(f'Secret {self.name} must be a JSON object, such as {{"host": …, "user": …}}.') from None
        return found

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, ***)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class Secrets:
    """Secrets of an environment: the first provider that has a name gives it.

    Args:
        providers: In the order in which they are asked.
        ttl: Seconds for which an answer is kept.
        clock: Monotonic seconds.
    """

    def __init__(
        self, providers: Sequence[Provider], ttl: float = TTL_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.providers, self.ttl, self.clock = tuple(providers), ttl, clock
        self._kept: dict[str, tuple[float, Secret]] = {}

    def get(self, name: str) -> Secret:
        """A secret.

        Raises:
            ConfigError: no provider has it; the text says where it was looked for, in order, and never a value.
            OpsError: a provider did not answer.
        """
        kept = self._kept.get(name)
        if kept and kept[0] > self.clock():
            return kept[1]
        for provider in self.providers:
            if (text := provider.get(name)) is not None:
                secret = Secret(name, text)
                self._kept[name] = (self.clock() + self.ttl, secret)
                return secret
        places = "; then ".join(provider.where(name) for provider in self.providers)
        raise ConfigError(f"Secret {name} is not set. Looked for {places}. Set it in one of them.")

    def previous(self, name: str) -> Secret | None:
        """The version before the current one, where a provider keeps it."""
        texts = (provider.get(name, PREVIOUS) for provider in self.providers)
        return next((Secret(name, text) for text in texts if text is not None), None)

    def source(self, name: str) -> str | None:
        """Where the secret is found, or None."""
        return next((p.where(name) for p in self.providers if p.get(name, CURRENT) is not None), None)

    def with_rotation(self, name: str, use: Callable[[Secret], T], is_refused: Callable[[Exception], bool]) -> T:
        """Calls `use` with a secret; when that is refused, with a fresh one, and then with the previous version.

        A rotation changes the secret and the system that checks it one after the other. Meanwhile either version may be
        right.

        Args:
            use: What needs it, such as opening a connection.
            is_refused: Whether an exception means that the credentials were refused; any other is raised at once.
        """
        tried: dict[str, Exception] = {}
        for secret in self._candidates(name):
            if secret is None or secret.reveal() in tried:
                continue
            try:
                return use(secret)
            except Exception as exc:
                if not is_refused(exc):
                    raise
                tried[secret.reveal()] = exc
        raise list(tried.values())[-1]

    def _candidates(self, name: str) -> Iterator[Secret | None]:
        """A secret as it is known, as it is now, and as it was before."""
        yield self.get(name)
        self._kept.pop(name, None)
        yield self.get(name)
        yield self.previous(name)


def mask(text: str) -> str:
    """The text with everything that was revealed in this process as `***`."""
    for value in sorted(_revealed, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _parts(text: str) -> set[str]:
    """The text, and the values of a JSON object that may be secret (not hosts, ports and the like)."""
    values = {text}
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if isinstance(fields, dict):
        open_fields = {"host", "port", "dbname", "database", "user", "account", "warehouse", "role", "schema"}
        open_fields |= {"ssl", "sslmode"}
        open_fields |= {name for name in ("url", "token_url") if not re.search("[@?]", str(fields.get(name)))}
        values |= {str(value) for name, value in fields.items() if name not in open_fields}
    return {value for value in values if len(value) >= 4}
