"""The SQL that the engine's macros return, rendered without Spark."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from dbt.include import spark
from rendering import PACKAGE, ROOT, WARNINGS, CompilationError, load, squeeze

MACROS = load("cdc")
COLUMNS = [
    {"name": "k", "type": "string"},
    {"name": "a", "type": "string"},
    {"name": "c", "type": "decimal(12,2)"},
    {"name": "_op", "type": "string"},
    {"name": "seq", "type": "bigint"},
    {"name": "ts", "type": "timestamp"},
    {"name": "_batch_id", "type": "bigint"},
]
SCD2: dict[str, Any] = {
    "incremental_strategy": "cdc_scd2",
    "unique_key": "k",
    "sequence_by": "seq",
    "effective_at": "ts",
    "delete_when": "_op = 'd'",
}


def options(**changes: Any) -> dict[str, Any]:
    return MACROS["cdc_options"]({**SCD2, **changes}, COLUMNS)


def test_options_have_the_documented_defaults() -> None:
    o = options()
    assert o["watermark"] == "_batch_id"
    assert o["except"] == ["_op"]
    assert o["tracked"] == ["a", "c"]
    assert o["payload"] == ["a", "c"]
    assert o["fill"] == []
    assert o["cluster_by"] == ["k"]
    assert o["on_tie"] == "error"
    assert o["on_schema_change"] == "append_new_columns"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unique_key": None}, "unique_key: expected a column or list, got nothing. Fix: add unique_key="),
        (
            {"sequence_by": ["no"]},
            "sequence_by: expected a column of the SELECT (k, a, c, _op, seq, ts, _batch_id), got no",
        ),
        ({"effective_at": None}, "effective_at: expected a timestamp column (the first sequence_by column is bigint)"),
        ({"on_tie": "x"}, "on_tie: expected 'error' or 'warn', got x"),
        ({"full_extracts": "yes"}, "full_extracts: expected true or false, got yes"),
        ({"full_extracts": True}, "delete_when: expected nothing (in full_extracts a key is deleted by its absence)"),
        ({"max_delete_share": 0.5}, "max_delete_share: expected full_extracts=true beside it"),
        ({"max_delete_share": 50}, "max_delete_share: expected a share from 0 to 1, got 50"),
        ({"max_delete_share": "0.5"}, "max_delete_share: expected a share from 0 to 1"),
        ({"warn_above": 100}, "warn_above: expected a mapping of late, ties and clamped to limits, got 100"),
        (
            {"fail_above": {"clampt": 1}},
            "fail_above: expected late, ties or clamped, got clampt. Fix: did you mean clamped?",
        ),
        ({"warn_above": {"late": 1.5}}, "warn_above.late: expected a count (0, 1, 2, …) or a share of the events read"),
        ({"warn_above": {"late": -1}}, "warn_above.late: expected a count"),
        ({"warn_above": {"late": "5"}}, "warn_above.late: expected a count"),
        ({"warn_above": {"late": True}}, "warn_above.late: expected a count"),
        ({"fail_above": {"ties": 0}}, "fail_above.ties: expected on_tie='warn'"),
        ({"fail_above": {"clamped": 1}, "incremental_strategy": "cdc_scd1"}, "fail_above.clamped: expected cdc_scd2"),
        ({"track_history": ["no"]}, "got no. Fix: correct the name"),
        ({"watermark": "seq"}, "column _batch_id: expected another name (the engine makes columns of this name)"),
        ({"except_columns": ["seq"]}, "except_columns: expected columns the engine does not store, got seq"),
        ({"except_columns": ["no"]}, "except_columns: expected a column of the SELECT"),
        ({"track_history_except": ["no"]}, "got no. Fix: correct the name"),
        ({"track_history": ["a"], "track_history_except": ["c"]}, "track_history: expected it or track_history_except"),
        ({"track_history": ["ts"]}, "expected columns that hold what happened, not when and how it arrived, got ts"),
        ({"cluster_by": ["no"]}, "cluster_by: expected a column of the SELECT"),
        ({"cluster_by": ["k", "a", "c", "seq", "ts"]}, "cluster_by: expected at most 4 columns"),
    ],
)
def test_a_wrong_option_says_expected_got_and_fix(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CompilationError) as failed:
        options(**changes)
    assert message in str(failed.value)
    assert "Fix: " in str(failed.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (("Valid_From", "string"), "column Valid_From: expected another name"),
        (("_CDC_visible", "string"), "column _CDC_visible: expected another name"),
        (("_Unsent", "array<string>"), "column _Unsent: expected _unsent (the engine reads the column of this name)"),
        (("a b", "string"), "column a b: expected a name that Delta stores"),
        (("a`b", "string"), "column a`b: expected a name that Delta stores"),
        (("m", "map<string,int>"), "got map<string,int>. Fix: use to_json(m)"),
        (("s", "struct<x:int,m:map<string,int>>"), "column s: expected a type that can be compared"),
        (("s", "array<variant>"), "column s: expected a type that can be compared"),
        (("s", "struct<x:int,v:variant>"), "column s: expected a type that can be compared"),
    ],
)
def test_a_column_that_cannot_be_stored_is_refused_by_name(column: tuple[str, str], message: str) -> None:
    with pytest.raises(CompilationError) as failed:
        MACROS["cdc_options"](SCD2, [*COLUMNS, dict(zip(("name", "type"), column, strict=True))])
    assert message in str(failed.value)
    assert "Fix: " in str(failed.value)


def test_fields_named_like_types_are_no_types() -> None:
    struct = {"name": "s", "type": "struct<variant:string,map:int>"}
    assert "s" in MACROS["cdc_options"](SCD2, [*COLUMNS, struct])["stored"]


def test_a_text_in_the_sequence_is_warned_of_with_the_cast_to_write() -> None:
    WARNINGS.clear()
    options(sequence_by=["a", "seq"])
    (told,) = WARNINGS
    assert "sequence_by: a is a string and compares as text" in told
    assert "cast(a as bigint) as a" in told and "conv(split_part(a, '/', 1), 16, 10)" in told
    options()
    assert len(WARNINGS) == 1


def test_what_an_option_names_belongs_to_the_payload() -> None:
    columns = [*COLUMNS, {"name": "_status", "type": "string"}, {"name": "_file", "type": "string"}]
    o = MACROS["cdc_options"]({**SCD2, "track_history": ["_status"], "ignore_null_updates": ["c"]}, columns)
    assert (o["payload"], o["fill"]) == (["a", "c", "_status"], ["c"])
    o = MACROS["cdc_options"]({**SCD2, "ignore_null_updates": ["_status"], "moved_from": "_file"}, columns)
    assert (o["payload"], o["fill"]) == (["a", "c", "_status", "_file"], ["_status"])
    assert MACROS["cdc_options"](SCD2, columns)["payload"] == ["a", "c"]


GRAPH = {
    "nodes": {
        "model.p.stg_a": {"config": {"materialized": "view"}, "depends_on": {"nodes": ["source.p.a"]}},
        "model.p.stg_b": {"config": {"materialized": "ephemeral"}, "depends_on": {"nodes": ["model.p.stg_c"]}},
        "model.p.stg_c": {"config": {"materialized": "view"}, "depends_on": {"nodes": ["source.p.b", "seed.p.names"]}},
        "model.p.table": {"config": {"materialized": "table"}, "depends_on": {"nodes": ["source.p.b"]}},
        "seed.p.names": {"config": {"materialized": "seed"}, "depends_on": {"nodes": []}},
    }
}


@pytest.mark.parametrize(
    ("reads", "feeds"),
    [
        (["source.p.a"], ["source.p.a"]),
        (["model.p.stg_a", "source.p.a", "seed.p.names"], ["source.p.a"]),
        (["model.p.stg_a", "model.p.stg_b"], ["source.p.a", "source.p.b"]),
        (["model.p.stg_a", "model.p.table"], ["source.p.a", "model.p.table"]),
    ],
)
def test_what_a_model_reads_is_followed_to_its_sources(reads: list[str], feeds: list[str]) -> None:
    assert MACROS["cdc_feeds"](reads, GRAPH) == feeds


@pytest.mark.parametrize(
    ("threads", "own_session", "reads", "message"),
    [
        (2, "<undefined>", ["source.p.a"], "threads: expected 1 for a CDC model"),
        (4, "true", ["source.p.a"], None),
        (
            1,
            "<undefined>",
            ["model.p.stg_a", "model.p.stg_b"],
            "sources: expected one (the engine keeps one mark in _batch_id;",
        ),
        (1, "<undefined>", ["model.p.stg_a"], None),
    ],
)
def test_a_model_that_would_lose_changes_is_refused(
    threads: int, own_session: str, reads: list[str], message: str | None
) -> None:
    context = {
        "target": {"threads": threads}, "model": {"depends_on": {"nodes": reads}}, "graph": dict(GRAPH), "this": "s.x",
        "invocation_id": "a run", "invocation_args_dict": {}, "config": {},
        "run_query": {"set dbt.session.own": SimpleNamespace(rows=[{"value": own_session}])}.__getitem__,
    }  # fmt: skip
    macros = load("cdc", context=context)
    if message is None:
        macros["_cdc_refuse_what_cannot_work"](options())
        return
    with pytest.raises(CompilationError) as failed:
        macros["_cdc_refuse_what_cannot_work"](options())
    assert message in str(failed.value) and "Fix: " in str(failed.value)


@pytest.mark.parametrize(
    ("strategy", "key", "fix"),
    [
        ("cdc_scd2", "track_history_exept", "did you mean track_history_except?"),
        ("cdc_scd2", "on_ties", "did you mean on_tie?"),
        ("cdc_scd2", "warn_abov", "did you mean warn_above?"),
        ("cdc_scd2", "error_if", "here it is fail_above"),
        ("cdc_scd2", "unique_keys", "did you mean unique_key?"),
        ("cdc_scd2", "Delete_When", "Fix: write delete_when."),
        ("cdc_scd1", "apply_as_deletes", "here it is delete_when"),
        ("cdc_scd1", "keys", "here it is unique_key"),
        ("cdc_scd2", "stored_as_scd_type", "here it is incremental_strategy="),
        ("cdc_scd2", "track_history_except_column_list", "here it is track_history_except."),
        ("cdc_scd2", "except_column_list", "here it is except_columns."),
        ("cdc_scd2", "ignore_null_updates_column_list", "here it is ignore_null_updates, with a list"),
        ("cdc_scd2", "replace_by", "remove it; it belongs to merge models"),
        ("merge", "delete_when", "remove it; it belongs to cdc_scd1 and cdc_scd2"),
        ("merge", "replace_bye", "did you mean replace_by?"),
        ("merge", "incremental_predicate", "did you mean incremental_predicates?"),
    ],
)
def test_a_config_key_that_nobody_reads_is_refused_with_the_nearest_name(strategy: str, key: str, fix: str) -> None:
    with pytest.raises(CompilationError) as failed:
        MACROS["check_config_keys"]({"unique_key": "k", key: "x"}, strategy)
    assert f"config key {key}: expected a key that dbt or a {strategy} model reads" in str(failed.value)
    assert fix in str(failed.value)


@pytest.mark.parametrize(
    ("strategy", "meant"),
    [
        ("cdc_sdc2", "cdc_scd2"),
        ("scd1", "cdc_scd1"),
        ("CDC_SCD2", "cdc_scd2"),
        ("merged", "merge"),
        ("apend", "append"),
    ],
)
def test_a_misspelled_strategy_is_refused_with_the_nearest_one(strategy: str, meant: str) -> None:
    with pytest.raises(CompilationError) as failed:
        MACROS["_check_strategy"](strategy)
    assert str(failed.value).startswith("incremental_strategy: expected cdc_scd1, cdc_scd2, merge, append")
    assert f"got {strategy}. Fix: did you mean {meant}?" in str(failed.value)


def test_a_strategy_of_dbt_spark_or_none_is_let_through() -> None:
    """The list is the installed dbt-spark's, and the package's two."""
    text = (Path(spark.__file__).parent / "macros/materializations/incremental/validate.sql").read_text()
    theirs = re.findall(r"'(\w+)'", text.split("invalid_strategy_msg", 1)[1].split("{%- endset")[0])
    assert {"append", "merge", "insert_overwrite"} <= set(theirs)
    for strategy in [*theirs, "cdc_scd1", "cdc_scd2", None]:
        MACROS["_check_strategy"](strategy)


def test_every_key_that_dbt_or_the_engine_reads_is_known() -> None:
    """dbt's own keys are those of the installed version: its config classes, and what dbt-spark's macros ask for."""
    from dbt.adapters.spark.impl import SparkConfig
    from dbt.artifacts.resources.v1.model import ModelConfig
    from dbt.include.spark import PACKAGE_PATH

    known = set(MACROS["_dbt_config_keys"]())
    fields = {field.name for cls in (ModelConfig, SparkConfig) for field in dataclasses.fields(cls)} - {"_extra"}
    macros = Path(PACKAGE_PATH) / "macros/materializations"
    texts = [path.read_text() for name in ("incremental", "models") for path in (macros / name).rglob("*.sql")]
    texts.append((macros.parent / "adapters.sql").read_text())
    asked = {key for text in texts for key in re.findall(r"config\.get\(['\"](\w+)", text)}
    assert fields | asked <= known, sorted((fields | asked) - known)

    source = (PACKAGE / "macros/cdc/1_options/cdc_options.sql").read_text()
    read = set(re.findall(r"settings\.get\('(\w+)'", source)) - {"incremental_strategy", "unique_key"}
    assert read == set(MACROS["_cdc_option_names"]())
    assert set(MACROS["_other_names"]()).isdisjoint(known | read)


def test_values_that_were_filled_are_read_and_written_by_name() -> None:
    o = {**options(ignore_null_updates=["a", "c"]), "filled": [{"name": name, "type": "string"} for name in "cxa"]}
    assert squeeze(MACROS["_cdc_stored_filled_struct"](o)) == (
        "case when _cdc_filled is not null then named_struct('a', _cdc_filled.`a`, 'c', _cdc_filled.`c`) end"
    )
    assert squeeze(MACROS["_cdc_filled_to_store"](o)) == (
        "case when _cdc_filled is not null then named_struct('c', _cdc_filled.`c`, 'x', cast(null as string), "
        "'a', _cdc_filled.`a`) end"
    )
    o["filled"] = [{"name": name, "type": "string"} for name in "ac"]
    assert MACROS["_cdc_filled_to_store"](o) == "_cdc_filled"


def test_only_a_full_refresh_may_replace_the_storage_table() -> None:
    create = MACROS["cdc_create_storage"]
    table = api_relation("x__cdc")
    assert squeeze(create(options(), table, "select 1", {})).startswith("create table s.x__cdc using delta")
    assert squeeze(create(options(), table, "select 1", {}, replace=True)).startswith(
        "create or replace table s.x__cdc"
    )


def api_relation(identifier: str) -> Any:
    """As much of a dbt relation as these macros read."""

    class Relation(str):
        __slots__ = ()
        schema = "s"

        @property
        def identifier(self) -> str:
            return identifier

    return Relation(f"s.{identifier}")


def test_names_are_listed_by_one_pattern() -> None:
    listing = MACROS["cdc_name_listing"]
    assert listing("views", api_relation("x"), ["", "__changes"]) == "show views in s like 'x|x__changes'"


def test_an_apostrophe_in_a_column_name_stays_in_its_literal() -> None:
    columns = [*COLUMNS, {"name": "it's", "type": "string"}, {"name": "_unsent", "type": "array<string>"}]
    o = MACROS["cdc_options"](SCD2, columns)
    sql = MACROS["cdc_timeline"](
        {"o": o, "stage": "stage", "marks": {"high_or_run": "1L"}, "stored": {"schemas": [o["payload"]]}},
        {"state": "state", "truncations": None, "moves": None, "chains": None},
    )
    assert "array_contains(`_unsent`, 'it\\'s')" in sql
    assert "'it's'" not in sql and "named_struct('a'" in sql


@pytest.mark.parametrize(
    ("text", "data_type", "literal"),
    [
        ("5", "int", "5"),
        ("9007199254740993", "bigint", "9007199254740993L"),
        ("-0.01", "decimal(12,2)", "-0.01BD"),
        ("2025-01-15", "date", "date '2025-01-15'"),
        ("2025-01-15 10:00:00", "timestamp", "timestamp '2025-01-15 10:00:00'"),
        ("it's", "string", "'it\\'s'"),
        ("back\\slash", "string", "'back\\\\slash'"),
        ("${env:HOME}", "string", "'\\u0024{env:HOME}'"),
    ],
)
def test_literals_are_typed_and_hostile_text_stays_text(text: str, data_type: str, literal: str) -> None:
    assert MACROS["cdc_literal"](text, data_type) == literal


def test_the_stage_begins_above_what_is_applied_and_lets_rows_without_a_watermark_be_noticed() -> None:
    sql = squeeze(MACROS["cdc_stage"](options(), "select 1", "3L"))
    assert sql.endswith("where `_batch_id` > 3L or `_batch_id` is null")
    assert "coalesce(_op = 'd', false) as _cdc_deleted" in sql


def test_the_first_stage_has_no_lower_bound() -> None:
    assert squeeze(MACROS["cdc_stage"](options(), "select 1", None)).endswith("( select 1 ) as _cdc_source")


def test_what_is_applied_ends_at_the_highest_batch_that_the_profile_has_seen() -> None:
    sql = squeeze(MACROS["cdc_bounded_stage"](options(), "staged", "7L"))
    assert sql == "(select * from staged where `_batch_id` <= 7L)"


def test_what_has_no_reach_is_never_in_order() -> None:
    survey = MACROS["cdc_survey"]
    assert "false as in_order" in survey(options(), "staged", None)
    assert "min(_cdc_first) > struct(7L as `seq`)" in survey(options(), "staged", ["7", "8"])
    columns = [{**column, "type": "double"} if column["name"] == "seq" else column for column in COLUMNS]
    o = MACROS["cdc_options"](SCD2, columns)
    assert "cast(null as string) as reach" in squeeze(MACROS["cdc_applied_rows"](o, "s.x__cdc")), "no literal"
    columns = [{**column, "type": "timestamp_ntz"} if column["name"] == "ts" else column for column in COLUMNS]
    assert not MACROS["_cdc_has_reach"](MACROS["cdc_options"](SCD2, columns)), "its order may not be that of valid_from"


@pytest.mark.parametrize(
    ("data_type", "text", "value"),
    [
        ("timestamp", "cast(unix_micros(x) as string)", "timestamp_micros(5L)"),
        ("bigint", "cast(x as string)", "5L"),
        ("decimal(20,2)", "cast(x as string)", "cast(5BD as decimal(20,2))"),
        ("string", "cast(x as string)", "'5'"),
    ],
)
def test_how_far_events_reach_is_the_same_in_every_time_zone(data_type: str, text: str, value: str) -> None:
    assert MACROS["_cdc_lasting_text"]("x", data_type).strip() == text
    assert MACROS["_cdc_from_lasting_text"]("5", data_type).strip() == value


@pytest.mark.parametrize("sequence", ["5", "a;b", "${env:HOME}"])
def test_a_note_that_spark_would_read_otherwise_is_left_out(sequence: str) -> None:
    run = {
        "o": options(), "storage": api_relation("x__cdc"), "marks": {"high_text": "3", "truncates": False},
        "profile": {"truncates": 0, "reach": "=" + json.dumps([sequence, "9"])},
        "stored": {"properties": {"lakehouse.cdc.options": "{}", "lakehouse.cdc.views": "0a"}, "schema": 1},
        "applied": {"rows": 7}, "inserted": 2, "is_as_noted": False,
    }  # fmt: skip
    context = {"fromjson": json.loads, "tojson": json.dumps, "local_md5": lambda text: f"hash of {text}"}
    note = load("cdc", context=context)["cdc_note"](run, 4)
    if sequence != "5":
        assert note is None
        return
    assert json.loads(note)["lakehouse.cdc"] == {
        "table": "s.x__cdc", "version": 4, "mark": "=3", "run": None, "truncates": 0, "reach": ["5", "9"],
        "model": 'hash of {}|0a|append_new_columns|["a", "c"]', "schema": 1, "rows": 9,
    }  # fmt: skip


def test_statements_of_a_script_are_quoted() -> None:
    script = squeeze(MACROS["cdc_script"](["set a = it's", "reset b"]))
    assert script == "begin execute immediate 'set a = it\\'s'; execute immediate 'reset b'; end"


def test_an_open_version_is_read_in_key_sequence_and_effective_values_alone() -> None:
    o = options(ignore_null_updates=["c"], track_history=["a"])
    sql = squeeze(
        MACROS["cdc_timeline_in_order"](
            {"o": o, "storage": "s.x__cdc", "stage": "(stage)", "stored": {"schemas": [o["payload"]]}, "low": "3L"},
            "true",
        )
    )
    assert "stored.`k` as `k`, stored.`a` as `a`, case when stored._cdc_filled is null then stored.`c`" in sql
    assert "cast(null as timestamp) as `ts`, cast(null as bigint) as `_batch_id`" in sql
    assert "stored._cdc_valid_from as _cdc_earliest_at" in sql
    assert "when stored.`_batch_id` > 3L then raise_error('s.x__cdc: another run changed this table" in sql


@pytest.mark.parametrize(("data_type", "nothing_between"), [("bigint", "_cdc_gap > 1"), ("double", "_cdc_gap > 0")])
def test_a_gap_that_no_key_can_lie_in_splits_no_range(data_type: str, nothing_between: str) -> None:
    sql = squeeze(MACROS["cdc_key_ranges"]("k", data_type, "touched"))
    assert f"{nothing_between} and _cdc_gap * 64 > sum(_cdc_gap) over () as _cdc_is_wide" in sql


def test_ranges_become_one_literal_predicate_that_keeps_truncates() -> None:
    predicate = MACROS["cdc_range_predicate"]("k", "string", [("a", "c"), ("z", "z")], "stored", True)
    assert squeeze(predicate) == "(stored.`k` between 'a' and 'c' or stored.`k` = 'z' or stored.`k` is null)"
    assert MACROS["cdc_range_predicate"]("k", "string", [], "stored") == "true"


def test_values_of_a_personal_key_stand_in_no_statement() -> None:
    asked: list[str] = []

    def query(sql: str) -> SimpleNamespace:
        asked.append(sql)
        return SimpleNamespace(rows=[{"ranges": '=[{"lowest": "a@x.org", "highest": "b@x.org"}]'}])

    def predicate(meta: dict[str, bool] | None) -> str:
        macros = load(
            "cdc",
            "merge",
            context={"run_query": query, "fromjson": json.loads, "config": {"meta": meta}, "this": "s.x"},
        )
        return str(macros["_merge_ranges"](["k"], {"k": "string"}, "s.x__tmp", None))

    assert predicate({"key_is_personal": True}) == "None" and not asked
    assert "'a@x.org' and 'b@x.org'" in predicate(None) and asked


def test_the_merge_is_insert_only_when_no_stored_row_changes() -> None:
    o = options()
    assert "when matched" not in MACROS["cdc_merge"](o, "s.x__cdc", "diff", "true", [])
    both = squeeze(MACROS["cdc_merge"](o, "s.x__cdc", "diff", "true", ["_cdc_visible"]))
    assert "on stored.`k` = changed.`k` and stored.`seq` = changed.`seq` and true when matched then update set" in both


def test_only_where_a_truncate_has_no_key_is_it_compared_null_safe() -> None:
    merge = squeeze(MACROS["cdc_merge"](options(truncate_when="_op = 't'"), "s.x__cdc", "diff", "true", []))
    assert "on stored.`k` <=> changed.`k` and stored.`seq` <=> changed.`seq` and true" in merge


def test_the_news_are_counted_beside_the_batch_that_was_applied_last() -> None:
    news = squeeze(MACROS["cdc_news"](options(), "select 1", "3L"))
    assert news.startswith(
        "select count_if(`_batch_id` > 3L or `_batch_id` is null) as rows_read, count_if(`_batch_id` = 3L)"
    )
    assert news.endswith("where `_batch_id` >= 3L or `_batch_id` is null")


def test_a_bitmap_of_touched_keys_is_read_where_it_was_written() -> None:
    declared, filled = MACROS["cdc_touched_keys"](options(), "v", "(select 1)", 8192)
    assert declared == "declare or replace variable v array<bigint>"
    assert "sequence(0, 255)" in filled and "cast(xxhash64(staged.`k`) & 8191L as int)" in filled
    place = "cast(xxhash64(stored.`k`) & 8191L as int)"
    condition = squeeze(MACROS["cdc_perhaps_touched"](options(), "v", 8192, "stored"))
    assert condition == f"getbit(session.v[shiftright({place}, 5)], {place} % 32) = 1"


def test_key_sequence_batch_and_derived_columns_come_first() -> None:
    columns = MACROS["_cdc_physical_columns"](options())
    assert columns[:4] == ["k", "seq", "_batch_id", "_cdc_batch_id"]
    assert columns[-3:] == ["a", "c", "ts"]


def test_view_comments_are_escaped() -> None:
    sql = MACROS["cdc_view"](options(), "s.x", "s.x__cdc", ["k", "a"], {"a": "it's $5"}, "don't")
    assert "`a` comment 'it\\'s \\u00245'" in sql
    assert "comment 'don\\'t'" in sql


def test_every_public_macro_is_described() -> None:
    described = {
        macro["name"]: macro
        for path in (PACKAGE / "macros").rglob("_macros.yml")
        for macro in yaml.safe_load(path.read_text())["macros"]
    }
    public = {name for name, macro in MACROS.items() if callable(macro) and name.startswith("cdc_")}
    assert public <= described.keys(), sorted(public - described.keys())
    for name in public:
        assert described[name]["description"].strip(), name


def test_the_documented_options_are_the_ones_the_engine_reads() -> None:
    page = (ROOT / "docs" / "cdc.md").read_text()
    source = (PACKAGE / "macros/cdc/1_options/cdc_options.sql").read_text()
    read = set(re.findall(r"settings\.get\('(\w+)'", source)) - {"incremental_strategy"}
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []
