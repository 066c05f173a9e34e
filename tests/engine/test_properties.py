"""The engine against an independent fold: every order, batching and replay of the same changes, one result."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
from cdc_duck import Duck
from cdc_fold import Event
from cdc_histories import deliveries, histories
from cdc_sets import MODELS, add_models, bronze_row, differences, expected, result, stored_twice

SEED = int(os.environ.get("LAKEHOUSE_TEST_SEED", "20250303"))
FEW, MANY = (400, 4), (50_000, 6)  # keys and batches

pytestmark = pytest.mark.parametrize(
    ("keys", "batches"), [pytest.param(*FEW, id="few"), pytest.param(*MANY, id="many", marks=pytest.mark.campaign)]
)


@cache
def changes(keys: int, source: str) -> list[Event]:
    return histories(SEED + (source == "tied"), keys, ties=source == "tied")


@cache
def applied(name: str, keys: int, batches: int) -> Duck:
    """A model after random deliveries, one build per batch; after each, `__changes` has every key that changed."""
    lab = Duck()
    add_models(lab, name)
    before: dict[str, list[tuple[Any, ...]]] = {}
    for number, parcel in enumerate(deliveries(SEED, changes(keys, MODELS[name][0]), batches), 1):
        lab.deliver(MODELS[name][0], [bronze_row(event, number) for event in parcel])
        lab.build()
        after = result(lab, name)
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        told = {row["k"] for row in lab.rows(f"{name}__changes") if row["_batch_id"] == number}
        assert changed <= told, "readers with a mark miss these keys"
        before = after
    return lab


@pytest.mark.parametrize("name", MODELS)
def test_random_deliveries_equal_the_fold_and_a_replay_changes_nothing(name: str, keys: int, batches: int) -> None:
    lab = applied(name, keys, batches)
    events = changes(keys, MODELS[name][0])
    before = result(lab, name)
    assert differences(before, expected(events, name)) == []
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
