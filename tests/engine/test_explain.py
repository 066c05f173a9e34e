"""`dbt run-operation cdc_explain`: what became of each event of a key, and what the operation refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from cdc_duck import Duck
from cdc_scenarios import COLUMNS, SCD1, SCD2, SELECT, SELECT_UNSENT, deleted, event
from rendering import CompilationError

COMPOSITE = SELECT.replace("k,", "k, cast(move as int) as part,", 1)


def told(lines: list[str]) -> list[tuple[str, str, str]]:
    """Sequence, batch and what became of it, of the lines below the two headings."""
    found = (re.fullmatch(r"(.+?)  +(\d*) +(?:change|delete|truncate) +(.*)", line) for line in lines[2:])
    return [(match[1], match[2], match[3]) for match in found if match]


def played(*batches: list[tuple[Any, ...]], select: str = SELECT, **config: Any) -> Duck:
    """A model `m` after a build of each batch."""
    lab = Duck()
    lab.bronze("t", COLUMNS)
    lab.model("m", "t", select, **{**SCD2, **config})
    for rows in batches:
        lab.deliver("t", rows)
        lab.build()
    return lab


def test_each_event_of_a_history_has_its_reason() -> None:
    lab = played(
        [event("k", 10, "A", c="x"), event("k", 30, "B", time=5), event("other", 10, "O")],
        [event("k", 20, "B", 2), event("k", 10, "A", 2, c="x"), event("k", 30, "Z", 2)],
        [deleted("k", 40, 3), event("k", 50, "C", 3), event(None, 60, None, 3, op="t")],
        [event("k", 70, "D", 4), event("k", 71, "D", 4), event("k", 71, "D", 4), event("k", 71, None, 4, op="d")],
        on_tie="warn", ignore_null_updates=["c"],
    )  # fmt: skip
    lab.deliver("t", [event("k", 80, "F", 5), event("k", 65, "L", 3)])
    day = "2025-01-0"
    assert told(lab.explain("m", "k")) == [
        ("10", "1", f"version from {day}1 10:00:00 to {day}1 20:00:00, closed by the event at 30"),
        ("10", "2", "duplicate of the event of batch 1"),
        ("20", "2", "hidden: the next event has the same effective time, and only the last one shows; "
                    "late: a later event was applied in an earlier batch"),
        ("30", "1", f"version from {day}1 20:00:00 to {day}2 16:00:00, closed by a delete at 40; clamped: its time "
                    f"{day}1 05:00:00 is before that of an earlier event, so it counts at {day}1 20:00:00; "
                    "filled: c from 10"),
        ("30", "2", "tied with the event of batch 1, which won (on_tie=warn: the lower hash of the payload wins)"),
        ("40", "3", "deletes the key"),
        ("50", "3", f"version from {day}3 02:00:00 to {day}3 12:00:00, closed by a truncate at 60"),
        ("60", "", "closes the key"),
        ("70", "4", f"version from {day}3 22:00:00 to {day}3 23:00:00, closed by a delete at 71"),
        ("71", "4", "deletes the key"),
        ("71", "4", "tied with the event of batch 4, which won (on_tie=warn: a delete wins)"),
        ("71", "4", "tied with the event of batch 4, which won (on_tie=warn: a delete wins)"),
        ("65", "3", "not applied: the SELECT gave no such event when its batch was applied (a changed where clause, or "
                    "a row that was changed in the source)"),
        ("80", "5", "not applied: the next run reads it"),
    ]  # fmt: skip


def test_a_tie_that_stops_the_model_is_told_before_it_is_resolved() -> None:
    lab = played([event("k", 10, "A")])
    lab.deliver("t", [event("k", 10, "B", 2)])
    assert "1 tie(s)" in lab.build(check=False)["m"]
    assert told(lab.explain("m", "k"))[1] == (
        "10", "2", "tied with the event of batch 1, which stands "
                   "(on_tie=error: the model stops until one of the two is excluded)",
    )  # fmt: skip


def test_events_of_a_state_are_ended_by_later_ones() -> None:
    rows = [event("k", 10, "A"), event("k", 20, "B"), deleted("k", 30), event("k", 40, "C")]
    lab = played(rows, **SCD1)
    assert [line[2] for line in told(lab.explain("m", "k"))] == [
        "hidden: ended by the event at 20", "hidden: ended by a delete at 30",
        "deletes the key", "the state of the key",
    ]  # fmt: skip


def test_a_run_of_equal_events_shows_with_its_last() -> None:
    lab = played([event("k", hour, "A") for hour in (10, 20, 30)])
    hidden = "hidden: equal on the tracked columns to the next event; the version shows with 30"
    first, second, last = (line[2] for line in told(lab.explain("m", "k")))
    assert (first, second) == (hidden, hidden)
    assert last == "version from 2025-01-01 10:00:00, open"


def test_a_key_change_is_told_of_both_keys_and_names_them_only_with_values() -> None:
    lab = played(
        [event("1", 10, "A", c="big"), deleted("1", 20, move=7), event("2", 20, "A", unsent=["c"], move=7)],
        select=SELECT_UNSENT, moved_from="_move",
    )  # fmt: skip
    old, new = lab.explain("m", "1"), lab.explain("m", "2")
    assert told(old)[-1][2] == "deletes the key; key moved to another key"
    assert "; key moved from another key; filled: c from the key it moved from" in told(new)[0][2]
    assert "values are not shown (values: true shows them)" in new[0] and not re.search("big|= A", "".join(old + new))
    shown = lab.explain("m", "2", values=True)
    assert shown[0] == "m (cdc_scd2), k 2"
    assert "key moved from 1;" in shown[2] and shown[2].endswith("values: a=A, c=big, _move=7")


@pytest.mark.parametrize("key", [["k", 1], {"part": 1, "k": "k"}, ["k", "1"]])
def test_a_composite_key_is_a_list_or_a_mapping(key: Any) -> None:
    lab = played([event("k", 10, "A", move=1), event("k", 20, "B", move=2)], select=COMPOSITE, unique_key=["k", "part"])
    assert [line[0] for line in told(lab.explain("m", key))] == ["10"]


def test_columns_stand_under_each_other() -> None:
    lab = played([event("k", 1, "A"), event("k", 1000, "B")])
    assert {line.index("version") for line in lab.explain("m", "k")[2:]} == {len("sequence  batch  event   ")}


def test_a_view_over_one_history_may_be_named() -> None:
    lab = played([event("k", 10, "A")])
    lab.sql("current", "m", "select k from lab.m where is_current", materialized="view")
    assert lab.explain("current", "k") == lab.explain("m", "k")


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        ("mm", "k", "model: expected a CDC model (m, unbuilt), got mm. Fix: did you mean m?"),
        ("plain", "k", "model: expected a model with incremental_strategy cdc_scd1 or cdc_scd2, or one that reads "
                       "exactly one such model, got plain, which reads none. Fix: name one of m, unbuilt."),
        ("unbuilt", ["k", 1], "cdc_explain: expected the storage table lab.unbuilt__cdc, got no table of this name. "
                       "Fix: run dbt build --select unbuilt first."),
        ("m", "k", "key: expected k string, part int, got 1 value(s). Fix: write key: {k: <value>, part: <value>}."),
        ("m", {"k": "k"}, "key: expected k string, part int, got k. Fix: write"),
        ("m", {"k": "k", "prt": 1}, "key: expected k string, part int, got k, prt. Fix: write"),
        ("m", ["k", "one"], "got a value of part that is no int. Fix: write"),
        ("m", ["k", None], "got a value of part that is no int. Fix: write"),
        ("m", ["k", [1]], "got a value of part that is no int. Fix: write"),
        ("m", ["secret", 1], "got a key without one. Fix: check the value and its type (k string, part int)."),
        ("m", ["it's $\\", 1], "got a key without one."),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_refused(model: str, key: Any, message: str) -> None:
    lab = played([event("k", 10, "A", move=1)], select=COMPOSITE, unique_key=["k", "part"])
    lab.model("unbuilt", "t", COMPOSITE, **{**SCD2, "unique_key": ["k", "part"]})
    lab.sql("plain", "t", "select 1 as one", materialized="table")
    with pytest.raises(CompilationError) as failed:
        lab.explain(model, key)
    assert message in str(failed.value) and "secret" not in str(failed.value)
