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
    repeated = rng.sample(events, len(events) // 4)
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


# What of a parcel below keeps it from the short way: nothing, times (of no meaning to scd1), what may be a key change,
# or anything, for every model.
NOTHING, TIMES, MOVES, ANYTHING = "nothing", "times", "moves", "anything"


def parcels_in_order(seed: int, keys: int, *, ties: bool = False) -> dict[str, tuple[list[Event], str]]:
    """Deliveries whose events lie, but for what a parcel's name says, after all before them.

    Times go in steps of four sequences, so that some events of a key share one.
    """
    rng = random.Random(seed)
    names = [f"k{number:04d}" for number in rng.sample(range(10 * keys), keys)]

    def between(start: int, end: int, sent: bool = False) -> list[Event]:
        found = []
        for name in names:
            for sequence in sorted(rng.sample(range(start, end, 2), rng.choice((0, 0, 1, 1, 2, 4)))):
                time = sequence - sequence % 4
                if found and found[-1].key == name and found[-1].op == UPSERT and rng.random() < 0.4:
                    found.append(replace(found[-1], sequence=sequence, time=time))
                elif not sent and rng.random() < 0.2:
                    found.append(Event(name, sequence, time, DELETE, (None,) * 3))
                else:
                    found.append(_upsert(rng, name, sequence, time, sent=sent))
        return found

    def again(event: Event, time: int) -> Event:
        if ties and event.op == UPSERT:
            return replace(event, values=("tie",) * 3, unsent=frozenset())
        return replace(event, time=time)

    first, updates, mixed = between(4, 40), between(40, 80, sent=True), between(80, 120)
    held = [event for event in updates if rng.random() < 0.3]
    late, early, later = held[::3], [e for e in held if e.sequence < 60], [e for e in held if e.sequence >= 60]
    mixed_again = [
        *between(120, 160),
        Event(names[0], 151, 148, DELETE, (None,) * 3, move=1),
        Event(names[1], 151, 148, UPSERT, (None, "x", "y"), frozenset("a"), 1),
    ]
    twice, back, before = between(160, 200), between(200, 240), between(240, 280)
    (place, swapped), *_ = (
        (n, e) for n, e in enumerate(back) if n and back[n - 1].key == e.key and back[n - 1].time < e.time
    )
    back[place - 1 : place + 1] = [
        replace(back[place - 1], time=swapped.time),
        replace(swapped, time=back[place - 1].time),
    ]
    last_of_twice = list({event.key: event for event in twice}.values())
    last_of = {event.key: event for event in twice + back}
    before = [replace(e, time=last_of[e.key].time - 2) if e.key in last_of and e.sequence < 250 else e for e in before]
    end = max(event.sequence for event in before)
    return {
        "first load": (first, ANYTHING),
        "updates": ([event for event in updates if event not in held], NOTHING),
        "late ones, repeats and a truncate": (
            [*mixed, *late, *rng.sample(mixed, 9), Event(None, 101, 100, TRUNCATE, (None,) * 3)], ANYTHING,
        ),
        "deletes, values that are not sent, and a key change": (mixed_again, MOVES),
        "late ones": ([e for e in early if e not in late], ANYTHING),
        "late ones, after the late ones before": ([e for e in later if e not in late], ANYTHING),
        "two at one key and sequence": ([*twice, *(again(e, e.time + 1) for e in last_of_twice[:9])], ANYTHING),
        "a time that goes back": (back, MOVES),
        "a time before what is applied": (before, TIMES),
        "the last sequence again": ([again(e, e.time + 30) for e in before if e.sequence == end], ANYTHING),
        "updates again": (between(320, 360, sent=True), NOTHING),
        "a truncate": ([*between(360, 400), Event(None, 381, 380, TRUNCATE, (None,) * 3)], ANYTHING),
        "updates after a truncate": (between(400, 440, sent=True), NOTHING),
        "values that are not sent": (between(440, 480), MOVES),
        "values that are not sent again": (between(480, 520), MOVES),
    }  # fmt: skip


def later_updates(seed: int, events: Sequence[Event]) -> list[Event]:
    """One or two whole updates, after all of these events, of half of their keys."""
    rng = random.Random(seed)
    keys = sorted({event.key for event in events if event.key is not None})
    end = max(max(event.sequence, event.time) for event in events) + 1
    return [
        _upsert(rng, key, sequence, sequence, sent=True)
        for key in rng.sample(keys, len(keys) // 2)
        for sequence in rng.sample(range(end, end + 40), rng.choice((1, 2)))
    ]


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


def _upsert(
    rng: random.Random, key: str, sequence: int, time: int, move: int | None = None, sent: bool = False
) -> Event:
    unsent = frozenset(name for name in COLUMNS if not sent and rng.random() < (0.6 if move else 0.15))
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
