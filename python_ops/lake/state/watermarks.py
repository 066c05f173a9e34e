"""How far each source was extracted: the (timestamp, key) of the last row that is safely in a landing file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from python_ops.lake.errors import ConfigError
from python_ops.lake.state.store import Store


@dataclass(frozen=True, order=True)
class Watermark:
    """A position in a source's order.

    Attributes:
        at: ISO 8601 in UTC, microseconds: its texts sort as its times do.
        key: Key of the last row at that time, as text; tells rows of one time apart.
    """

    at: str
    key: str = ""

    def __post_init__(self) -> None:
        try:
            moment = datetime.fromisoformat(self.at)
        except ValueError as exc:
            raise ConfigError(f"A watermark is an ISO 8601 time with its zone, not {self.at!r}.") from exc
        if moment.tzinfo is None:
            raise ConfigError(f"A watermark needs a time zone, such as {self.at}+00:00.")
        object.__setattr__(self, "at", moment.astimezone(UTC).isoformat(timespec="microseconds"))


def read(store: Store, source: str) -> tuple[Watermark | None, int]:
    """A source's watermark, and the revision that `advance` wants; (None, 0) where there is none."""
    record = store.get("watermark", source)
    return (Watermark(record.value["at"], record.value["key"]), record.revision) if record else (None, 0)


def advance(store: Store, source: str, to: Watermark, revision: int, force: bool = False) -> None:
    """Moves a watermark forward, after what it covers is safe.

    Args:
        to: The new position.
        revision: What `read` gave.
        force: Also backwards.

    Raises:
        ConfigError: it would go backwards.
        BusyError: another process moved it meanwhile.
    """
    given, _ = read(store, source)
    if given is not None and to < given and not force:
        raise ConfigError(
            f"The watermark of {source} is {given.at} {given.key}; {to.at} {to.key} is before it and would be "
            "extracted again. `--force` sets it anyway."
        )
    written = datetime.now(UTC).isoformat(timespec="seconds")
    store.put("watermark", source, {"at": to.at, "key": to.key, "written_at": written}, revision)
