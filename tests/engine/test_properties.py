"""The engine against an independent fold: every order, batching and replay of the same changes, one result."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
from cdc_duck import Duck
from cdc_fold import Event
from cdc_histories import ANYTHING, MOVES, NOTHING, TIMES, deliveries, histories, parcels_in_order
from cdc_sets import MODELS, add_models, bronze_row, differences, expected, result, stored_twice

KILLING = 7  # with this seed and FEW, every mutant of test_mutants.py is killed
SEED = int(os.environ.get("LAKEHOUSE_TEST_SEED", KILLING))
FEW, MANY = (300, 3), (50_000, 6)  # keys and batches
KEYS_IN_ORDER = 100

in_two_sizes = pytest.mark.parametrize(
    ("keys", "batches"), [pytest.param(*FEW, id="few"), pytest.param(*MANY, id="many", marks=pytest.mark.campaign)]
)


@cache
def changes(keys: int, source: str, seed: int = SEED) -> list[Event]:
    return histories(seed, keys, ties=source == "tied")


@cache
def applied(name: str, keys: int, batches: int) -> Duck:
    """A model after random deliveries, one build per batch; after each, its rows equal the fold's, and `__changes` has
    every key that changed.
    """
    lab = Duck()
    add_models(lab, name)
    before: dict[str, list[tuple[Any, ...]]] = {}
    events = list[Event]()
    for number, parcel in enumerate(deliveries(SEED, changes(keys, MODELS[name][0]), batches), 1):
        lab.deliver(MODELS[name][0], [bronze_row(event, number) for event in parcel])
        lab.build()
        events += parcel
        after = result(lab, name)
        assert differences(after, expected(events, name)) == [], number
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        told = {row["k"] for row in lab.rows(f"{name}__changes") if row["_batch_id"] == number}
        assert changed <= told, "readers with a mark miss these keys"
        before = after
    return lab


@in_two_sizes
@pytest.mark.parametrize("name", MODELS)
def test_random_deliveries_equal_the_fold_and_a_replay_changes_nothing(name: str, keys: int, batches: int) -> None:
    lab = applied(name, keys, batches)
    events = changes(keys, MODELS[name][0])
    before = result(lab, name)
    assert stored_twice(lab, name) == []

    commits = lab.data_commits(f"{name}__cdc")
    lab.deliver(MODELS[name][0], [bronze_row(event, batches + 1) for event in reversed(events)])
    lab.build()
    assert result(lab, name) == before
    assert lab.data_commits(f"{name}__cdc") == commits
    version = lab.version(f"{name}__cdc")
    lab.build()
    assert lab.version(f"{name}__cdc") == version
    assert lab.messages[name].startswith("nothing new"), lab.messages

    lab.build(full_refresh=True)
    assert result(lab, name) == before
    assert stored_twice(lab, name) == []


def told_in_order(lab: Duck, name: str, keys: int) -> dict[str, tuple[bool, dict[str, int]]]:
    """After the parcels of events in order, one build each: whether it went the short way, and its counts."""
    add_models(lab, name)
    source, events, told = MODELS[name][0], list[Event](), {}
    for number, (parcel, (found, _)) in enumerate(parcels_in_order(SEED, keys, ties=source == "tied").items(), 1):
        lab.deliver(source, [bronze_row(event, number) for event in found])
        lab.build()
        events += found
        assert differences(result(lab, name), expected(events, name)) == [], parcel
        told[parcel] = (any(way in lab.messages[name] for way in (", in order", ", in one pass")), lab.counts[name])
    return told


@pytest.mark.parametrize("name", MODELS)
def test_both_ways_give_the_same_and_the_short_one_is_taken_where_it_is_proven(name: str) -> None:
    """After every parcel the fold's view; counts, and at the end the storage, as of an engine without the short way."""
    keys, options = KEYS_IN_ORDER, MODELS[name][3]
    lab, long = Duck(), Duck(edit=lambda file, text: text.replace("run.profile.get('in_order')", "false"))
    told, told_long = told_in_order(lab, name, keys), told_in_order(long, name, keys)
    refused = {ANYTHING} | ({TIMES} if options.scd2 else set()) | ({TIMES, MOVES} if options.moved_from else set())
    parcels = parcels_in_order(SEED, keys)
    expected_short = {parcel: what not in refused for parcel, (_, what) in parcels.items()}
    assert expected_short | {"first load": not options.moved_from} == {
        parcel: is_short for parcel, (is_short, _) in told.items()
    }
    assert {what for _, what in parcels.values()} == {NOTHING, TIMES, MOVES, ANYTHING}
    assert not any(is_short for is_short, _ in told_long.values())
    assert [counts for _, counts in told.values()] == [counts for _, counts in told_long.values()]
    stored = [sorted(map(str, one.rows(f"{name}__cdc"))) for one in (lab, long)]
    assert stored[0] == stored[1]


@pytest.mark.parametrize("name", ["versions", "states_moved"])
def test_a_bitmap_of_the_touched_keys_leaves_out_no_row(name: str) -> None:
    """As of a large table, whatever the size."""
    lab, plain = Duck(edit=lambda file, text: text.replace("rows < 200000", "rows < 0")), Duck()
    assert told_in_order(lab, name, 60) == told_in_order(plain, name, 60)
    stored = [sorted(map(str, one.rows(f"{name}__cdc"))) for one in (lab, plain)]
    assert stored[0] == stored[1]
    asked = [sum("set var " in statement for statement in one.warehouse.statements) for one in (lab, plain)]
    assert asked[0] > 0 and asked[1] == 0
