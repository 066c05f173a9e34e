"""The scenarios of docs/cdc.md on DuckDB, and what stops a model before anything is written."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cdc_duck import Duck
from cdc_scenarios import (
    BAD_EVENTS,
    COLUMNS,
    GROUPS,
    SCD1,
    SCD2,
    SELECT,
    STRATEGIES,
    batches,
    configuration,
    deleted,
    differences,
    event,
    numbered,
    states,
    versions,
)
from dbt.adapters.base import BaseRelation
from dbt.adapters.contracts.connection import AdapterResponse
from dbt_common.clients.jinja import MacroReturn, get_environment
from rendering import PACKAGE

from python_ops.lake.artifacts import load_run_results


def made(select: str = SELECT, **config: Any) -> Duck:
    """A laboratory with one bronze table `t` and the model `history` on it."""
    lab = Duck()
    lab.bronze("t", COLUMNS)
    lab.model("history", "t", select, **{**SCD2, **config})
    return lab


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("order", ["as listed", "at once", "backwards", "one by one"])
def test_scenarios_in_any_order_and_batching(group: str, strategy: str, order: str) -> None:
    parcels = batches(group)
    rows = [row for parcel in parcels for row in parcel]
    if order == "at once":
        parcels = [rows]
    elif order == "backwards":
        parcels = [parcel[::-1] for parcel in parcels[::-1]]
    elif order == "one by one":
        per_key = [[row for row in rows if row[0] == key] for key in dict.fromkeys(row[0] for row in rows)]
        parcels = [[row for row in place if row] for place in itertools.zip_longest(*per_key)]
    parcels = numbered(parcels)
    lab = Duck()
    lab.bronze("t", COLUMNS)
    select, config = configuration(group, strategy)
    lab.model("m", "t", select, **config)
    for parcel in parcels:
        lab.deliver("t", parcel)
        lab.build()
    assert differences(lab, group, strategy, "m") == {}

    commits = lab.data_commits("m__cdc")
    lab.deliver("t", [(*row[:-1], len(parcels) + 1) for row in rows])
    lab.build()
    assert lab.data_commits("m__cdc") == commits, "S7: all of it again is not a commit"
    lab.build(full_refresh=True)
    assert differences(lab, group, strategy, "m") == {}


def test_a_row_has_the_batch_of_the_event_that_last_changed_it() -> None:
    lab = made()
    lab.deliver("t", [event("k", 10, "A"), event("k", 40, "D"), event("l", 10, "A", 2)])
    lab.build()
    assert {(row["k"], row["a"]): row["_batch_id"] for row in lab.rows("history")} == {
        ("k", "A"): 1, ("k", "D"): 1, ("l", "A"): 2,
    }  # fmt: skip
    lab.deliver("t", [event("k", 20, "B", 3), event("m", 10, "M", 4)])
    lab.build()
    assert {(row["k"], row["a"]): row["_batch_id"] for row in lab.rows("history")} == {
        ("k", "A"): 3, ("k", "B"): 3, ("k", "D"): 1, ("l", "A"): 2, ("m", "M"): 4,
    }  # fmt: skip


def test_a_run_tells_the_views_that_stand_also_where_it_applies_nothing() -> None:
    """dbt writes them to target/run, where `lakeops sql` and the catalog find them."""
    lab = made()
    lab.deliver("t", [event("k", 10, "A")])
    lab.build()
    first = lab.views["history"]
    assert [statement.split("(")[0].split("\n")[0].strip() for statement in first] == [
        "create or replace view lab.history", "create or replace view lab.history__changes",
    ]  # fmt: skip
    lab.build()
    assert (lab.counts["history"], lab.views["history"]) == ({"read": 0}, first)
    lab.model("history", "t", SELECT.replace("c, ", ""), **SCD2)
    lab.deliver("t", [event("k", 20, "B", 2)])
    lab.build()
    assert "`c`" in lab.views["history"][0], "a column that is gone stays"


def test_s10_a_tie_stops_the_model_and_is_resolved_without_a_full_refresh() -> None:
    lab = made()
    lab.deliver("t", [event("k", 10, "A"), event("other", 10, "A")])
    lab.build()
    version = lab.version("history__cdc")
    lab.deliver("t", [event("k", 10, "B", 2), event("other", 20, "B", 2)])
    failed = lab.build(check=False)["history"]
    assert "1 tie(s)" in failed and "on_tie='warn'" in failed and "No full refresh is needed" in failed
    assert lab.version("history__cdc") == version, "a stopped model writes nothing"

    lab.execute("delete from lab.history__cdc where k = 'k' and seq = 10")
    lab.build()
    assert versions(lab, "history") == {"k": [("B", 10, None)], "other": [("A", 10, 20), ("B", 20, None)]}


def test_s10_a_stored_row_that_loses_is_replaced_and_not_doubled() -> None:
    lab = made(on_tie="warn")
    for batch, row in enumerate((event("k", 20, "B"), event("k", 20, None, 2, "d")), 1):
        lab.deliver("t", [row])
        lab.build()
        assert len(lab.rows("history__cdc")) == 1, batch
    assert "1 tie(s) resolved by on_tie=warn" in lab.warnings[0]


def test_what_an_option_asks_for_belongs_to_the_payload() -> None:
    """Given two events at one position that differ in a tracked `_status`, Then they are a tie, in both orders."""
    shown = []
    for order in (("open", "closed"), ("closed", "open")):
        lab = Duck()
        lab.bronze("t", COLUMNS)
        select = SELECT.replace(" c,", " c as _status,")
        lab.model("warned", "t", select, **SCD2, track_history=["_status"], on_tie="warn")
        lab.model("tied", "t", select, **SCD2, track_history=["_status"])
        for batch, value in enumerate(order, 1):
            lab.deliver("t", [event("k", 10, "A", batch, c=value)])
        failed = lab.build(check=False)
        assert list(failed) == ["tied"] and "They differ in: _status." in failed["tied"]
        shown.append([row["_status"] for row in lab.rows("warned")])
    assert shown[0] == shown[1]


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_an_event_that_the_engine_cannot_place_stops_the_model(case: str) -> None:
    row, text = BAD_EVENTS[case]
    lab = made()
    lab.deliver("t", [event("good", 10, "A"), row])
    failed = lab.build(check=False)["history"]
    assert text in failed and "Nothing was written" in failed
    assert lab.warehouse.kind("lab.history__cdc") is None


# What arrives after A at 10 and B at 30, both of batch 1: two events, one of which is odd.
ODD = {
    "late": [event("k", 20, "L", 2), event("k", 40, "C", 2)],
    "ties": [event("k", 30, "T", 2), event("k", 40, "C", 2)],
    "clamped": [event("k", 20, "L", 2, time=5), event("k", 40, "C", 2)],
    "clamped in order": [event("k", 40, "C", 2, time=50), event("k", 50, "D", 2, time=45)],
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize(("limit", "is_passed"), [(0, True), (1, False), (0.49, True), (0.5, False)])
def test_limits_of_odd_events_stop_or_warn_before_a_write(case: str, limit: float, is_passed: bool) -> None:
    """In both ways, by count and by share: below the limit nothing is said."""
    kind, way = case.split()[0], "in order" in case
    lab = made(on_tie="warn")
    lab.model("warned", "t", SELECT, **SCD2, on_tie="warn", warn_above={kind: limit})
    lab.model("stopped", "t", SELECT, **SCD2, on_tie="warn", fail_above={kind: limit})
    lab.deliver("t", [event("k", 10, "A"), event("k", 30, "B")])
    lab.build()
    before = lab.rows("stopped"), lab.version("stopped__cdc")
    lab.warnings.clear()
    lab.deliver("t", ODD[case])
    failed = lab.build(check=False)
    told = f"{kind}: 1 of 2 events read, limit {limit}"
    assert ("in order" in lab.messages["warned"]) is way and f"{kind} 1" in lab.messages["warned"]
    assert [told in warning for warning in lab.warnings if "_above" in warning] == [True] * is_passed
    assert lab.counts["warned"].get("warned", 0) == is_passed
    assert lab.rows("warned") == lab.rows("history")
    if not is_passed:
        assert failed == {}
        return
    assert list(failed) == ["stopped"] and told in failed["stopped"] and "Fix, one of:" in failed["stopped"]
    assert (lab.rows("stopped"), lab.version("stopped__cdc")) == before, "a stopped model writes nothing"

    lab.model("stopped", "t", SELECT, **SCD2, on_tie="warn", fail_above={kind: 2})
    lab.build()
    assert lab.rows("stopped") == lab.rows("history"), "what stopped it is read again"


@pytest.mark.parametrize("ignored", [[], ["a"]])
@pytest.mark.parametrize("stopped_by", ["late", "tie", "event"])
def test_a_model_that_stops_has_not_altered_its_table(stopped_by: str, ignored: list[str]) -> None:
    """Given new columns, When the run is stopped, Then the table has none of them; the next run has all rows right."""
    whole = SELECT.replace("c,", "c, cast(seq as bigint) as extra,")
    lab, filled = made(ignore_null_updates=ignored), [*ignored, "c"]
    lab.model("always", "t", whole, **SCD2, ignore_null_updates=filled)
    lab.deliver("t", [event("k", 10, "A"), event("k", 30, "B")])
    lab.build()
    before = lab.version("history__cdc"), lab.warehouse.columns("lab.history__cdc")

    odd = {"late": event("k", 20, None, 2), "tie": event("k", 30, "C", 2), "event": event(None, 40, "D", 2)}
    lab.deliver("t", [event("l", 40, "A", 2), odd[stopped_by]])
    lab.model("history", "t", whole, **SCD2, ignore_null_updates=filled, fail_above={"late": 0})
    assert "Nothing was written" in lab.build("history", check=False)["history"]
    assert (lab.version("history__cdc"), lab.warehouse.columns("lab.history__cdc")) == before

    lab.execute("delete from lab.t where seq = 30 and _batch_id = 2 or k is null")
    lab.model("history", "t", whole, **SCD2, ignore_null_updates=filled)
    lab.build()
    assert versions(lab, "history") == versions(lab, "always")
    assert [row["extra"] for row in lab.rows("history where k = 'l'")] == [40]
    assert lab.data_commits("history__cdc") == 3, "made, loaded, merged once"
    lab.deliver("t", [event("l", 50, None, 3)])
    lab.build()
    assert "in order" in lab.messages["history"] and versions(lab, "history") == versions(lab, "always")


def test_limits_hold_for_a_first_load_and_a_full_refresh_too() -> None:
    lab = made(fail_above={"late": 0, "clamped": 0})
    lab.deliver("t", [event("k", 10, "A", 2), event("k", 20, "B")])
    lab.build()
    lab.build(full_refresh=True)
    lab.deliver("t", [event("l", 10, "A", 3), event("l", 20, "B", 3, time=5)])
    version = lab.version("history__cdc")
    assert "clamped: 1 of 4 events read, limit 0" in lab.build(full_refresh=True, check=False)["history"]
    assert lab.version("history__cdc") == version
    lab.model("first", "t", SELECT, **SCD2, fail_above={"clamped": 0.2})
    assert "clamped: 1 of 4 events read, limit 0.2" in lab.build("first", check=False)["first"]
    assert lab.warehouse.kind("lab.first__cdc") is None


def test_a_full_refresh_that_would_lose_history_is_refused() -> None:
    lab = made()
    lab.deliver("t", [event("k", 10, "A"), event("k", 20, "B", 2)])
    lab.build()
    lab.execute("delete from lab.t where _batch_id = 1")
    assert "--full-refresh refused" in lab.build(full_refresh=True, check=False)["history"]
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}


def test_a_mark_beyond_the_source_is_refused_with_both_numbers() -> None:
    lab = made()
    lab.build()
    lab.build()
    assert "nothing new" in lab.messages["history"], "no mark yet, and an empty source"
    lab.deliver("t", [event("k", 10, "A", 3)])
    lab.build()
    lab.warehouse.query("alter table lab.history__cdc set tblproperties ('lakehouse.cdc.watermark' = '70')")
    lab.deliver("t", [event("k", 20, "B", 4)])
    failed = lab.build(check=False)["history"]
    assert "applied up to 70 and" in failed and "ends at 4" in failed
    del lab.warehouse.tables["lab.history__cdc"].properties["lakehouse.cdc.watermark"]
    lab.build()
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}

    lab.execute("delete from lab.t")
    lab.build()
    assert "nothing new" in lab.messages["history"], "an empty source has nothing to compare with"
    lab.deliver("t", [event("k", 10, "X", 1)])
    failed = lab.build(check=False)["history"]
    assert "applied up to 4 and" in failed and "ends at 1" in failed

    lab.model("other", "t", SELECT.replace("_batch_id", "_batch_id + 0 as arrival"), **SCD2, watermark="arrival")
    lab.build("other")
    lab.build("other")
    assert "nothing new" in lab.messages["other"], "a watermark that the source does not have"


@pytest.mark.parametrize("watermark", [True, False])
def test_what_is_applied_is_read_from_the_last_commit_and_from_the_rows_after_any_other(watermark: bool) -> None:
    lab = made(SELECT if watermark else SELECT.replace(", _batch_id", ""))

    def asked(*events: Any) -> int:
        lab.warehouse.statements.clear()
        lab.deliver("t", list(events))
        lab.build()
        return sum("as truncates\nfrom lab.history__cdc" in statement for statement in lab.warehouse.statements)

    assert asked(event("k", 10, "A")) == asked(event("k", 20, "B", 2)) == asked(event("k", 30, "C", 3)) == 0
    lab.execute("delete from lab.history__cdc where seq = 20")
    assert asked(event("k", 40, "D", 4)) == 1, "a statement by hand may have changed what is applied"
    assert asked(event("k", 50, "E", 5)) == 0
    gone = [] if watermark else [("B", 20, 30)]  # without a watermark everything is read every time
    kept = [("C", 30, 40), ("D", 40, 50), ("E", 50, None)]
    assert versions(lab, "history") == {"k": [("A", 10, 20 if gone else 30), *gone, *kept]}


# What a note may wrongly say, and the check of cdc_note.sql that notices.
NOTES: dict[str, tuple[dict[str, Any], str]] = {
    "of another table": ({"table": "lab.other__cdc"}, "note.get('table') == storage | string and "),
    "of another version": ({"version": 7}, " and note.get('version') == commit['version'] | int"),
    "of an engine that kept no reach": ({"reach": None}, " and (note.get('reach') or not delta_cdc._cdc_has_reach(o))"),
}


@pytest.mark.parametrize("case", NOTES)
@pytest.mark.parametrize("is_checked", [True, False])
def test_a_note_that_proves_nothing_is_not_taken_for_proof(case: str, is_checked: bool) -> None:
    """Without the check the late event is taken for one in order, or is not known to be late."""
    wrong, check = NOTES[case]

    def edit(file: str, text: str) -> str:
        assert file != "cdc_note.sql" or check in text, "the check is gone"
        return text if is_checked else text.replace(check, "")

    lab = Duck(edit=edit)
    lab.bronze("t", COLUMNS)
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A"), event("k", 40, "D")])
    lab.build()
    commits = lab.warehouse.tables["lab.history__cdc"].commits
    operation, note = commits[-1]
    said = json.loads(str(note))["lakehouse.cdc"]
    early = {"reach": ["15", str(15 * 3_600_000_000)]}
    commits[-1] = (operation, json.dumps({"lakehouse.cdc": {**said, **early, **wrong}}))
    ways = []
    for batch, (hour, value) in enumerate(((20, "B"), (30, "C"), (50, "E")), 2):
        lab.deliver("t", [event("k", hour, value, batch)])
        lab.build()
        ways.append("in order" in lab.messages["history"])
    want = {"k": [("A", 10, 20), ("B", 20, 30), ("C", 30, 40), ("D", 40, 50), ("E", 50, None)]}
    is_right = ways == [False, False, True] and versions(lab, "history") == want
    assert is_right == is_checked


def test_after_a_statement_by_hand_the_long_way_derives_the_key_anew() -> None:
    lab = made()
    lab.deliver("t", [event("k", 10, "A"), event("k", 20, "B"), event("l", 10, "L")])
    lab.build()
    lab.execute("delete from lab.history__cdc where k = 'k' and seq = 20")
    lab.deliver("t", [event("k", 40, "D", 2)])
    lab.build()
    assert "in order" not in lab.messages["history"]
    assert versions(lab, "history") == {"k": [("A", 10, 40), ("D", 40, None)], "l": [("L", 10, None)]}
    lab.deliver("t", [event("l", 50, "M", 3)])
    lab.build()
    assert "in order" in lab.messages["history"]


def test_a_batch_of_duplicates_leaves_the_next_one_in_order() -> None:
    """Its mark is a property of the table; the commit of it says again what is applied."""
    lab = made()
    for batch, rows in enumerate(([event("k", 10, "A")], [event("k", 10, "A")], [event("k", 20, "B")]), 1):
        lab.deliver("t", numbered([rows] * batch)[-1])
        lab.build()
    assert "in order" in lab.messages["history"]
    assert lab.version("history__cdc") == 3, "made, filled, the property, the MERGE"


@pytest.mark.parametrize(
    ("sequence", "select"),
    [
        (["_generation", "seq"], SELECT.replace(" seq,", " seq, 1 as _generation,")),
        (["ts"], SELECT),
        (["seq"], SELECT.replace(" seq,", " cast(seq as decimal(20, 2)) as seq,")),
        (["seq"], SELECT.replace(" seq,", " concat('it''s ', lpad(cast(seq as string), 4, '0')) as seq,")),
        (["seq", "_batch_id"], SELECT),
    ],
)
def test_events_of_any_sequence_go_the_short_way_in_order_and_the_long_one_late(
    sequence: list[str], select: str
) -> None:
    lab = made(select, sequence_by=sequence)
    ways = []
    for batch, row in enumerate(
        (event("k", 10, "A"), event("k", 20, "A"), event("k", 30, "C"), event("k", 15, "B")), 1
    ):
        lab.deliver("t", [(*row[:-1], batch)])
        lab.build()
        ways.append("in order" in lab.messages["history"])
    assert ways == [False, True, True, False]
    assert versions(lab, "history") == {"k": [("A", 10, 15), ("B", 15, 20), ("A", 20, 30), ("C", 30, None)]}


def test_a_new_generation_of_the_source_is_in_order() -> None:
    """Its positions begin anew, and it is the first of the sequence's columns."""
    lab = made(SELECT.replace(" seq,", " seq, move as _generation,"), sequence_by=["_generation", "seq"])
    for batch, (generation, seq, hour) in enumerate(((1, 70, 10), (2, 3, 20), (1, 80, 30)), 1):
        lab.deliver("t", [event("k", seq, f"A{batch}", batch, time=hour, move=generation)])
        lab.build()
        assert ("in order" in lab.messages["history"]) == (batch == 2)
    assert versions(lab, "history") == {"k": [("A1", 10, 30), ("A2", 30, None)]}


@pytest.mark.parametrize("rival", ["a MERGE", "a full refresh"])
def test_a_rival_between_survey_and_merge_stops_the_short_way(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = made()
    lab.deliver("t", [event("k", 10, "A")])
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 2)])
    query, table = lab.warehouse.query, "lab.history__cdc"

    def query_after_a_rival(sql: str) -> Any:
        if sql.startswith("merge into"):
            if rival == "a MERGE":
                lab.warehouse.tables[table].transactions[f"cdc:{table}"] = lab.version("history__cdc") + 1
            else:
                lab.warehouse.connection.execute(f"update {table} set _batch_id = 2")
        return query(sql)

    monkeypatch.setattr(lab.warehouse, "query", query_after_a_rival)
    try:
        failed = lab.build(check=False)["history"]
    except duckdb.Error as error:
        failed = str(error)
    assert "another run changed this table" in failed
    assert versions(lab, "history") == {"k": [("A", 10, None)]}


def test_values_of_a_personal_key_stand_in_no_statement_of_the_short_way() -> None:
    lab = made(meta={"key_is_personal": True})
    for batch in (1, 2):
        lab.warehouse.statements.clear()
        lab.deliver("t", [event("a@x.org", 10 * batch, "A", batch), event("b@x.org", 10 * batch, "B", batch)])
        lab.build()
    assert "in order" in lab.messages["history"]
    assert not [statement for statement in lab.warehouse.statements if "@x.org" in statement]


def test_a_reach_is_that_of_todays_options() -> None:
    """Given a state that becomes a history, Then the times of what was applied before count: the note has none."""
    lab = made()
    lab.model("history", "t", SELECT, **SCD1)
    lab.deliver("t", [event("k", 10, "A"), event("l", 45, "L"), event("l", 50, "L", time=100)])
    lab.build()
    lab.model("history", "t", SELECT, **SCD2)
    for batch, row in enumerate((event("k", 60, "B"), event("l", 70, "M", time=80), event("l", 90, "N", time=110)), 2):
        lab.deliver("t", [(*row[:-1], batch)])
        lab.build()
        assert ("in order" in lab.messages["history"]) == (batch == 4)
    assert versions(lab, "history") == {
        "k": [("A", 10, 60), ("B", 60, None)], "l": [("L", 45, 100), ("M", 100, 110), ("N", 110, None)],
    }  # fmt: skip


def test_the_short_way_takes_seven_statements_and_a_run_without_news_three() -> None:
    lab = made()

    def asked() -> list[str]:
        lab.warehouse.statements.clear()
        lab.build()
        kinds = [" ".join(statement.split()[:2]) for statement in lab.warehouse.statements]
        released = len(kinds) - kinds[::-1].index("begin execute") - 1  # from here on it is on-run-end
        return [kind for kind in kinds[:released] if kind != "set dbt.session.own"]  # asked once a run

    for batch in (1, 2):
        lab.deliver("t", [event("k", 10 * batch, "A", batch)])
        statements = asked()
    assert statements == [
        "describe query", "describe history", "select count_if(`_batch_id`", "cache lazy", "with events",
        "begin execute", "merge into",
    ]  # fmt: skip
    assert asked() == ["describe query", "describe history", "select count_if(`_batch_id`"]
    lab.execute("delete from lab.t where _batch_id = 2")
    with pytest.raises(AssertionError, match=r"applied up to 2 and lab\.t ends at 1"):
        asked()


def test_a_hook_never_writes_under_the_number_of_the_merge() -> None:
    """Given a session of the node's own, Then the number ends with it, but where a hook is still to run before."""
    for hooks, after in (([], []), (["optimize t"], ["begin execute"])):
        lab = made()
        lab.post_hooks += hooks
        for batch in (1, 2):
            lab.deliver("t", [event("k", 10 * batch, "A", batch)])
            lab.warehouse.statements.clear()
            lab.build()
        kinds = [" ".join(statement.split()[:2]) for statement in lab.warehouse.statements]
        merged, released = kinds.index("merge into"), len(kinds) - kinds[::-1].index("begin execute") - 1
        assert kinds[merged + 1 : released] == after


@pytest.mark.parametrize(
    ("late", "after", "counts"),
    [
        (event("k", 10, "A"), [("A", 10, None)], "read 2, duplicates 1, inserted 1"),
        (event("k", 20, "B"), [("A", 10, 20), ("B", 20, None)], "read 2, inserted 2"),
    ],
)
def test_a_source_that_changes_under_a_first_load_stops_it(late: Any, after: Any, counts: str) -> None:
    """Given an event that is there when rows are written, and was there once or not at all before, Then none is."""
    lab = made()
    lab.deliver("t", [event("k", 10, "A")])
    query = lab.warehouse.query

    def deliver_again(sql: str) -> Any:
        if sql.startswith("create table"):
            lab.deliver("t", [late])
        return query(sql)

    lab.warehouse.query = deliver_again  # type: ignore[method-assign]
    with pytest.raises(duckdb.Error, match=r"the source changed while it was read\. No row was written"):
        lab.build()
    assert lab.rows("history__cdc") == []
    lab.warehouse.query = query  # type: ignore[method-assign]
    lab.build()
    assert versions(lab, "history") == {"k": after}
    assert lab.messages["history"].startswith(counts)


@pytest.mark.parametrize("change", [{"on_schema_change": "fail"}, {"track_history": "a"}])
def test_a_run_without_news_still_sees_that_the_model_is_another(change: dict[str, Any]) -> None:
    """Given a note that tells of the table's model, When its config is another, Then the table is compared."""
    lab = made()
    for batch in (1, 2):
        lab.deliver("t", [event("k", 10 * batch, "A", batch)])
        lab.build()
    for given, is_compared in ((SCD2, False), (SCD2 | change, True)):
        lab.model("history", "t", SELECT, **given)
        lab.warehouse.statements.clear()
        lab.build()
        assert any(one.startswith("show tblproperties") for one in lab.warehouse.statements) is is_compared


def test_a_run_that_stops_before_the_properties_is_taken_up_by_one_without_news() -> None:
    """Given a merge under new options, and a stop before these are kept, Then the next run keeps them."""
    lab = made()
    lab.deliver("t", [event("k", 10, "A")])
    lab.build()
    lab.model("history", "t", SELECT, **SCD2, track_history="a")
    lab.deliver("t", [event("k", 20, "B", 2)])
    table, kept = lab.warehouse.tables["lab.history__cdc"], dict(lab.warehouse.tables["lab.history__cdc"].properties)
    lab.build()
    table.properties = dict(kept)
    del table.commits[-1]
    assert table.commits[-1][0] == "MERGE" and table.commits[-1][1], "a noted merge is the last commit now"
    lab.build()
    assert table.properties["lakehouse.cdc.options"] != kept["lakehouse.cdc.options"]
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}


def test_a_column_that_is_added_in_the_run_is_merged_in_order_after_it() -> None:
    lab = made(SELECT.replace(" c,", ""))
    lab.deliver("t", [event("k", 10, "A", c="x")])
    lab.build()
    lab.model("history", "t", SELECT, **SCD2)
    for batch, c in ((2, None), (3, "y")):
        lab.deliver("t", [event("k", 10 * batch, "A", batch, c=c)])
        lab.build()
        assert ("in order" in lab.messages["history"]) == (batch == 3), "the new column is a commit of its own"
    assert versions(lab, "history", "a", "c") == {"k": [("A", None, 10, 30), ("A", "y", 30, None)]}


def test_a_model_that_changes_strategy_is_derived_again_from_its_stored_events() -> None:
    lab = made()
    lab.model("entity", "t", SELECT, **SCD1)
    lab.deliver("t", [event("k", 10, "A"), event("k", 20, "B"), event("gone", 10, "G"), deleted("gone", 20)])
    lab.build("entity")
    assert states(lab, "entity") == {"k": ("B",)}
    lab.model("entity", "t", SELECT, **SCD2)
    lab.build("entity")
    assert versions(lab, "entity") == {"k": [("A", 10, 20), ("B", 20, None)], "gone": [("G", 10, 20)]}
    lab.model("entity", "t", SELECT, **SCD1)
    lab.build("entity")
    assert states(lab, "entity") == {"k": ("B",)}


def test_a_new_column_is_appended_and_an_old_event_delivered_again_is_still_a_duplicate() -> None:
    lab = made(SELECT.replace(" c,", ""))
    lab.deliver("t", [event("k", 10, "A", c="x")])
    lab.build()
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A", 2, c="x"), event("k", 20, "A", 2, c="y")])
    lab.build()
    assert versions(lab, "history", "a", "c") == {"k": [("A", None, 10, 20), ("A", "y", 20, None)]}
    assert "duplicates 1" in lab.messages["history"]


def test_on_schema_change_fail_and_ignore_and_sync() -> None:
    narrow, lab = SELECT.replace(" c,", ""), made()
    selects = {"fail": (narrow, SELECT), "ignore": (narrow, SELECT), "sync_all_columns": (SELECT, narrow)}
    lab.models.clear()
    lab.deliver("t", [event("k", 10, "A", c="x")])
    for batch in (0, 1):
        for word, select in selects.items():
            lab.model(word, "t", select[batch], **SCD2, on_schema_change=word)
        failed = lab.build(check=False)
        lab.deliver("t", [event("k", 20, "B", 2, c="y")])
    assert list(failed) == ["fail"] and "on_schema_change=fail" in failed["fail"]
    assert "c" not in lab.rows("ignore")[0] and "c" not in lab.rows("sync_all_columns")[0]
    assert {row["c"] for row in lab.rows("sync_all_columns__cdc")} == {"x", None}, "hidden, not dropped"


def test_the_counts_of_a_model_are_data_in_run_results(tmp_path: Path) -> None:
    """Given a late event and a delete, When the materialization ends, Then python_ops reads their numbers, no text."""
    lab = made()
    lab.deliver("t", [event("k", 10, "A"), event("k", 30, "C")])
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 2), deleted("k", 40, 2)])
    lab.build()
    done = {"message": lab.messages["history"], "counts": lab.counts["history"]}
    response: dict[str, Any] = {}

    def noop_statement(name: str, message: str, code: str, rows_affected: int, caller: Any) -> None:
        response.update(AdapterResponse(message, code, rows_affected).to_dict(omit_none=True))  # as store_raw_result

    def hand_back(value: Any) -> None:
        raise MacroReturn(value)

    context = {
        "cdc_apply": lambda sql: done, "noop_statement": noop_statement, "tojson": json.dumps, "return": hand_back,
        "config": {"incremental_strategy": "cdc_scd2"}, "sql": "", "run_hooks": lambda hooks: "",
        "check_config_keys": lambda config, strategy: "", "_check_strategy": lambda strategy: "",
        "model": {"config": {}},
        "this": BaseRelation.create(schema="lab", identifier="history"),
    }  # fmt: skip
    context["delta_cdc"] = dict(context)
    text = (PACKAGE / "macros/overrides/incremental.sql").read_text()
    with pytest.raises(MacroReturn):
        get_environment(None).from_string(text).make_module(context).dbt_macro__materialization_incremental_spark()

    result = {"unique_id": "model.lab.history", "status": "success", "message": response["_message"]}
    results = [{**result, "execution_time": 1, "adapter_response": response}]
    metadata = {"generated_at": "2026-01-01T00:00:00Z"}
    written = {"metadata": metadata, "args": {"which": "build"}, "results": results}
    (tmp_path / "run_results.json").write_text(json.dumps(written))
    counts = load_run_results(tmp_path).nodes["model.lab.history"].counts
    assert {name: counts.get(name) for name in ("read", "inserted", "deletes", "late", "ties")} == {
        "read": 2, "inserted": 2, "deletes": 1, "late": 1, "ties": None,
    }  # fmt: skip
    lab.build()
    assert lab.counts["history"] == {"read": 0}
