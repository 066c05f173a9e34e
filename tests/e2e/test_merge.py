"""The merge of gold models on real Delta: after any run it holds what a full refresh would."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from cdc_lab import FULL_REFRESH, MAY_FAIL, Lab, Scenario
from cdc_scenarios import COLUMNS, SELECT, deleted, event
from cdc_sets import SCD1

pytestmark = pytest.mark.spark

Steps = Generator[str | None, None, None]

# One row per key and letter of the key's text: a key's set of rows grows and shrinks.
LETTERS = """
{% if is_incremental() -%}
with touched as (
    select * from {{ delta_cdc.touched_keys('select k from (' ~ delta_cdc.changed_keys('PREFIX_current') ~ ')') }}
)
{% endif %}
select k, letter, COLUMNS
from (
    select current.* from {{ ref('PREFIX_current') }} as current
    {% if is_incremental() %} left semi join touched on current.k = touched.k {% endif %}
) lateral view explode(split(a, '')) as letter
"""
MERGE: dict[str, Any] = {"incremental_strategy": "merge", "unique_key": ["k", "letter"], "replace_by": "k"}
STATE = SELECT.replace(" ts,", "")


def merged(lab: Lab, name: str, query: str, **config: Any) -> None:
    """A merge model on others of the scenario, whose names begin with PREFIX_."""
    lab.sql(name, query.replace("PREFIX_", lab.prefix), **{**MERGE, **config})


def add_current(lab: Lab) -> None:
    lab.bronze("t", COLUMNS)
    lab.model("current", "t", STATE, **SCD1)
    lab.deliver("t", [event("a", 10, "xy"), event("b", 10, "x"), event("c", 10, "z")])


def letters(lab: Lab, columns: str = "k, letter") -> list[str]:
    return sorted(" ".join(map(str, row.values())) for row in lab.rows("letters", columns))


def one_table_after_another_change(lab: Lab) -> Steps:
    """In sequence: each begins with what the one before has left."""
    add_current(lab)
    merged(lab, "letters", LETTERS.replace("COLUMNS", "1 as one"))
    yield None
    assert letters(lab) == ["a x", "a y", "b x", "c z"]
    yield from a_key_keeps_the_rows_that_its_query_gives_and_no_others(lab)
    yield from nothing_new_commits_nothing(lab)
    yield from a_run_that_died_after_its_merge_computes_the_same_again(lab)
    yield from an_upstream_derived_anew_is_read_as_a_whole(lab)
    yield from a_change_of_the_sql_is_applied_to_every_row(lab)
    before = letters(lab, "k, letter, one, shown")
    yield FULL_REFRESH
    assert letters(lab, "k, letter, one, shown") == before


def a_key_keeps_the_rows_that_its_query_gives_and_no_others(lab: Lab) -> Steps:
    """Given keys with rows, When one shrinks, one goes and one is new, Then so do its rows, and no other is written."""
    lab.deliver("t", [event("a", 20, "y", 2), event("b", 20, "x", 2, "d"), event("d", 20, "q", 2)])
    yield None
    assert letters(lab) == ["a y", "c z", "d q"]
    (merge,) = [c for c in lab.data_commits("letters") if c["operation"] == "MERGE"]
    touched = {name: int(merge["operationMetrics"][name]) for name in ("numTargetRowsDeleted", "numTargetRowsInserted")}
    assert touched == {"numTargetRowsDeleted": 2, "numTargetRowsInserted": 1}
    assert merge["operationMetrics"]["numTargetRowsUpdated"] == "0", "an equal row is not rewritten"


def nothing_new_commits_nothing(lab: Lab) -> Steps:
    before = lab.version("letters")
    yield None
    assert lab.messages["letters"] == "nothing new"
    assert lab.version("letters") == before


def a_run_that_died_after_its_merge_computes_the_same_again(lab: Lab) -> Steps:
    """Given the merge is committed and its mark is not, When it runs again, Then the rows are the same."""
    table = lab.table("letters")
    lab.deliver("t", [event("a", 30, "w", 3), event("d", 30, "xq", 3)])
    applied = lab.spark.sql(f"show tblproperties {table} ('lakehouse.upstreams')").collect()[0]["value"]
    yield None
    lab.spark.sql(f"alter table {table} set tblproperties ('lakehouse.upstreams' = '{applied}')")
    yield None
    assert lab.messages["letters"] != "nothing new"
    assert letters(lab) == ["a w", "c z", "d q", "d x"]


def an_upstream_derived_anew_is_read_as_a_whole(lab: Lab) -> Steps:
    """Given the upstream now shows other rows for old events, When it alone is refreshed, Then so does its reader."""
    lab.model("current", "t", STATE.replace(" a,", " concat(a, '!') as a,"), **SCD1)
    lab.build(f"{lab.prefix}current", full_refresh=True)
    yield None
    assert letters(lab) == ["a !", "a w", "c !", "c z", "d !", "d q", "d x"]


def a_change_of_the_sql_is_applied_to_every_row(lab: Lab) -> Steps:
    query = LETTERS.replace("COLUMNS", "2 as one, upper(letter) as shown")
    merged(lab, "letters", query, on_schema_change="append_new_columns")
    yield None
    assert letters(lab, "k, letter, one, shown") == [
        "a ! 2 !", "a w 2 W", "c ! 2 !", "c z 2 Z", "d ! 2 !", "d q 2 Q", "d x 2 X",
    ]  # fmt: skip


def after_a_node_has_failed_the_next_run_does_only_the_rest(lab: Lab) -> Steps:
    """Given two branches, When one of the upstreams fails, Then its reader is skipped, the other branch is done; after
    the fix the next run builds what was left out, and commits nothing to what was done.
    """
    add_current(lab)
    merged(lab, "letters", LETTERS.replace("COLUMNS", "1 as one"))
    lab.bronze("u", COLUMNS)
    lab.model("other", "u", SELECT, **SCD1)
    both = "select l.k, r.a from {{ ref('PREFIX_current') }} as l left join {{ ref('PREFIX_other') }} as r on l.k = r.k"
    merged(lab, "both", both, unique_key="k", replace_by="*")
    lab.deliver("u", [event("a", 10, "one")])
    yield None
    lab.deliver("t", [event("a", 20, "pq", 2)])
    lab.deliver("u", [event("a", 20, "two", 2), event("a", 20, "tie", 2)])
    yield MAY_FAIL
    assert set(lab.failed) == {"other", "both"}
    assert "1 tie(s)" in lab.failed["other"] and lab.failed["both"] == "None", "it was skipped"
    assert letters(lab) == ["a p", "a q", "b x", "c z"]
    done = {name: lab.version(name) for name in ("current__cdc", "letters")}
    lab.spark.sql(f"delete from {lab.table('u')} where a = 'tie'").collect()
    yield None
    assert {name: lab.version(name) for name in done} == done
    assert sorted((row["k"], row["a"]) for row in lab.rows("both")) == [("a", "two"), ("b", None), ("c", None)]


def the_key_may_be_null_and_is_merged_once(lab: Lab) -> Steps:
    add_current(lab)
    query = "select nullif(k, 'c') as k, a from {{ ref('PREFIX_current') }}"
    merged(lab, "whole", query, unique_key="k", replace_by="*")
    yield None
    lab.deliver("t", [event("c", 20, "changed", 2), deleted("a", 20, 2)])
    yield None
    found = sorted((row["k"] or "", row["a"]) for row in lab.rows("whole"))
    assert found == [("", "changed"), ("b", "x")]


def a_wrong_strategy_or_no_key_says_expected_got_and_fix(lab: Lab) -> Steps:
    lab.sql("keyless", "select 1 as one", incremental_strategy="merge")
    yield None
    lab.sql("keyless", "select 2 as one", incremental_strategy="merge")
    lab.sql("misspelled", "select 1 as one", incremental_strategy="cdc_sdc2")
    yield MAY_FAIL
    assert "expected unique_key for incremental_strategy 'merge', got none. Fix:" in lab.failed["keyless"]
    assert "got cdc_sdc2. Fix: did you mean cdc_scd2?" in lab.failed["misspelled"]


SCENARIOS: dict[str, Scenario] = {
    steps.__name__: steps
    for steps in (
        one_table_after_another_change,
        after_a_node_has_failed_the_next_run_does_only_the_rest,
        the_key_may_be_null_and_is_merged_once,
        a_wrong_strategy_or_no_key_says_expected_got_and_fix,
    )
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, ended: dict[str, Exception | None]) -> None:
    if (exception := ended[name]) is not None:
        raise exception
