"""The merge of gold models on real Delta: after any run it holds what a full refresh would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cdc_lab import Lab
from test_cdc_scenarios import SCD1, SELECT, event

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


# One row per key and letter of the key's text: a key's set of rows grows and shrinks.
LETTERS = """
{% if is_incremental() -%}
with touched as (select * from {{ touched_keys('select k from (' ~ changed_keys('current') ~ ')') }})
{% endif %}
select k, letter, COLUMNS
from (
    select current.* from {{ ref('current') }} as current
    {% if is_incremental() %} left semi join touched on current.k = touched.k {% endif %}
) lateral view explode(split(a, '')) as letter
"""
MERGE: dict[str, Any] = {"incremental_strategy": "merge", "unique_key": ["k", "letter"], "replace_by": "k"}


@pytest.fixture
def lab(spark: SparkSession, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = Lab(spark, tmp_path, "merge_" + request.node.name.removeprefix("test_")[:40])
    lab.bronze("t", "k string, a string, c string")
    lab.model("current", "t", SELECT.replace(" ts,", ""), **SCD1)
    lab.sql("letters", LETTERS.replace("COLUMNS", "1 as one"), **MERGE)
    lab.deliver("t", [event("a", 10, "xy"), event("b", 10, "x"), event("c", 10, "z")])
    lab.build()
    yield lab
    spark.sql(f"drop schema {lab.schema} cascade")


def letters(lab: Lab, columns: str = "k, letter") -> list[str]:
    return sorted(" ".join(map(str, row.values())) for row in lab.rows("letters", columns))


def test_a_key_keeps_the_rows_that_its_query_gives_and_no_others(lab: Lab) -> None:
    """Given keys with rows, When one shrinks, one goes and one is new, Then the rows are those of a full refresh."""
    assert letters(lab) == ["a x", "a y", "b x", "c z"]
    lab.deliver("t", [event("a", 20, "y", 2), event("b", 20, "x", 2, "d"), event("d", 20, "q", 2)])
    lab.build()
    merged = letters(lab)
    assert merged == ["a y", "c z", "d q"]
    (merge,) = [c for c in lab.data_commits("letters") if c["operation"] == "MERGE"]
    touched = {name: int(merge["operationMetrics"][name]) for name in ("numTargetRowsDeleted", "numTargetRowsInserted")}
    assert touched == {"numTargetRowsDeleted": 2, "numTargetRowsInserted": 1}
    assert merge["operationMetrics"]["numTargetRowsUpdated"] == "0", "an equal row is not rewritten"
    lab.build("letters", full_refresh=True)
    assert letters(lab) == merged


def test_nothing_new_commits_nothing(lab: Lab) -> None:
    before = lab.version("letters")
    lab.build()
    assert lab.messages["letters"] == "nothing new"
    assert lab.version("letters") == before


def test_a_change_of_the_sql_is_applied_to_every_row(lab: Lab) -> None:
    lab.sql(
        "letters",
        LETTERS.replace("COLUMNS", "2 as one, upper(letter) as shown"),
        **MERGE,
        on_schema_change="append_new_columns",
    )
    lab.build()
    assert letters(lab, "k, letter, one, shown") == ["a x 2 X", "a y 2 Y", "b x 2 X", "c z 2 Z"]


def test_an_upstream_derived_anew_is_read_as_a_whole(lab: Lab) -> None:
    """Given the upstream now shows other rows for old events, When it alone is refreshed, Then so does its reader."""
    select = SELECT.replace(" ts,", "").replace(" a,", " concat(a, '!') as a,")
    assert "concat" in select
    lab.model("current", "t", select, **SCD1)
    lab.build("current", full_refresh=True)
    lab.build("letters")
    assert letters(lab) == ["a !", "a x", "a y", "b !", "b x", "c !", "c z"]


def test_a_run_that_died_after_its_merge_computes_the_same_again(lab: Lab) -> None:
    """Given the merge is committed and its mark is not, When it runs again, Then the rows are the same."""
    table = f"{lab.schema}.letters"
    lab.deliver("t", [event("a", 20, "w", 2)])
    applied = lab.spark.sql(f"show tblproperties {table} ('lakehouse.upstreams')").collect()[0]["value"]
    lab.build()
    lab.spark.sql(f"alter table {table} set tblproperties ('lakehouse.upstreams' = '{applied}')")
    lab.build()
    assert letters(lab) == ["a w", "b x", "c z"]


def test_after_a_node_has_failed_the_next_run_does_only_the_rest(lab: Lab) -> None:
    """Given two branches, When one of the upstreams fails, Then its reader is skipped, the other branch is done; after
    the fix the next run builds what was left out, and commits nothing to what was done.
    """
    lab.bronze("u", "k string, a string, c string")
    lab.model("other", "u", SELECT, **SCD1)
    both = "select l.k, r.a from {{ ref('current') }} as l left join {{ ref('other') }} as r on l.k = r.k"
    lab.sql("both", both, incremental_strategy="merge", unique_key="k", replace_by="*")
    lab.deliver("u", [event("a", 10, "one")])
    lab.build()
    lab.deliver("t", [event("a", 20, "pq", 2)])
    lab.deliver("u", [event("a", 20, "two", 2), event("a", 20, "tie", 2)])

    outcome = {model.node.name: str(model.status) for model in lab.build(check=False)}

    assert outcome == {"current": "success", "letters": "success", "other": "error", "both": "skipped"}
    assert letters(lab) == ["a p", "a q", "b x", "c z"]
    done = {name: lab.version(name) for name in ("current__cdc", "letters")}
    lab.spark.sql(f"delete from {lab.schema}.u where a = 'tie'").collect()
    lab.build()
    assert {name: lab.version(name) for name in done} == done
    assert sorted((row["k"], row["a"]) for row in lab.rows("both")) == [("a", "two"), ("b", None), ("c", None)]


def test_the_key_may_be_null_and_is_merged_once(lab: Lab) -> None:
    lab.sql(
        "whole",
        "select nullif(k, 'c') as k, a from {{ ref('current') }}",
        incremental_strategy="merge",
        unique_key="k",
        replace_by="*",
    )
    lab.build()
    lab.deliver("t", [event("c", 20, "changed", 2), event("a", 20, None, 2, "d")])
    lab.build()
    found = sorted((row["k"] or "", row["a"]) for row in lab.rows("whole"))
    assert found == [("", "changed"), ("b", "x")]


def test_a_merge_without_a_key_says_expected_got_and_fix(lab: Lab) -> None:
    lab.sql("keyless", "select 1 as one", incremental_strategy="merge")
    lab.build("keyless")
    lab.sql("keyless", "select 2 as one", incremental_strategy="merge")
    (failed,) = lab.build("keyless", check=False)
    assert "expected unique_key for incremental_strategy 'merge', got none. Fix:" in failed.message
