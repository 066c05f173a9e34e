"""Breaches that somebody has acknowledged: until a time they stay listed, but send no alert and cause no exit 3.

Kept in `state/acknowledged.json`, by the breach's identity. After their time they have no effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake


def acknowledged(lake: Lake, now: datetime) -> dict[str, str]:
    """Identities that are acknowledged at a time, and until when, ISO 8601.

    Raises:
        OpsError: the file cannot be read.
    """
    path = _path(lake)
    if not path.exists():
        return {}
    try:
        given: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return {identity: until for identity, until in given.items() if datetime.fromisoformat(until) > now}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise OpsError(f"{path} cannot be read ({type(exc).__name__}). Delete it and acknowledge again.") from exc


def acknowledge(lake: Lake, open_now: Iterable[str], name: str, until: str, now: datetime) -> list[str]:
    """Acknowledges open breaches.

    Args:
        open_now: Identities of the breaches that are open.
        name: One of them (`stale: fx_rates`), or their subject (`fx_rates`), which may have several.
        until: Date or time, ISO 8601; UTC where it says no zone. Empty takes the acknowledgement back.
        now: The time.

    Returns:
        Identities of those.

    Raises:
        ConfigError: no open breach has that name, or the time is none or has passed.
    """
    known = list(open_now)
    chosen = [identity for identity in known if name in (identity, identity.split(": ", 1)[1])]
    if not chosen:
        near = get_close_matches(name, [*known, *(i.split(": ", 1)[1] for i in known)], 3) or known
        told = f"Open are: {', '.join(near)}." if known else "No service level is breached."
        raise ConfigError(f"No open breach is called {name!r}. {told}")
    end = None
    if until:
        try:
            end = datetime.fromisoformat(until)
        except ValueError as exc:
            raise ConfigError(f"--until {until!r} is no time. Give a date, such as 2026-12-24, or a time.") from exc
        end = end if end.tzinfo else end.replace(tzinfo=UTC)
        if end <= now:
            raise ConfigError(f"--until {until} has passed. Give a time to come.")
    kept = {i: at for i, at in acknowledged(lake, now).items() if i not in chosen}
    if end:
        kept |= dict.fromkeys(chosen, end.astimezone(UTC).isoformat(timespec="seconds"))
    write_whole(_path(lake), json.dumps(kept, indent=1))
    return chosen


def _path(lake: Lake) -> Path:
    return lake.state / "acknowledged.json"
