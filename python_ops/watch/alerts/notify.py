"""Sends at most one message per run: if a breach is new, gone, or still open after hours. Unsent ones are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from python_ops.lake.errors import OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.refused import keep
from python_ops.watch.alerts import Breach, pressing
from python_ops.watch.alerts.message import Message
from python_ops.watch.alerts.targets import AlertTarget, Console, Refused, Slack, Sns, Undelivered

REMIND_AFTER = timedelta(hours=6)
_MOST_PER_HOUR = 6
_BUDGET_SECONDS = 5.0
_KEPT = 20


@dataclass
class _Memory:
    """What was sent, per target: breaches that are open there, when it was told, what waits for it, and the
    conversation that it belongs to."""

    open: list[str] = field(default_factory=list)
    told_at: list[str] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
    thread: str = ""


def notify(
    lake: Lake,
    breaches: Sequence[Breach],
    say: Callable[[str], None],
    targets: Sequence[AlertTarget] | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Tells each target what has changed. If one fails, that is a warning, and the others are told.

    All targets together get five seconds. Each may take an equal share of what is left.

    Args:
        breaches: What is open now; acknowledged breaches are not sent.
        say: Prints for the console target.
        targets: Of the environment, when None.
        now: The time.

    Returns:
        Warnings: what could not be delivered and is kept for the next time.
    """
    now = now or datetime.now(UTC)
    end = time.monotonic() + _BUDGET_SECONDS
    warnings = []
    memories = _load(lake)
    targets = _targets(lake, say) if targets is None else targets
    for place, target in enumerate(targets):
        left = max(0.0, end - time.monotonic())
        own_end = time.monotonic() + left / (len(targets) - place)
        memory = memories.setdefault(target.name, _Memory())
        if message := _news(lake, memory, breaches, now):
            memory.waiting = [*memory.waiting, target.payload(message)][-_KEPT:]
            known = {breach.identity for breach in breaches if breach.acknowledged_until}
            was_told = [identity for identity in memory.open if identity in known]
            memory.open = [breach.identity for breach in pressing(breaches)] + was_told
            memory.told_at = [*memory.told_at, now.isoformat()][-_MOST_PER_HOUR:]
        try:
            while memory.waiting:
                try:
                    memory.thread = target.send(memory.waiting[0], own_end - time.monotonic(), memory.thread)
                except (Refused, KeyError, TypeError) as exc:  # the latter: kept by another version of this code
                    why = str(exc) if isinstance(exc, Refused) else f"no message for {target.name}: {exc!r}"
                    place_kept = keep(lake, target.name, why, memory.waiting[0])
                    warnings.append(f"{why}: the alert is in {place_kept} and is not sent again.")
                memory.waiting.pop(0)
        except Exception as exc:  # whatever a target's client raises; its text may hold an address
            why = str(exc) if isinstance(exc, (Undelivered, OpsError)) else f"unexpected {type(exc).__name__}"
            warnings.append(f"{why}: {len(memory.waiting)} alerts for {target.name} are kept and sent next time.")
    try:
        _save(lake, memories)
    except OSError as exc:
        warnings.append(f"{exc.filename} cannot be written ({exc.strerror}): what was told is told again next time.")
    return warnings


def _news(lake: Lake, memory: _Memory, breaches: Sequence[Breach], now: datetime) -> Message | None:
    open_now, loud = {breach.identity for breach in breaches}, pressing(breaches)
    told = [datetime.fromisoformat(at) for at in memory.told_at]
    recovered = [identity for identity in memory.open if identity not in open_now]
    new = {breach.identity for breach in loud} - set(memory.open)
    is_due = bool(loud) and bool(told) and now - told[-1] >= REMIND_AFTER
    if not (new or recovered or is_due):
        return None
    if sum(now - at < timedelta(hours=1) for at in told) >= _MOST_PER_HOUR:
        return None  # what is open is told by the next message
    return Message(
        lake.settings.target, loud, recovered, opens=not memory.open, new=new, at=now,
        runbooks=lake.settings.runbooks_url, report=lake.settings.report_url,
    )  # fmt: skip


def _targets(lake: Lake, say: Callable[[str], None]) -> list[AlertTarget]:
    made: dict[str, Callable[[], AlertTarget]] = {
        "console": lambda: Console(say),
        "slack": lambda: Slack(lake),
        "sns": lambda: Sns(lake),
    }
    return [made[name]() for name in lake.settings.alerts]


def _load(lake: Lake) -> dict[str, _Memory]:
    try:
        data = json.loads((lake.state / "alerts.json").read_text(encoding="utf-8"))
        return {name: _Memory(**memory) for name, memory in data.items()}
    except (OSError, ValueError, TypeError):
        return {}  # the worst that comes of it is one message twice


def _save(lake: Lake, memories: dict[str, _Memory]) -> None:
    record = {name: asdict(memory) for name, memory in memories.items()}
    write_whole(lake.state / "alerts.json", json.dumps(record, indent=1))
