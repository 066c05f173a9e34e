"""`as_of`, `as_known_at` and `at_version`: what they give, against PostgreSQL's truth, and what they refuse."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cdc_duck import Duck
from cdc_scenarios import COLUMNS, SCD1, SCD2, SELECT, deleted, event
from recorded_truth import BATCHES, ENTITIES, Entity, differences, truth_after, truth_history
from rendering import CompilationError
from test_recorded_changes import applied_in_order, by_entity, recorded, texts, travelled

WITHOUT_ARRIVAL = SELECT.replace("_arrived_at, ", "")


@by_entity
def test_what_was_known_after_each_batch_is_what_postgresql_held_then(entity: Entity) -> None:
    """Given all batches applied, Then each earlier state comes back from the events, key changes and truncates too."""
    lab, _ = applied_in_order(entity)
    for batch in BATCHES:
        rows = [row for row in travelled(lab, "as_known_at", batch=batch + 1) if row.get("is_current", True)]
        wrong = differences(truth_after(entity, batch), entity.by_key(texts(entity, rows)))
        assert not wrong, f"after batch {batch}: {len(wrong)} wrong, the first: {wrong[:3]}"


@pytest.mark.parametrize("entity", [e for e in ENTITIES if e.history], ids=lambda entity: entity.table)
def test_as_of_gives_the_state_of_the_audit_at_a_moment(entity: Entity) -> None:
    lab, _ = applied_in_order(entity)
    snapshot = max(row[-3] for row in recorded(entity, 0)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    truth = truth_history(entity, snapshot)
    starts = sorted({version[0] for versions in truth.values() for version in versions})
    for moment in (starts[0], starts[len(starts) // 2], starts[-1]):
        expected = {
            key: [v for v in versions if v[0] <= moment and (v[1] is None or v[1] > moment)]
            for key, versions in truth.items()
        }
        found = entity.versions_by_key(texts(entity, travelled(lab, "as_of", moment)))
        assert found and found == {key: versions for key, versions in expected.items() if versions}


def lab_of(select: str = SELECT, **config: Any) -> Duck:
    lab = Duck()
    lab.bronze("t", COLUMNS)
    lab.model("model", "t", select, **config)
    lab.deliver("t", [event("k", 10, "A"), event("k", 30, "C")])
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 2), deleted("k", 40, 2)])
    lab.build()
    return lab


def test_a_late_event_and_a_delete_are_not_known_before_they_arrive() -> None:
    lab = lab_of(**SCD2)
    day = dt.datetime(2025, 1, 1)
    at = lambda hours: day + dt.timedelta(hours=hours)  # noqa: E731
    versions = lambda rows: sorted((r["valid_from"], r["valid_to"]) for r in rows)  # noqa: E731
    assert versions(travelled(lab, "as_known_at", batch=1)) == [(at(10), at(30)), (at(30), None)]
    assert versions(travelled(lab, "as_known_at", batch=2)) == [(at(10), at(20)), (at(20), at(30)), (at(30), at(40))]
    assert versions(travelled(lab, "as_of", "2025-01-01 20:00")) == [(at(20), at(30))]
    assert versions(travelled(lab, "as_of", "2025-01-01T20:59:59.5+01:00")) == [(at(10), at(20))]
    assert travelled(lab, "as_of", at(40)) == []


def test_a_version_reads_the_columns_that_the_view_shows_and_the_var_gives_it() -> None:
    lab = lab_of(**SCD2)
    sql = lab.travelled("at_version", "model", 1)
    assert "from lab.model__cdc version as of 1\nwhere _cdc_visible" in sql
    assert travelled(lab, "at_version", 1)[0].keys() == lab.rows("model")[0].keys()
    assert str(lab.travelled("at_version", "model")) == "lab.model"  # no version and no var: as it is
    lab.vars["at_versions"] = {"lab.model__cdc": 0}
    assert "version as of 0" in lab.travelled("at_version", "model")


@pytest.mark.parametrize(
    ("macro", "arguments", "config", "told"),
    [
        ("as_of", {"timestamp": "2025-01-01"}, SCD1, r"expected a model with a history .* got model, which keeps"),
        ("as_of", {"timestamp": "yesterday"}, SCD2, r"timestamp: expected a moment such as .* got yesterday"),
        ("as_of", {"timestamp": "2025-13-01"}, SCD2, r"got 2025-13-01"),
        ("as_known_at", {}, SCD2, r"expected a timestamp or a batch, got neither"),
        ("as_known_at", {"timestamp": "2025-01-01", "batch": 1}, SCD2, r"got both"),
        ("as_known_at", {"timestamp": "2025-01-01"}, SCD2, r"got model, without a column _arrived_at\. Fix: give a"),
        ("as_known_at", {"batch": "one"}, SCD2, r"batch: expected a bigint, got one"),
        ("at_version", {"version": 99}, SCD2, r"expected a version of lab\.model__cdc from 0 to \d+, got 99\. Fix"),
        ("at_version", {"version": "-1"}, SCD2, r"a whole number from 0, got -1"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(
    macro: str, arguments: dict[str, Any], config: dict[str, Any], told: str
) -> None:
    with pytest.raises(CompilationError, match=told):
        travelled(lab_of(WITHOUT_ARRIVAL, **config), macro, **arguments)
