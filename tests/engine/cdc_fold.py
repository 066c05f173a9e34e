"""The semantics of docs/cdc.md as a plain Python fold: slow, obvious, and independent of the engine.

It takes the whole set of changes at once and never looks at order of arrival, batches or stored state.
Times are integers; `None` as an end is an open version.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

DELETE, TRUNCATE, UPSERT = "d", "t", "u"


@dataclass(frozen=True)
class Event:
    """One delivered change. `values` has one entry per attribute; `unsent` names those it did not carry."""

    key: str | None
    sequence: int
    time: int
    op: str
    values: tuple[str | None, ...] = ()
    unsent: frozenset[str] = frozenset()
    move: int | None = None


@dataclass(frozen=True)
class Options:
    """The options of one model. `columns` are the attributes, in the order of `Event.values`."""

    columns: tuple[str, ...]
    scd2: bool = True
    tracked: tuple[str, ...] = ()
    ignore_null: tuple[str, ...] = ()
    unsent: bool = False
    moved_from: bool = False
    warn_on_tie: bool = False


@dataclass
class State:
    """An event with its effective values while the fold runs."""

    event: Event
    values: dict[str, Any] = field(default_factory=dict)
    time: int = 0


class TieError(Exception):
    """Two payloads at one key and sequence."""


def fold(events: Iterable[Event], options: Options) -> dict[str, list[tuple[Any, ...]]]:
    """Final rows per key: scd2 (values…, from, to), scd1 (values…).

    Raises:
        TieError: two payloads at one key and sequence, and ties are errors.
    """
    unique = _resolve(set(events), options)
    truncates = sorted((e for e in unique if e.op == TRUNCATE), key=lambda e: e.sequence)
    per_key: dict[str, list[Event]] = defaultdict(list)
    for event in unique:
        if event.key is not None:
            per_key[event.key].append(event)
    timelines = {key: _with_truncates(found, truncates, options) for key, found in per_key.items()}
    states = _fill(timelines, options)
    rows = {
        key: (_versions(found, options) if options.scd2 else _last(found, options)) for key, found in states.items()
    }
    return {key: found for key, found in rows.items() if found}


def _payload(event: Event, options: Options) -> tuple[Any, ...]:
    return (
        event.op,
        event.values,
        event.unsent if options.unsent else None,
        event.move if options.moved_from else None,
    )


def _resolve(events: set[Event], options: Options) -> list[Event]:
    """Repeats are one event, of the earliest time; ties refused, or decided for a delete, else by a payload hash."""
    groups: dict[tuple[str | None, int], list[Event]] = defaultdict(list)
    for event in events:
        groups[event.key, event.sequence].append(event)
    chosen = []
    for group in groups.values():
        if len({_payload(event, options) for event in group}) > 1 and not options.warn_on_tie:
            raise TieError(group)
        winner = min(group, key=lambda e: _rank(e, options))
        repeats = [event for event in group if _payload(event, options) == _payload(winner, options)]
        chosen.append(min(repeats, key=lambda e: e.time))
    return chosen


def _rank(event: Event, options: Options) -> tuple[Any, ...]:
    """Deletes first; then the hash that docs/cdc.md describes."""
    payload: dict[str, Any] = dict(zip(options.columns, event.values, strict=True))
    if options.unsent and event.unsent:
        payload["_unsent"] = sorted(event.unsent)
    if options.moved_from:
        payload["_move"] = event.move
    text = json.dumps(
        {name: payload[name] for name in sorted(payload) if payload[name] is not None},
        separators=(",", ":"), ensure_ascii=False,
    )  # fmt: skip
    return (event.op != DELETE, hashlib.sha256(text.encode()).hexdigest())


def instant(time: int) -> str:
    """A fold's time as the engine's timestamp text: hours since 2025-01-01."""
    day, hour = divmod(time, 24)
    return f"2025-{1 + day // 28:02d}-{1 + day % 28:02d}T{hour:02d}:00:00.000000"


def _with_truncates(events: list[Event], truncates: Sequence[Event], options: Options) -> list[Event]:
    """A truncate is a delete of every key that has an earlier event."""
    events = sorted(events, key=lambda e: e.sequence)
    positions = {truncate.sequence for truncate in truncates}
    first = events[0].sequence
    clashing = [e for e in events if e.sequence in positions and e.op != DELETE]
    if clashing and not options.warn_on_tie:
        raise TieError(clashing)
    kept = [event for event in events if event.sequence not in positions]
    added = [
        Event(events[0].key, truncate.sequence, truncate.time, DELETE)
        for truncate in truncates
        if truncate.sequence > first
    ]
    return sorted(kept + added, key=lambda e: e.sequence)


def _fill(timelines: dict[str, list[Event]], options: Options) -> dict[str, list[State]]:
    """Effective values. Key changes are followed in sequence order: an old key's values are known before the move."""
    givers = {
        event.move: (event.key, event.sequence)
        for events in timelines.values()
        for event in events
        if event.op == DELETE and event.move is not None
    }
    before: dict[tuple[str | None, int], dict[str, Any]] = {}
    current: dict[str | None, dict[str, Any]] = defaultdict(dict)
    states: dict[str, list[State]] = {key: [] for key in timelines}
    ordered = sorted(
        ((event, key) for key, events in timelines.items() for event in events),
        key=lambda pair: (pair[0].sequence, pair[0].op != DELETE),
    )
    for event, key in ordered:
        if event.op == DELETE:
            before[key, event.sequence] = current[key]
            current[key] = {}
            states[key].append(State(event))
            continue
        sent = {name: value for name, value in zip(options.columns, event.values, strict=True)
                if not (options.unsent and name in event.unsent)
                and not (name in options.ignore_null and value is None)}  # fmt: skip
        earlier = current[key]
        giver = givers.get(event.move) if options.moved_from and event.move is not None else None
        if giver and giver[0] != key and len(sent) < len(options.columns):
            earlier = before.get(giver, {})
        values = {name: sent.get(name, earlier.get(name)) for name in options.columns}
        current[key] = values
        states[key].append(State(event, values))
    return states


def _last(states: list[State], options: Options) -> list[tuple[Any, ...]]:
    if not states or states[-1].event.op == DELETE:
        return []
    return [tuple(states[-1].values[name] for name in options.columns)]


def _versions(states: list[State], options: Options) -> list[tuple[Any, ...]]:
    """Clamp, collapse, then runs of equal tracked values."""
    latest = -1
    for state in states:
        latest = max(latest, state.event.time)
        state.time = latest
    shown = [
        state
        for state, following in itertools.zip_longest(states, states[1:])
        if following is None or following.time != state.time
    ]
    versions: list[list[Any]] = []
    open_values: tuple[Any, ...] | None = None
    for state in shown:
        if state.event.op == DELETE:
            if open_values is not None:
                versions[-1][2] = state.time
            open_values = None
            continue
        tracked = tuple(state.values[name] for name in options.tracked)
        row = tuple(state.values[name] for name in options.columns)
        if open_values == tracked and open_values is not None:
            versions[-1][0] = row
            continue
        if open_values is not None:
            versions[-1][2] = state.time
        versions.append([row, state.time, None])
        open_values = tracked
    return [(*row, start, end) for row, start, end in versions]
