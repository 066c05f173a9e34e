"""Random change histories, packed as the keys of one table, and their random delivery."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

from cdc_fold import DELETE, TRUNCATE, UPSERT, Event

COLUMNS = ("a", "b", "c")
VALUES = (None, "", "x", "y", "z")


def histories(seed: int, keys: int, *, truncates: bool = True, ties: bool = False) -> list[Event]:
    """Distinct changes of `keys` keys: deletes, re-inserts, no-ops, clock skew, unsent values, key changes with chains,
    truncates, repeats at another time and, if asked for, ties."""
    rng = random.Random(seed)
    events: list[Event] = []
    names = [f"k{number:05d}" for number in rng.sample(range(10 * keys), keys)]
    for name in names:
        events += _history(rng, name)
    events += _key_changes(rng, names)
    used = {(event.key, event.sequence) for event in events}
    assert len(used) == len(events)
    if truncates:
        events += [Event(None, at, rng.randint(at - 4, at + 4), TRUNCATE, (None,) * 3) for at in (41, 83)]
    repeated = rng.sample(events, len(events) // 10)
    events += [replace(event, time=max(0, event.time + rng.choice((-7, 3, 30)))) for event in repeated]
    if ties:
        twins = rng.sample([event for event in events if event.op == UPSERT], len(events) // 8)
        events += [_twin(rng, event) for event in twins]
        events += [_twin(rng, event) for event in twins[::7]]
        events += [Event(None, 52, rng.randint(48, 56), TRUNCATE, (None,) * 3)]
    return list(dict.fromkeys(events))


def deliveries(seed: int, events: Sequence[Event], batches: int) -> list[list[Event]]:
    """The same changes in random batches and order, some delivered again in the same or a later batch."""
    rng = random.Random(seed)
    parcels: list[list[Event]] = [[] for _ in range(batches)]
    for event in events:
        first = rng.randrange(batches)
        parcels[first].append(event)
        while rng.random() < 0.2:
            parcels[rng.randrange(first, batches)].append(event)
    for parcel in parcels:
        rng.shuffle(parcel)
    return parcels


def _history(rng: random.Random, key: str) -> list[Event]:
    """Changes of one key at even sequences; times mostly follow the sequence, some collide or go back."""
    events = []
    for sequence in sorted(rng.sample(range(2, 100, 2), rng.choice((1, 2, 3, 4, 6, 9)))):
        time = max(0, sequence + rng.choice((0, 0, 0, 0, -1, 1, -9, 12)))
        if rng.random() < 0.2:
            events.append(Event(key, sequence, time, DELETE, (None,) * 3))
        elif events and events[-1].op == UPSERT and rng.random() < 0.25:
            events.append(replace(events[-1], sequence=sequence, time=time))
        else:
            events.append(_upsert(rng, key, sequence, time))
    return events


def _upsert(rng: random.Random, key: str, sequence: int, time: int, move: int | None = None) -> Event:
    unsent = frozenset(name for name in COLUMNS if rng.random() < (0.6 if move else 0.15))
    values = tuple(None if name in unsent else rng.choice(VALUES) for name in COLUMNS)
    return Event(key, sequence, time, UPSERT, values, unsent, move)


def _key_changes(rng: random.Random, names: Sequence[str]) -> list[Event]:
    """Delete of one key and create of another at one odd sequence; some go on to a third key, some come back."""
    events = []
    moves = 0
    for place in range(0, len(names) - 3, 12):
        chain = rng.choice(([0, 1], [0, 1, 2], [0, 1, 0], [0, 1, 2, 1]))
        positions = sorted(rng.sample([*range(21, 41, 2), *range(43, 83, 2), *range(85, 101, 2)], len(chain) - 1))
        for (old, new), sequence in zip(itertools.pairwise(chain), positions, strict=True):
            moves += 1
            events.append(Event(names[place + old], sequence, sequence, DELETE, (None,) * 3, frozenset(), moves))
            events.append(_upsert(rng, names[place + new], sequence, sequence, moves))
    return events


def _twin(rng: random.Random, event: Event) -> Event:
    """Another payload at the key and sequence of an event."""
    if rng.random() < 0.3 and event.key is not None and event.move is None:
        return replace(event, op=DELETE, values=(None,) * 3, unsent=frozenset())
    return replace(event, values=tuple(rng.choice(VALUES) for _ in COLUMNS), unsent=frozenset())
