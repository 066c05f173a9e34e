"""Models of full extracts (`full_extracts`): a key that an extract lacks is deleted at the extract's time."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from cdc_duck import Duck
from cdc_scenarios import COLUMNS, SCD1, SCD2, SELECT, event, states, versions

EXTRACTS = {name: value for name, value in SCD2.items() if name not in ("delete_when", "truncate_when")}
STATE = {name: value for name, value in SCD1.items() if name not in ("delete_when", "truncate_when")}


def extract(hour: int, keys: dict[str, Any], batch: int = 1) -> list[tuple[Any, ...]]:
    """All rows of one extract."""
    return [event(key, hour, value, batch) for key, value in keys.items()]


def made(**config: Any) -> Duck:
    lab = Duck()
    lab.bronze("t", COLUMNS)
    for name, strategy in (("history", EXTRACTS), ("state", STATE)):
        lab.model(name, "t", SELECT, **{**strategy, "full_extracts": True, "max_delete_share": 1, **config})
    return lab


def expected(extracts: dict[int, dict[str, Any]]) -> dict[str, list[tuple[Any, ...]]]:
    """The history by itself: per key, runs of extracts that have it with the same value."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    hours = sorted(extracts)
    for key in {key for keys in extracts.values() for key in keys}:
        said = [(hour, extracts[hour].get(key)) for hour in hours]
        starts = [(hour, value) for (hour, value), before in zip(said, [None, *(v for _, v in said)], strict=False)
                  if value != before]  # fmt: skip
        ends = [hour for hour, _ in starts[1:]] + [None]
        found[key] = [(value, hour, end) for (hour, value), end in zip(starts, ends, strict=True) if value is not None]
    return found


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_extracts_in_any_order_give_the_same(order: tuple[int, ...]) -> None:
    """A key that the middle one lacks has a gap; one that only the middle one has is one version."""
    extracts = {
        10: {"stays": "A", "gap": "G", "goes": "X", "changes": "1"},
        20: {"stays": "A", "middle": "M", "goes": "X", "changes": "2"},
        30: {"stays": "A", "gap": "G", "changes": "1"},
    }
    want = {
        "stays": [("A", 10, None)], "gap": [("G", 10, 20), ("G", 30, None)], "goes": [("X", 10, 30)],
        "middle": [("M", 20, 30)], "changes": [("1", 10, 20), ("2", 20, 30), ("1", 30, None)],
    }  # fmt: skip
    assert expected(extracts) == want
    lab = made()
    for batch, place in enumerate(order, 1):
        hour = list(extracts)[place]
        lab.deliver("t", extract(hour, extracts[hour], batch))
        lab.build()
    assert versions(lab, "history") == want
    assert states(lab, "state") == {"stays": ("A",), "gap": ("G",), "changes": ("1",)}
    lab.build(full_refresh=True)
    assert versions(lab, "history") == want


@pytest.mark.parametrize("seed", range(4))
def test_random_extracts_in_random_order_and_batching(seed: int) -> None:
    dice = random.Random(seed)
    hours = dice.sample(range(1, 100), 6)
    extracts = {hour: {k: dice.choice("AB") for k in "klmno" if dice.random() < 0.6} or {"z": "Z"} for hour in hours}
    lab = made()
    for batch, hour in enumerate([*hours, dice.choice(hours)], 1):
        lab.deliver("t", extract(hour, extracts[hour], batch))
        if dice.random() < 0.7:
            lab.build()
    lab.build()
    want = expected(extracts)
    assert versions(lab, "history") == want
    assert states(lab, "state") == {key: (said[-1][0],) for key, said in want.items() if said[-1][2] is None}


def test_one_extract_twice_is_nothing_new() -> None:
    lab = made()
    for batch, hour in enumerate((10, 20, 30), 1):
        lab.deliver("t", extract(hour, {"k": "A", f"only {hour}": "B"}, batch))
        lab.build()
        assert "in order" not in lab.messages["history"], "MERGE on Spark cannot plan it"
    before, commits = lab.rows("history__cdc"), lab.data_commits("history__cdc")
    lab.deliver("t", extract(30, {"k": "A", "only 30": "B"}, 4))
    lab.build()
    assert lab.rows("history__cdc") == before and lab.data_commits("history__cdc") == commits
    assert "duplicates 3" in lab.messages["history"], "two rows and a delete"


@pytest.mark.parametrize(("share", "is_refused"), [(0.5, True), (0.74, True), (0.75, False), (1, False)])
@pytest.mark.parametrize("is_first_load", [False, True])
def test_an_extract_that_lacks_too_many_keys_stops_the_model(
    share: float, is_refused: bool, is_first_load: bool
) -> None:
    lab = made(max_delete_share=share)
    lab.deliver("t", extract(10, dict.fromkeys("klmn", "A")))
    if not is_first_load:
        lab.build()
    lab.deliver("t", extract(20, {"k": "A"}, 2))
    before = None if is_first_load else lab.rows("history__cdc")
    failed = lab.build(check=False)
    assert bool(failed) is is_refused
    if not is_refused:
        return
    assert "lacks 3 of the 4 keys of the extract before it. The first: " in failed["history"]
    assert f"Expected no more than max_delete_share={share}. Nothing was written." in failed["history"]
    assert "_batch_id <> 2" in failed["history"] and "config(max_delete_share=1)" in failed["history"]
    assert (is_first_load and lab.warehouse.kind("lab.history__cdc") is None) or lab.rows("history__cdc") == before

    lab.model("history", "t", SELECT, **EXTRACTS, full_extracts=True, max_delete_share=1)
    lab.build("history")
    assert versions(lab, "history") == expected({10: dict.fromkeys("klmn", "A"), 20: {"k": "A"}})


def test_a_late_extract_is_held_to_the_share_at_the_extract_after_it() -> None:
    lab = made(max_delete_share=0.5)
    for batch, (hour, keys) in enumerate(((10, "k"), (30, "k"), (20, "klmn")), 1):
        lab.deliver("t", extract(hour, dict.fromkeys(keys, "A"), batch))
        failed = lab.build(check=False)
        assert bool(failed) is (batch == 3)
    assert "lacks 3 of the 4 keys" in failed["history"]


def test_rows_with_times_of_their_own_are_no_extract() -> None:
    lab = made()
    lab.deliver("t", [event("k", 10, "A"), event("l", 20, "A")])
    failed = lab.build(check=False)["history"]
    assert "full_extracts: expected one value of seq, ts in all rows of an extract" in failed
    assert "got 2 in _batch_id 1; nothing was written" in failed and "Fix: " in failed


def test_what_deletes_is_part_of_what_stored_events_mean() -> None:
    lab = made()
    lab.deliver("t", extract(10, {"k": "A"}))
    lab.build()
    lab.model("history", "t", SELECT, **EXTRACTS)
    assert "delete_when: expected a full extract lacks the key" in lab.build("history", check=False)["history"]
