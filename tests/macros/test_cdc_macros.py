"""The SQL that the engine's macros return, rendered without Spark."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from rendering import ROOT, CompilationError, load, squeeze

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
    assert o["payload"] == ["a", "c", "ts"]
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
        ({"track_history": ["no"]}, "got no. Fix: correct the name"),
        ({"watermark": "seq"}, "column _batch_id: expected another name (the engine makes columns of this name)"),
        ({"except_columns": ["seq"]}, "except_columns: expected columns the engine does not store, got seq"),
    ],
)
def test_a_wrong_option_says_expected_got_and_fix(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CompilationError) as failed:
        options(**changes)
    assert message in str(failed.value)
    assert "Fix: " in str(failed.value)


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
    sql = squeeze(MACROS["cdc_bounded_stage"](options(), "stage", "staged", "7L"))
    assert sql == "create temporary view stage as select * from staged where `_batch_id` <= 7L"


@pytest.mark.parametrize(("data_type", "nothing_between"), [("bigint", "gap > 1"), ("double", "gap > 0")])
def test_a_gap_that_no_key_can_lie_in_splits_no_range(data_type: str, nothing_between: str) -> None:
    sql = squeeze(MACROS["cdc_key_ranges"]("k", data_type, "touched"))
    assert f"{nothing_between} and gap * 64 > sum(gap) over () as is_wide" in sql


def test_ranges_become_one_literal_predicate_that_keeps_truncates() -> None:
    predicate = MACROS["cdc_range_predicate"]("k", "string", [("a", "c"), ("z", "z")], "stored", True)
    assert squeeze(predicate) == "(stored.`k` between 'a' and 'c' or stored.`k` = 'z' or stored.`k` is null)"
    assert MACROS["cdc_range_predicate"]("k", "string", [], "stored") == "true"


def test_the_merge_is_insert_only_when_no_stored_row_changes() -> None:
    o = options()
    assert "when matched" not in MACROS["cdc_merge"](o, "s.x__cdc", "diff", "true", False)
    both = squeeze(MACROS["cdc_merge"](o, "s.x__cdc", "diff", "true", True))
    assert (
        "on stored.`k` <=> changed.`k` and stored.`seq` <=> changed.`seq` and true when matched then update set" in both
    )


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
        for path in (ROOT / "macros").rglob("_macros.yml")
        for macro in yaml.safe_load(path.read_text())["macros"]
    }
    public = {name for name, macro in MACROS.items() if callable(macro) and name.startswith("cdc_")}
    assert public <= described.keys(), sorted(public - described.keys())
    for name in public:
        assert described[name]["description"].strip(), name


def test_the_documented_options_are_the_ones_the_engine_reads() -> None:
    page = (ROOT / "docs" / "cdc.md").read_text()
    source = (ROOT / "macros" / "cdc" / "cdc_options.sql").read_text()
    import re

    read = set(re.findall(r"settings\.get\('(\w+)'", source)) - {"incremental_strategy"}
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []
