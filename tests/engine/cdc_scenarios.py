"""The scenarios S1-S14 of docs/cdc.md as tables, for DuckDB (tests/engine) and for Spark (tests/e2e).

Sequences are hours since `ORIGIN` too: a version (value, from, to) is in the same numbers as its events; None is open.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field
from typing import Any

from cdc_sets import SCD1, SCD2, Tables

ORIGIN = dt.datetime(2025, 1, 1)
ARRIVED = dt.datetime(2025, 12, 31)
COLUMNS = "k string, a string, c string"
SELECT = "k, a, c, _op, seq, ts, _arrived_at, _batch_id"
SELECT_UNSENT = f"{SELECT}, _unsent, move as _move"
STRATEGIES = {"history": SCD2, "current": SCD1}


def event(key: Any, seq: int, a: Any, batch: int = 1, op: str = "u", **other: Any) -> tuple[Any, ...]:
    """A bronze row: at hour `seq` the key has value `a`."""
    at = ORIGIN + dt.timedelta(hours=other.get("time", seq))
    unsent, move = other.get("unsent"), other.get("move")
    return (key, a, other.get("c"), op, seq, at, unsent, move, other.get("arrived", ARRIVED), batch)


def deleted(key: Any, seq: int, batch: int = 1, **other: Any) -> tuple[Any, ...]:
    """A bronze row: at hour `seq` the key is deleted."""
    return event(key, seq, None, batch, "d", **other)


def versions(lab: Tables, model: str, *columns: str) -> dict[Any, list[tuple[Any, ...]]]:
    """Per key: (values…, from, to) in hours, oldest first; None is open."""
    found: dict[Any, list[tuple[Any, ...]]] = {}
    hours = lambda t: None if t is None else int((t - ORIGIN).total_seconds() // 3600)  # noqa: E731
    for row in sorted(lab.rows(model, "*"), key=lambda r: r["valid_from"]):
        values = (row[column] for column in columns or ("a",))
        found.setdefault(row["k"], []).append((*values, hours(row["valid_from"]), hours(row["valid_to"])))
    return found


def states(lab: Tables, model: str, *columns: str) -> dict[Any, tuple[Any, ...]]:
    """Per living key: its values."""
    return {row["k"]: tuple(row[column] for column in columns or ("a",)) for row in lab.rows(model, "*")}


@dataclass(frozen=True)
class Scenario:
    """Batches of events, and the versions that must be there after the last; living keys are those with an open one."""

    batches: tuple[list[tuple[Any, ...]], ...]
    versions: dict[str, list[tuple[Any, ...]]]
    group: str = "plain"

    def states(self) -> dict[str, tuple[Any, ...]]:
        return {key: found[-1][:-2] for key, found in self.versions.items() if found[-1][-1] is None}


@dataclass(frozen=True)
class Group:
    """Scenarios of one configuration share a model: their keys differ."""

    options: dict[str, Any] = field(default_factory=dict)
    select: str = SELECT
    shown: tuple[str, ...] = ("a",)


GROUPS = {
    "plain": Group(),
    "truncated": Group(),
    "warn": Group({"on_tie": "warn"}),
    "ignoring_null": Group({"ignore_null_updates": True}, shown=("a", "c")),
    "moved": Group({"moved_from": "_move"}, SELECT_UNSENT, ("a", "c")),
}

_TRUNCATE = event(None, 40, None, op="t")

SCENARIOS = {
    "S1 first load": Scenario(
        ([event("S1", 10, "A"), event("S1", 20, "B"), event("S1", 30, "C")],),
        {"S1": [("A", 10, 20), ("B", 20, 30), ("C", 30, None)]},
    ),
    "S2 a late event between two": Scenario(
        ([event("S2", 10, "A"), event("S2", 30, "C")], [event("S2", 20, "B")]),
        {"S2": [("A", 10, 20), ("B", 20, 30), ("C", 30, None)]},
    ),
    "S3 a late event before all": Scenario(
        ([event("S3", 20, "B")], [event("S3", 10, "A")]), {"S3": [("A", 10, 20), ("B", 20, None)]}
    ),
    "S4 a late event before a delete": Scenario(
        ([event("S4", 17, "ACTIVE"), deleted("S4", 20)], [event("S4", 18, "SUSPENDED")]),
        {"S4": [("ACTIVE", 17, 18), ("SUSPENDED", 18, 20)]},
    ),
    "S5 a delete of a key that comes later": Scenario(
        ([deleted("S5", 20)], [event("S5", 10, "A")]), {"S5": [("A", 10, 20)]}
    ),
    "S6 insert again after a delete": Scenario(
        ([event("S6", 10, "A"), deleted("S6", 20), event("S6", 30, "A")],), {"S6": [("A", 10, 20), ("A", 30, None)]}
    ),
    "S7 duplicates in a batch and over batches": Scenario(
        ([event("S7", 10, "A"), event("S7", 10, "A"), event("S7", 20, "B")],
         [event("S7", 20, "B"), event("S7", 10, "A")]),
        {"S7": [("A", 10, 20), ("B", 20, None)]},
    ),
    "S8 a late event splits a run": Scenario(
        ([event("S8", 10, "A"), event("S8", 20, "A"), event("S8", 30, "B")], [event("S8", 15, "B")]),
        {"S8": [("A", 10, 15), ("B", 15, 20), ("A", 20, 30), ("B", 30, None)]},
    ),
    "S9 a late event moves a start": Scenario(
        ([event("S9", 10, "A"), event("S9", 30, "B")], [event("S9", 20, "B")]),
        {"S9": [("A", 10, 20), ("B", 20, None)]},
    ),
    "S9 a late event joins a run": Scenario(
        ([event("S9b", 10, "A"), event("S9b", 30, "B")], [event("S9b", 20, "A")]),
        {"S9b": [("A", 10, 30), ("B", 30, None)]},
    ),
    "S10 of two payloads the same one wins in any order": Scenario(
        ([event("S10", 10, "A")], [event("S10", 10, "B")]), {"S10": [("B", 10, None)]}, "warn"
    ),
    "S10 a delete wins": Scenario(
        ([event("S10d", 10, "A"), event("S10d", 20, "B")], [deleted("S10d", 20)]), {"S10d": [("A", 10, 20)]}, "warn"
    ),
    "S11 NULL is a value": Scenario(
        ([event("S11", 10, None), event("S11", 20, "x"), event("S11", 30, None)],),
        {"S11": [(None, 10, 20), ("x", 20, 30), (None, 30, None)]},
    ),
    "S12 a late value flows forward where NULL means not sent": Scenario(
        ([event("S12", 10, "a", c="X"), event("S12", 30, None, c="Y")], [event("S12", 20, "b")]),
        {"S12": [("a", "X", 10, 20), ("b", "X", 20, 30), ("b", "Y", 30, None)]}, "ignoring_null",
    ),
    "S13 a key change hands over what was not sent": Scenario(
        ([event("1", 10, "A", c="big"), deleted("1", 20, move=7)], [event("2", 20, "A", unsent=["c"], move=7)]),
        {"1": [("A", "big", 10, 20)], "2": [("A", "big", 20, None)]}, "moved",
    ),
    "S13 a late event of the old key reaches the new one": Scenario(
        ([event("3", 10, "A", c="big"), deleted("3", 20, move=8)], [event("4", 20, "A", unsent=["c"], move=8)],
         [event("3", 15, "A", c="bigger")]),
        {"3": [("A", "big", 10, 15), ("A", "bigger", 15, 20)], "4": [("A", "bigger", 20, None)]}, "moved",
    ),
    "S14 a truncate closes every key": Scenario(
        ([event("a", 10, "A"), event("z", 20, "Z")], [_TRUNCATE, event("new", 50, "N")]),
        {"a": [("A", 10, 40)], "z": [("Z", 20, 40)], "new": [("N", 50, None)]}, "truncated",
    ),
    "S14 a truncate closes what arrives after it": Scenario(
        ([], [_TRUNCATE], [event("late", 35, "L")]), {"late": [("L", 35, 40)]}, "truncated",
    ),
}  # fmt: skip


# Events that stop the model before anything is written, and what it says.
BAD_EVENTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "no_key": (event(None, 10, "A"), "1 event(s) without a key (k)"),
    "no_sequence": (
        ("k", "A", None, "u", None, ORIGIN, None, None, ORIGIN, 1), "1 event(s) without a sequence (seq)",
    ),
    "no_time": (("k", "A", None, "u", 10, None, None, None, ORIGIN, 1), "1 event(s) without ts"),
    "no_batch": (("k", "A", None, "u", 10, ORIGIN, None, None, ORIGIN, None), "1 event(s) without _batch_id"),
    "future": (event("k", 72, "A", arrived=ORIGIN), "more than a day after their arrival"),
}  # fmt: skip


def batches(group: str) -> list[list[tuple[Any, ...]]]:
    """The batches of a group's scenarios, numbered from 1."""
    found = [scenario.batches for scenario in SCENARIOS.values() if scenario.group == group]
    return numbered([list(itertools.chain(*parts)) for parts in itertools.zip_longest(*found, fillvalue=[])])


def numbered(parcels: list[list[tuple[Any, ...]]]) -> list[list[tuple[Any, ...]]]:
    """The same rows, each with the number of its batch."""
    return [[(*row[:-1], number) for row in parcel] for number, parcel in enumerate(parcels, 1)]


def configuration(group: str, strategy: str) -> tuple[str, dict[str, Any]]:
    """SELECT and configuration of a group's model; a state has no use for times."""
    made = GROUPS[group]
    select = made.select if strategy == "history" else made.select.replace(" ts,", "")
    return select, {**STRATEGIES[strategy], **made.options}


def differences(lab: Tables, group: str, strategy: str, model: str) -> dict[str, Any]:
    """Scenario: what is there and what should be, where they differ."""
    read = versions if strategy == "history" else states
    found = read(lab, model, *GROUPS[group].shown)
    wrong = {}
    for name, scenario in SCENARIOS.items():
        if scenario.group == group:
            want = scenario.versions if strategy == "history" else scenario.states()
            got = {key: found[key] for key in scenario.versions if key in found}
            if got != want:
                wrong[name] = (got, want)
    return wrong
