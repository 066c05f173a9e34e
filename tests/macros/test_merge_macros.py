"""The SQL that the merge of gold models returns, rendered without Spark."""

from __future__ import annotations

from typing import Any

from rendering import load, squeeze

MACROS = load("cdc", "merge")


def merge(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "target": "gold.t",
        "source": "t__dbt_tmp",
        "key": ["k", "line"],
        "columns": [{"name": name} for name in ("k", "line", "a", "b")],
        "replace_by": None,
        "range_predicate": None,
    }
    return squeeze(MACROS["merge_rows"](**(arguments | changes)))


def test_keys_are_null_safe_and_equal_rows_are_left_alone() -> None:
    sql = merge()
    assert "on target.`k` <=> source.`k` and target.`line` <=> source.`line`" in sql
    assert "when matched and not (target.`a` <=> source.`a` and target.`b` <=> source.`b`) then update set" in sql
    assert "when not matched then insert (`k`, `line`, `a`, `b`)" in sql
    assert "delete" not in sql


def test_a_table_of_keys_alone_has_nothing_to_update() -> None:
    assert "then update" not in merge(columns=[{"name": "k"}, {"name": "line"}])


def test_the_target_is_limited_by_ranges_and_the_models_own_predicates() -> None:
    sql = merge(
        range_predicate="target.`k` between 1L and 5L", incremental_predicates=["target.day > date '2025-01-01'"]
    )
    assert "<=> source.`line` and target.`k` between 1L and 5L and target.day > date '2025-01-01' when" in sql


def test_replacing_the_whole_table_deletes_what_the_query_no_longer_gives() -> None:
    assert merge(replace_by="*").endswith("when not matched by source then delete")


def test_incremental_deletes_are_tied_to_touched_keys() -> None:
    relation = type("Relation", (str,), {"schema": "gold", "identifier": "t"})("gold.t")
    sql = merge(target=relation, replace_by="k")
    assert "left semi join gold__t__touched as touched on stored.`k` <=> touched.`k`" in sql
    assert "when matched and source._gone then delete" in sql
    assert "not matched by source" not in sql
