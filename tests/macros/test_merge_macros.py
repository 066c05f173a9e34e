"""The SQL that the merge of gold models returns, rendered without Spark."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rendering import CompilationError, load, squeeze

MACROS = load("cdc", "merge")


def merge(**changes: Any) -> str:
    plan = {"key": ["k", "line"], "columns": ["k", "line", "a", "b"], "replace_by": None, "predicates": [], "new": []}
    return squeeze(MACROS["merge_rows"](changes.pop("target", "gold.t"), "t__dbt_tmp", plan | changes))


def test_keys_are_null_safe_and_equal_rows_are_left_alone() -> None:
    sql = merge()
    assert "on target.`k` <=> source.`k` and target.`line` <=> source.`line`" in sql
    assert "when matched and not ( target.`a` <=> source.`a` and target.`b` <=> source.`b`) then update set" in sql
    assert "when not matched then insert (`k`, `line`, `a`, `b`)" in sql
    assert "delete" not in sql


def test_a_table_of_keys_alone_has_nothing_to_update() -> None:
    assert "then update" not in merge(columns=["k", "line"])


def test_the_target_is_limited_by_ranges_and_the_models_own_predicates() -> None:
    sql = merge(predicates=[None, "target.`k` between 1L and 5L", "target.day > date '2025-01-01'"])
    assert "<=> source.`line` and target.`k` between 1L and 5L and target.day > date '2025-01-01' when" in sql


def test_replacing_the_whole_table_deletes_what_the_query_no_longer_gives() -> None:
    assert merge(replace_by="*").endswith("when not matched by source then delete")


def test_incremental_deletes_are_tied_to_touched_keys() -> None:
    relation = type("Relation", (str,), {"schema": "gold", "identifier": "t"})("gold.t")
    sql = merge(target=relation, replace_by="k")
    assert "left semi join gold__t__touched as touched on stored.`k` <=> touched.`k`" in sql
    assert "when matched and source._gone then delete" in sql
    assert "not matched by source" not in sql


def test_new_columns_come_with_the_merge_itself() -> None:
    sql = merge(new=["b"])
    assert sql.startswith("merge with schema evolution into gold.t as target")
    assert "when matched and not ( target.`a` <=> source.`a` and source.`b` is null) then update set" in sql
    assert "`b` = source.`b`" in sql
    assert "with schema evolution" not in merge()


def test_duplicates_are_looked_for_only_after_the_merge_has_failed() -> None:
    script = squeeze(MACROS["explain_duplicates"]("merge into gold.t …", "gold.t", "t__dbt_tmp", ["k", "line"]))
    assert script.startswith("begin declare exit handler for sqlstate '21506' begin select raise_error(concat(")
    assert "gold.t: expected one row per unique_key (k, line), got " in script
    assert "from t__dbt_tmp group by `k`, `line` having count(*) > 1" in script
    assert script.endswith("end; merge into gold.t …; end")


def test_an_error_shows_no_value_of_a_personal_column() -> None:
    """Given a key that the model's YAML calls personal, Then the keys that a message names are hidden."""
    macros = load(
        "cdc", "merge", context={"model": {"columns": {"email": {"config": {"meta": {"pii": True}}}, "id": {}}}}
    )
    script = squeeze(macros["explain_duplicates"]("merge …", "gold.t", "t__dbt_tmp", ["id", "email"]))
    assert "to_json(struct(`id`, '***' as `email`)" in script and "group by `id`, `email`" in script
    run = {"unique_key": ["email"], "sequence": ["at"], "effective_at": None, "watermark": None, "scd2": False}
    macros["_cdc_bad"] = lambda o: dict.fromkeys(
        ["null_keys", "null_sequences", "null_effective", "in_future"], "false"
    )
    assert "struct('***' as `email`, `at`)" in squeeze(macros["cdc_bad_events"](run, "stage"))


def test_replace_by_and_touched_keys_need_each_other() -> None:
    relation = type("Relation", (str,), {"schema": "gold", "identifier": "t"})("gold.t")
    check, reading = MACROS["_check_touched"], "select * from t left semi join gold__t__touched"
    for replace_by, query in ((None, "select 1"), ("*", "select 1"), ("k", reading)):
        check(relation, replace_by, query)
    with pytest.raises(CompilationError) as failed:
        check(relation, "k", "select 1 as k")
    assert str(failed.value).startswith(
        "replace_by: expected touched_keys() in the query under is_incremental(), or '*', got k."
    )
    assert "Fix: read {{ delta_cdc.touched_keys(…) }} there, or write replace_by='*'" in str(failed.value)
    macros = load("cdc", "merge", context={"execute": True, "model": {"resource_type": "model"}})
    with pytest.raises(CompilationError, match=r"replace_by: expected .*Fix: add replace_by='<key>' to config"):
        macros["touched_keys"]("select 1")
    unit_test = {
        "execute": True,
        "model": {"resource_type": "unit_test"},
        "flags": type("Flags", (), {"WHICH": "build"}),
    }
    read = load("cdc", "merge", context=unit_test)["touched_keys"]("select 1")
    assert read == "(select 1)", "a unit test has a config of its own, without the model's replace_by"


@pytest.mark.parametrize(
    ("version", "defers", "made"),
    [("7@b", False, ["gold__t__touched"]), ("7@a", False, []), ("7@a", True, ["gold__t__touched"])],
)
def test_a_run_with_nothing_new_makes_no_view_of_touched_keys(version: str, defers: bool, made: list[str]) -> None:
    """The view was planned before the run said `nothing new`: a fourth of all that `dbt build -s dim_account` did."""
    read = {"silver.s": {"table": "silver.s", "version": "7@a"}}
    context = {
        "execute": True, "context": {}, "model": {"resource_type": "model"}, "config": {"replace_by": "k"},
        "flags": type("Flags", (), {"WHICH": "build", "EMPTY": False, "DEFER": defers}), "invocation_args_dict": {},
        "this": type("Relation", (str,), {"schema": "gold", "identifier": "t"})("gold.t"),
    }  # fmt: skip
    macros, ran = load("cdc", "merge", context=context), []
    given = {
        "is_incremental": lambda: True, "_cdc_drop_temporary": lambda view: "", "model_hash": lambda: "h",
        "upstreams_applied": lambda: {"sql": "h", "read": read}, "run_query": lambda sql: ran.append(sql.split()[3]),
        "upstreams": lambda: {"silver.s": {"table": "silver.s", "version": version}},
    }  # fmt: skip
    for name, stub in given.items():
        macros[name] = stub
    told = macros["touched_keys"]("select k from s")
    assert (ran, told) == (made, made[0] if made else "(select k from s)")


def test_a_new_column_of_a_cdc_model_is_told_to_need_a_refresh() -> None:
    told = load("cdc", context={"this": "silver.slv_x"})["_cdc_text_new_columns"](["domain"])
    assert told.strip().startswith("silver.slv_x: new column(s) domain: NULL for the events that are stored already")
    assert "Fix: to derive them for the whole history, run the model with --full-refresh." in told


def test_keys_are_found_in_the_table_without_case() -> None:
    macros = load("cdc", "merge")
    macros["flags"], macros["invocation_args_dict"] = type("Flags", (), {"EMPTY": False}), {}
    macros["config"] = {"replace_by": "*"}
    macros["context"] = {"merge_plan": {"columns": ["k", "a"], "types": {}, "new": [], "dropped": [], "widened": {}}}
    sql = squeeze(macros["spark__get_merge_sql"]("gold.t", "t__dbt_tmp", "K", None))
    assert "on target.`k` <=> source.`k` when matched and not ( target.`a` <=> source.`a`)" in sql
    assert sql.endswith("when not matched by source then delete; end")


class Column(str):
    """A column as dbt's adapter gives it."""

    name = property(lambda self: self.split()[0])
    dtype = property(lambda self: self.split()[1])


def plan(word: str, given: list[str], contracted: bool = False, stored: tuple[str, ...] = ("k string", "n int")) -> Any:
    columns = [Column(text) for text in given], [Column(text) for text in stored]
    return MACROS["merge_schema_plan"]("gold.t", word, contracted, ["k"], *columns)


@pytest.mark.parametrize(
    ("word", "given", "written", "dropped"),
    [
        ("ignore", ["k string", "n int", "m int"], ["k", "n"], []),
        ("ignore", ["k string", "n string"], ["k", "n"], []),
        ("append_new_columns", ["k string", "m int"], ["k", "m"], []),
        ("append_new_columns", ["K string", "N int"], ["k", "n"], []),
        ("sync_all_columns", ["k string", "m int"], ["k", "m"], ["n"]),
        ("sync_all_columns", ["k string", "n bigint"], ["k", "n"], []),
        ("fail", ["n int", "k string"], ["k", "n"], []),
    ],
)
def test_each_word_of_on_schema_change_does_what_dbt_says(
    word: str, given: list[str], written: list[str], dropped: list[str]
) -> None:
    planned = plan(word, given)
    assert (planned["columns"], planned["dropped"]) == (written, dropped)


@pytest.mark.parametrize(
    ("word", "given", "contracted", "message"),
    [
        ("ignore", ["k string"], False, "gone: n; of another type: none. Nothing was altered. Fix: select what"),
        ("fail", ["k string", "n int", "m int"], False, "got new: m; gone: none"),
        ("fail", ["k string", "n bigint"], False, "of another type: n (int is now bigint)"),
        ("append_new_columns", ["n int"], False, "got no k in one of them"),
        ("append_new_columns", ["k string", "m int"], True, "Nothing was altered. Fix: a rename: run the model with"),
        ("append_new_columns", ["k string", "n string"], True, "n (int is now string). Nothing was altered."),
        ("sync_all_columns", ["k string", "n string"], False, "Fix: cast n in the query, or run the model"),
    ],
)
def test_a_schema_change_that_cannot_be_done_is_refused_before_anything_is_altered(
    word: str, given: list[str], contracted: bool, message: str
) -> None:
    with pytest.raises(CompilationError) as failed:
        plan(word, given, contracted)
    assert message in str(failed.value)
    assert str(failed.value).startswith("gold.t: expected ")


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("select current_date as day", True),
        ("select 'it\\'s --', Now ( ) as t", True),
        ("select unix_timestamp( )", True),
        ("select uuid() as id", True),
        ("select 1 -- now() is not used", False),
        ("select /* rand() */ user, now, `current_date`, 'uuid()', \"rand()\" from t", False),
        ("select unix_timestamp(ts), current_dates, known(a)", False),
    ],
)
def test_sql_that_gives_other_rows_by_itself_is_told_by_its_code_alone(sql: str, changes: bool) -> None:
    assert MACROS["changes_by_itself"](sql) is changes


@pytest.mark.parametrize(
    ("operations", "merged"),
    [
        (["MERGE", "OPTIMIZE"], True),
        (["MERGE", "RESTORE"], False),
        (["DELETE", "MERGE"], False),
        (["MERGE"], False),  # the log is cleaned up: the other commit is not known
        (["RESTORE", "MERGE"], False),
    ],
)
def test_a_key_by_key_mark_holds_only_while_the_upstream_was_merged(operations: list[str], merged: bool) -> None:
    commits = [{"version": 7 - i, "operation": operation} for i, operation in enumerate(operations)]
    MACROS["run_query"] = lambda sql: type("Result", (), {"rows": commits})
    state, was = {"table": "silver.t__cdc", "version": "7@now", "commits": commits[:1]}, {"version": "5@then"}
    assert MACROS["_only_merged_since"](state, was) is merged
    one_commit = {**state, "commits": commits[:1]}
    MACROS["run_query"] = None  # what is known is not asked again
    assert MACROS["_only_merged_since"](one_commit, {"version": "6@then"}) is (operations[0] == "MERGE")


def test_an_upstream_is_unchanged_only_where_it_can_be_told_and_is_the_same_table() -> None:
    unchanged = MACROS["_is_unchanged"]
    state = {"table": "silver.t", "version": "3@noon"}
    assert unchanged(state, dict(state)) is True
    for was in (None, {**state, "table": "pr7_silver.t"}, {**state, "version": "3@night"}):
        assert not unchanged(state, was)
    assert not unchanged({**state, "version": None}, {**state, "version": None})


def test_what_a_run_of_a_merge_model_knows_is_not_asked_again() -> None:
    """Given the contexts of rendering and of writing, Then the mark is read once, and no view is dropped."""
    asked: list[str] = []

    def run_query(sql: str) -> Any:
        asked.append(sql)
        answer = {"value": "true"} if sql.startswith("set ") else {"value": json.dumps({"sql": "5"})}
        return type("Result", (), {"rows": [answer]})

    this = type("Relation", (str,), {"schema": "gold", "identifier": "t"})("gold.t")
    known = {
        "graph": {}, "invocation_id": "run", "run_query": run_query, "this": this, "fromjson": json.loads,
        "make_temp_relation": lambda relation: Temporary(f"{relation}__dbt_tmp"),
    }  # fmt: skip
    rendering, writing = (load("cdc", "merge", "overrides", context=known) for _ in range(2))
    for macros in (rendering, writing):
        assert macros["upstreams_applied"]() == {"sql": "5"}
        macros["_drop_merge_views"]()
    note = {"lakehouse.cdc": {"table": "silver.x__cdc", "version": 7, "mark": "=12"}}
    commit = {"version": 7, "userMetadata": json.dumps(note)}
    state = {"kind": "cdc", "table": "silver.x__cdc", "version": "7@noon", "commits": [commit], "derived_by": "before"}
    writing["add_upstream_batches"]({"model.x": state})
    assert state["batch"] == 12
    assert asked == ["show tblproperties gold.t ('lakehouse.upstreams')", "set dbt.session.own"]


class Temporary(str):
    """A relation's name, without its schema or with it."""

    def include(self, *, schema: bool) -> str:
        return self
