"""The scenarios of docs/cdc.md, and what must not break them: hostile keys, concurrency, changed models, bad events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cdc_lab import Lab

pytestmark = pytest.mark.spark

ORIGIN = dt.datetime(2025, 1, 1)
ARRIVED = dt.datetime(2025, 12, 31)
SELECT = "k, a, c, _op, seq, ts, _arrived_at, _batch_id"
BASE: dict[str, Any] = {
    "unique_key": "k", "sequence_by": "seq", "delete_when": "_op = 'd'", "truncate_when": "_op = 't'",
}  # fmt: skip
SCD2: dict[str, Any] = {"incremental_strategy": "cdc_scd2", "effective_at": "ts", **BASE}
SCD1: dict[str, Any] = {"incremental_strategy": "cdc_scd1", **BASE}


def event(key: Any, seq: int, a: str | None, batch: int = 1, op: str = "u", **other: Any) -> tuple[Any, ...]:
    """A bronze row: at hour `seq` the key has value `a`."""
    at = ORIGIN + dt.timedelta(hours=other.get("time", seq))
    unsent, move = other.get("unsent"), other.get("move")
    return (key, a, other.get("c"), op, seq, at, unsent, move, other.get("arrived", ARRIVED), batch)


def versions(lab: Lab, model: str) -> dict[Any, list[tuple[Any, ...]]]:
    """Per key: (value, from, to) in hours, oldest first; None is open."""
    found: dict[Any, list[tuple[Any, ...]]] = {}
    hours = lambda t: None if t is None else int((t - ORIGIN).total_seconds() // 3600)  # noqa: E731
    for row in sorted(lab.rows(model), key=lambda r: r["valid_from"]):
        found.setdefault(row["k"], []).append((row["a"], hours(row["valid_from"]), hours(row["valid_to"])))
    return found


def states(lab: Lab, model: str) -> dict[Any, Any]:
    """Per living key: its value."""
    return {row["k"]: row["a"] for row in lab.rows(model)}


@pytest.fixture
def lab(spark: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """An empty laboratory with one bronze table `t` (key k string, values a and c)."""
    schema = "s_" + "".join(ch if ch.isalnum() else "_" for ch in request.node.name)[:60].lower()
    made = Lab(spark, tmp_path, schema)
    made.bronze("t", "k string, a string, c string")
    yield made
    spark.sql(f"drop schema if exists {schema} cascade")


# Scenario: events of the first batch, events of the second, scd2 versions at the end, scd1 value at the end.
SCENARIOS: dict[str, tuple[list[Any], list[Any], list[Any], str | None]] = {
    "S1": ([(10, "A"), (20, "B"), (30, "C")], [], [("A", 10, 20), ("B", 20, 30), ("C", 30, None)], "C"),
    "S2": ([(10, "A"), (30, "C")], [(20, "B")], [("A", 10, 20), ("B", 20, 30), ("C", 30, None)], "C"),
    "S3": ([(20, "B")], [(10, "A")], [("A", 10, 20), ("B", 20, None)], "B"),
    "S4": ([(17, "A"), (20, None, "d")], [(18, "S")], [("A", 17, 18), ("S", 18, 20)], None),
    "S5": ([(20, None, "d")], [(10, "A")], [("A", 10, 20)], None),
    "S6": ([(10, "A"), (20, None, "d"), (30, "A")], [], [("A", 10, 20), ("A", 30, None)], "A"),
    "S7": ([(10, "A"), (10, "A"), (20, "B")], [(20, "B"), (10, "A")], [("A", 10, 20), ("B", 20, None)], "B"),
    "S8": ([(10, "A"), (20, "A"), (30, "B")], [(15, "B")],
           [("A", 10, 15), ("B", 15, 20), ("A", 20, 30), ("B", 30, None)], "B"),
    "S9a": ([(10, "A"), (30, "B")], [(20, "B")], [("A", 10, 20), ("B", 20, None)], "B"),
    "S9b": ([(10, "A"), (30, "B")], [(20, "A")], [("A", 10, 30), ("B", 30, None)], "B"),
    "S11": ([(10, None), (20, "x"), (30, None)], [], [(None, 10, 20), ("x", 20, 30), (None, 30, None)], None),
}  # fmt: skip


def test_scenarios_in_two_batches_and_in_one(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2)
    lab.model("current", "t", SELECT.replace(" ts,", ""), **SCD1)
    for batch in (0, 1):
        lab.deliver("t", [
            event(name, seq, a, batch + 1, *op)
            for name, scenario in SCENARIOS.items() for seq, a, *op in scenario[batch]
        ])  # fmt: skip
        lab.build()
    want = {name: scenario[2] for name, scenario in SCENARIOS.items()}
    alive = {name: s[3] for name, s in SCENARIOS.items() if s[2][-1][2] is None}
    assert versions(lab, "history") == want
    assert states(lab, "current") == alive
    lab.build(full_refresh=True)
    assert versions(lab, "history") == want
    assert states(lab, "current") == alive


def test_s10_a_tie_stops_the_model_and_is_resolved_without_a_full_refresh(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A"), event("other", 10, "A")])
    lab.build()
    version = lab.version("history__cdc")
    lab.deliver("t", [event("k", 10, "B", 2), event("other", 20, "B", 2)])
    (failed,) = lab.build(check=False)
    assert failed.status == "error"
    assert "1 tie(s)" in failed.message and "{k, 10}" in failed.message, failed.message
    assert "on_tie='warn'" in failed.message and "No full refresh is needed" in failed.message
    assert lab.version("history__cdc") == version, "a stopped model writes nothing"

    lab.spark.sql(f"delete from {lab.schema}.history__cdc where k = 'k' and seq = 10")
    lab.build()
    assert versions(lab, "history") == {
        "k": [("B", 10, None)],
        "other": [("A", 10, 20), ("B", 20, None)],
    }


def test_s10_a_delete_wins_a_tie_when_asked_to(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2, on_tie="warn")
    lab.deliver("t", [event("k", 10, "A"), event("k", 20, "B")])
    lab.build()
    lab.deliver("t", [event("k", 20, None, 2, "d")])
    lab.build()
    assert versions(lab, "history") == {"k": [("A", 10, 20)]}
    assert len(lab.rows("history__cdc")) == 2, "the stored row lost: replaced, not doubled"


def test_s12_a_late_value_flows_forward_where_null_means_not_sent(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2, ignore_null_updates=True)
    lab.deliver("t", [event("k", 10, "a", c="X"), event("k", 30, None, c="Y")])
    lab.build()
    lab.deliver("t", [event("k", 20, "b", 2, c=None)])
    lab.build()
    found = sorted((r["valid_from"].hour + 24 * (r["valid_from"].day - 1), r["a"], r["c"]) for r in lab.rows("history"))
    assert found == [(10, "a", "X"), (20, "b", "X"), (30, "b", "Y")]


def test_s13_a_key_change_closes_one_key_and_opens_the_other_with_its_unsent_value(
    lab: Lab,
) -> None:
    lab.model("history", "t", f"{SELECT}, _unsent, move as _move", **SCD2, moved_from="_move")
    lab.deliver("t", [event("1", 10, "A", c="big"), event("1", 20, None, op="d", move=7)])
    lab.build()
    lab.deliver("t", [event("2", 20, "A", 2, unsent=["c"], move=7)])
    lab.build()
    assert versions(lab, "history") == {"1": [("A", 10, 20)], "2": [("A", 20, None)]}
    assert {r["k"]: r["c"] for r in lab.rows("history")} == {"1": "big", "2": "big"}
    lab.deliver("t", [event("1", 15, "A", 3, c="bigger")])
    lab.build()
    assert {r["k"]: r["c"] for r in lab.rows("history", "*") if r["is_current"]} == {"2": "bigger"}, (
        "a late event of the old key must reach the new one"
    )


def test_s14_a_truncate_closes_every_key_also_for_later_arrivals(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2)
    lab.model("current", "t", SELECT.replace(" ts,", ""), **SCD1)
    lab.deliver("t", [event("a", 10, "A"), event("z", 20, "Z")])
    lab.build()
    lab.deliver("t", [event(None, 40, None, 2, "t"), event("new", 50, "N", 2)])
    lab.build()
    lab.deliver("t", [event("k", 35, "late", 3)])
    lab.build()
    assert versions(lab, "history") == {
        "a": [("A", 10, 40)], "z": [("Z", 20, 40)], "k": [("late", 35, 40)], "new": [("N", 50, None)],
    }  # fmt: skip
    assert states(lab, "current") == {"new": "N"}


def test_what_an_option_asks_for_belongs_to_the_payload(lab: Lab) -> None:
    """Given two events at one position that differ in a tracked `_status`, Then they are a tie, in both orders."""
    for order in (1, -1):
        name = f"order_{order + 1}"
        lab.bronze(name, "k string, a string, c string")
        select = SELECT.replace(" c,", " c as _status,")
        lab.model(name + "_tied", name, select, **SCD2, track_history=["_status"])
        lab.model(name + "_warned", name, select, **SCD2, track_history=["_status"], on_tie="warn")
        for batch, value in enumerate(("open", "closed")[::order], 1):
            lab.deliver(name, [event("k", 10, "A", batch, c=value)])
    outcome = {result.node.name: result for result in lab.build(check=False)}
    for order in (0, 2):
        failed = outcome[f"order_{order}_tied"]
        assert failed.status == "error" and "They differ in: _status." in failed.message, failed.message
    shown = [[row["_status"] for row in lab.rows(f"order_{order}_warned")] for order in (0, 2)]
    assert shown[0] == shown[1]


def test_a_repeat_at_another_time_keeps_the_earliest_time(lab: Lab) -> None:
    """As after a new snapshot in the middle of a stream: the values at the position are the stored ones."""
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver(
        "t", [event("k", 10, "A"), event("k", 20, "B"), event("gone", 10, "G"), event("gone", 20, None, op="d")]
    )
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 2, time=26), event("k", 20, "B", 2, time=23)])
    lab.build()
    assert versions(lab, "history")["k"] == [("A", 10, 20), ("B", 20, None)]
    assert "duplicates 2" in lab.messages["history"] and "inserted" not in lab.messages["history"]
    lab.deliver("t", [event("k", 20, "B", 3, time=17), event("gone", 20, None, 3, "d", time=15)])
    lab.build()
    want = {"k": [("A", 10, 17), ("B", 17, None)], "gone": [("G", 10, 15)]}
    assert versions(lab, "history") == want
    lab.deliver("t", [event("k", 20, "C", 4, time=17)])
    with pytest.raises(AssertionError, match=r"1 tie\(s\).*They differ in: a\."):
        lab.build()
    lab.spark.sql(f"delete from {lab.schema}.t where a = 'C'").collect()
    lab.build(full_refresh=True)
    assert versions(lab, "history") == want


HOSTILE = {
    "string": [
        "'",
        "\\",
        "a'b\\'c",
        "${env:HOME}",
        "${nope}",
        "",
        "null",
        "None",
        "2025-01-15",
        "é\u2028x",
        "--",
        "007",
    ],
    "bigint": [2**53, 2**53 + 1, -1, 0, 2**63 - 1, -(2**63)],
    "date": [
        dt.date(1, 1, 1),
        dt.date(1582, 10, 4),
        dt.date(1969, 12, 31),
        dt.date(2025, 1, 15),
        dt.date(9999, 12, 31),
    ],
    "timestamp": [
        dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
        dt.datetime(2025, 3, 30, 2, 30),
        dt.datetime(9999, 12, 31),
    ],
    "decimal(20,2)": [Decimal("9007199254740993.01"), Decimal("-0.01"), Decimal("0.00"), Decimal("1e17")],
}


def test_hostile_keys_of_every_type_find_their_stored_rows(lab: Lab) -> None:
    for key_type in HOSTILE:
        lab.bronze(f"keys_{key_type[:7]}", f"k {key_type}, a string, c string")
        lab.model(f"history_{key_type[:7]}", f"keys_{key_type[:7]}", SELECT, **SCD2)
    for batch, (seq, a) in enumerate([(10, "A"), (20, "B")], 1):
        for key_type, keys in HOSTILE.items():
            lab.deliver(f"keys_{key_type[:7]}", [event(key, seq, a, batch) for key in keys])
        lab.build()
    for key_type, keys in HOSTILE.items():
        model = f"history_{key_type[:7]}"
        assert versions(lab, model) == {key: [("A", 10, 20), ("B", 20, None)] for key in keys}, key_type
        history = lab.spark.sql(f"describe history {lab.schema}.{model}__cdc").where("operation = 'MERGE'")
        assert history.collect()[0]["operationMetrics"]["numTargetRowsUpdated"] == str(len(keys)), key_type


def test_one_outlier_does_not_make_the_merge_scan_everything(lab: Lab) -> None:
    """Twenty files of narrow key ranges: a batch of local keys and one far outlier may open three of them."""
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event(f"K{n:05d}", 10, "A") for n in range(2000)])
    lab.build()
    table = f"{lab.schema}.history__cdc"
    lab.spark.conf.set("spark.sql.files.maxRecordsPerFile", "100")
    try:
        rows = lab.spark.table(table).orderBy("k").coalesce(1)
        rows.write.format("delta").mode("overwrite").saveAsTable(table)
    finally:
        lab.spark.conf.unset("spark.sql.files.maxRecordsPerFile")
    lab.deliver("t", [event(f"K{n:05d}", 20, "B", 2) for n in [*range(1900, 1910), 5]])
    lab.build()
    metrics = lab.spark.sql(f"describe history {table} limit 1").collect()[0]["operationMetrics"]
    assert int(metrics["numTargetRowsUpdated"]) == 11
    assert int(metrics["numTargetFilesRemoved"]) + int(metrics["numTargetDeletionVectorsAdded"]) <= 3, metrics
    merge = lab.spark.sql(f"describe history {table}").where("operation = 'MERGE'").collect()[0]
    assert "K00005" in merge["operationParameters"]["predicate"], "the outlier is a range of its own"


def test_rows_that_arrive_while_the_engine_works_are_left_for_the_next_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dbt_spark_sessions as session

    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 2)])
    execute = session.Cursor.execute
    delivered = []

    def execute_and_append(cursor: Any, sql: str, *parameters: Any) -> None:
        if "merge into" in sql and not delivered:
            delivered.append(True)
            lab.deliver("t", [event("k", 30, "C", 3), event("k", 15, "late", 3)])
        execute(cursor, sql, *parameters)

    monkeypatch.setattr(session.Cursor, "execute", execute_and_append)
    lab.build()
    assert delivered
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}
    lab.build()
    assert versions(lab, "history") == {"k": [("A", 10, 15), ("late", 15, 20), ("B", 20, 30), ("C", 30, None)]}


def test_a_commit_by_another_run_between_read_and_merge_fails_the_model_and_loses_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dbt_spark_sessions as session

    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 2)])
    execute = session.Cursor.execute
    table = f"{lab.schema}.history__cdc"
    read = lab.version("history__cdc")

    def execute_after_a_rival(cursor: Any, sql: str, *parameters: Any) -> None:
        if "merge into" in sql.lower() and "using (" in sql:
            monkeypatch.setattr(session.Cursor, "execute", execute)
            rival = lab.spark.newSession()
            rival.conf.set("spark.databricks.delta.write.txnAppId", f"cdc:{table}")
            rival.conf.set("spark.databricks.delta.write.txnVersion", str(read + 1))
            rival.sql(f"merge into {table} t using {table} s on t.k = s.k when matched then update set t.c = 'rival'")
        execute(cursor, sql, *parameters)

    monkeypatch.setattr(session.Cursor, "execute", execute_after_a_rival)
    (failed,) = lab.build(check=False)
    assert failed.status == "error" and "another run changed this table" in failed.message, failed.message
    lab.build()
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}


def test_a_merge_that_fails_leaves_no_transaction_number_on_the_session(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dbt_spark_sessions as session

    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 2)])
    execute = session.Cursor.execute

    def execute_a_broken_merge(cursor: Any, sql: str, *parameters: Any) -> None:
        execute(cursor, sql.replace("merge into", "merge over"), *parameters)

    with monkeypatch.context() as patched:
        patched.setattr(session.Cursor, "execute", execute_a_broken_merge)
        (failed,) = lab.build(check=False)
    assert failed.status == "error"
    assert lab.spark.conf.get("spark.databricks.delta.write.txnAppId", None) is None
    assert lab.spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None
    lab.build()
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}


def test_a_restored_storage_table_catches_up(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    lab.build()
    before = lab.version("history__cdc")
    lab.deliver("t", [event("k", 20, "B", 2)])
    lab.build()
    lab.deliver("t", [event("k", 20, "B", 3)])
    lab.build()
    lab.spark.sql(f"restore table {lab.schema}.history__cdc to version as of {before}")
    lab.build()
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}


def test_a_mark_beyond_the_source_is_refused_with_both_numbers(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2)
    lab.build()
    lab.build()
    assert "nothing new" in lab.messages["history"], "no mark yet, and an empty source"
    lab.deliver("t", [event("k", 10, "A", 3)])
    lab.build()
    table = f"{lab.schema}.history__cdc"
    lab.spark.sql(f"alter table {table} set tblproperties ('lakehouse.cdc.watermark' = '70')")
    lab.deliver("t", [event("k", 20, "B", 4)])
    with pytest.raises(AssertionError, match=r"applied up to 70 and .* ends at 4"):
        lab.build()
    lab.spark.sql(f"alter table {table} unset tblproperties ('lakehouse.cdc.watermark')")
    lab.build()
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}

    lab.spark.sql(f"delete from {lab.schema}.t").collect()
    lab.build()
    assert "nothing new" in lab.messages["history"], "an empty source has nothing to compare with"
    lab.deliver("t", [event("k", 10, "X", 1)])
    with pytest.raises(AssertionError, match=r"applied up to 4 and .* ends at 1"):
        lab.build()
    lab.model("other", "t", SELECT.replace("_batch_id", "_batch_id + 0 as arrival"), **SCD2, watermark="arrival")
    lab.build("other")
    lab.build("other")
    assert "nothing new" in lab.messages["other"], "a watermark that the source does not have"

    lab.sql("stg", "select * from {{ source('bronze', 't') }}", materialized="ephemeral")
    lab.sql("behind", f"select {SELECT} from {{{{ ref('stg') }}}}", **SCD2)
    lab.build("behind")
    lab.spark.sql(f"alter table {lab.schema}.behind__cdc set tblproperties ('lakehouse.cdc.watermark' = '70')")
    with pytest.raises(AssertionError, match=r"applied up to 70 and .* ends at 1"):
        lab.build("behind")


def test_a_listing_that_fails_is_no_first_load(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given bronze lost its first batch and dbt takes the schema for empty (dbt-spark#950), Then history stays."""
    import dbt_spark_sessions as session

    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A"), event("old", 10, "O")])
    lab.build()
    lab.spark.sql(f"delete from {lab.schema}.t").collect()
    lab.deliver("t", [event("k", 20, "B", 2)])
    execute = session.Cursor.execute
    failed = []

    def execute_but_list_nothing(cursor: Any, sql: str, *parameters: Any) -> None:
        if "show table extended" in sql:
            failed.append(sql)
            sql = f"select * from {lab.schema}.dropped_meanwhile"
        execute(cursor, sql, *parameters)

    monkeypatch.setattr(session.Cursor, "execute", execute_but_list_nothing)
    lab.build()
    assert failed
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)], "old": [("O", 10, None)]}
    monkeypatch.setattr(session.Cursor, "execute", execute)

    lab.model("second", "t", SELECT, **SCD2)
    table = f"{lab.schema}.second__cdc"

    def execute_after_a_rival(cursor: Any, sql: str, *parameters: Any) -> None:
        if f"table {table}" in sql:
            lab.spark.sql(f"create table if not exists {table} using delta as select 'theirs' as k")
        execute(cursor, sql, *parameters)

    monkeypatch.setattr(session.Cursor, "execute", execute_after_a_rival)
    (refused,) = lab.build("second", check=False)
    assert refused.status == "error" and "already exists" in refused.message, refused.message
    assert lab.rows("second__cdc") == [{"k": "theirs"}], "a first load replaces nothing"


@pytest.mark.parametrize("watermark", [True, False])
def test_what_is_applied_is_read_from_the_last_commit_and_from_the_rows_after_any_other(
    lab: Lab, watermark: bool
) -> None:
    lab.model("history", "t", SELECT if watermark else SELECT.replace(", _batch_id", ""), **SCD2)
    table = f"{lab.schema}.history__cdc"
    asked: list[str] = []

    def listen(one: Any) -> None:
        if one.info.name == "SQLQuery" and f"as truncates\nfrom {table}" in one.data.sql:
            asked.append(one.data.sql)

    def build(*events: Any) -> int:
        asked.clear()
        lab.deliver("t", list(events))
        lab.build(callbacks=[listen])
        return len(asked)

    assert build(event("k", 10, "A")) == 0
    assert build(event("k", 20, "B", 2)) == 0
    assert build(event("k", 30, "C", 3)) == 0
    lab.spark.sql(f"delete from {table} where seq = 20").collect()
    assert build(event("k", 40, "D", 4)) == 1, "a statement by hand may have changed what is applied"
    lab.spark.sql(f"optimize {table} full").collect()
    assert build(event("k", 50, "E", 5)) == 1
    assert build(event("k", 60, "F", 6)) == 0
    gone = [] if watermark else [("B", 20, 30)]  # without a watermark everything is read every time
    kept = [("C", 30, 40), ("D", 40, 50), ("E", 50, 60), ("F", 60, None)]
    assert versions(lab, "history") == {"k": [("A", 10, 20 if gone else 30), *gone, *kept]}
    assert lab.rows("history__cdc", "max(_cdc_batch_id) as run") == [{"run": 6}]


def test_some_keys_of_a_file_are_read_without_the_rest_of_it(lab: Lab) -> None:
    """Given a file of 60 000 keys, new or after OPTIMIZE, Then a range of keys reads a third of it at most."""
    lab.bronze("many", "k bigint, a string, c string")
    lab.spark.sql(
        f"insert into {lab.schema}.many select id, concat('a', id), null, 'c', 1, timestamp '2025-01-01', null, null,"
        " timestamp '2025-01-01', 1 from range(60000) distribute by hash(id)"
    )
    lab.model("state", "many", SELECT, **SCD1)
    lab.build("state")
    table = f"{lab.schema}.state__cdc"
    assert rows_scanned(lab, f"select * from {table} where k between 30000 and 30100") <= 20_000
    lab.spark.sql(f"optimize {table} full").collect()
    assert rows_scanned(lab, f"select * from {table} where k between 30000 and 30100") <= 20_000


def rows_scanned(lab: Lab, query: str) -> int:
    """Rows that the scans of a query gave, before its filters."""
    frame = lab.spark.sql(query)
    frame.collect()

    def scanned(plan: Any) -> int:
        if plan.nodeName() == "AdaptiveSparkPlan":
            return scanned(plan.executedPlan())
        if plan.nodeName().startswith("Scan"):
            return int(plan.metrics().apply("numOutputRows").value())
        children = plan.children()
        return sum(scanned(children.apply(place)) for place in range(children.size()))

    return scanned(frame._jdf.queryExecution().executedPlan())


def test_a_model_that_changes_strategy_is_derived_again_from_its_stored_events(lab: Lab) -> None:
    lab.model("entity", "t", SELECT, **SCD1)
    lab.deliver(
        "t",
        [
            event("k", 10, "A"),
            event("k", 20, "B"),
            event("gone", 10, "G"),
            event("gone", 20, None, op="d"),
        ],
    )
    lab.build()
    assert states(lab, "entity") == {"k": "B"}
    lab.model("entity", "t", SELECT, **SCD2)
    lab.build()
    assert versions(lab, "entity") == {
        "k": [("A", 10, 20), ("B", 20, None)],
        "gone": [("G", 10, 20)],
    }
    lab.model("entity", "t", SELECT, **SCD1)
    lab.build()
    assert states(lab, "entity") == {"k": "B"}


def test_a_table_of_the_same_name_becomes_a_cdc_model_and_back(lab: Lab) -> None:
    lab.deliver("t", [event("k", 10, "A")])
    lab.model("entity", "t", SELECT, materialized="table")
    lab.build()
    lab.model("entity", "t", SELECT, **SCD2)
    lab.build()
    assert versions(lab, "entity") == {"k": [("A", 10, None)]}
    lab.model("entity", "t", SELECT, materialized="table")
    lab.build()
    assert states(lab, "entity") == {"k": "A"}


def test_a_new_column_is_appended_and_an_old_event_delivered_again_is_still_a_duplicate(
    lab: Lab,
) -> None:
    lab.model("history", "t", SELECT.replace(" c,", ""), **SCD2)
    lab.deliver("t", [event("k", 10, "A", c="x")])
    lab.build()
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A", 2, c="x"), event("k", 20, "A", 2, c="y")])
    lab.build()
    found = sorted((r["valid_from"].hour, r["a"], r["c"]) for r in lab.rows("history"))
    assert found == [(10, "A", None), (20, "A", "y")]
    assert "duplicates 1" in lab.messages["history"]


def test_the_columns_of_a_model_with_unsent_values_may_be_edited_in_any_way(lab: Lab) -> None:
    """Without a full refresh, with deliveries after each edit; a value that was not sent is carried across edits."""
    words = {"appended": "append_new_columns", "synced": "sync_all_columns"}
    edits = {
        "as it was": "k, a, c",
        "added in the middle": "k, a, cast(ts as timestamp_ntz) as seen_at, concat(c, '!') as `it's`, c",
        "removed": "k, concat(c, '!') as `it's`, c",
        "renamed, and in another order": "k, c, concat(c, '!') as loud",
        "back": "k, a, concat(c, '!') as loud, c",
    }
    hour = 0
    for edit, columns in edits.items():
        select = f"{columns}, _op, seq, ts, _unsent, _arrived_at, _batch_id"
        for model, word in words.items():
            lab.model(model, "t", select, **SCD2, on_schema_change=word)
        for _ in range(2 if hour else 1):
            hour += 1
            c, unsent = ("big", None) if hour == 1 else (None, ["c", "it's", "loud"])
            lab.deliver("t", [event(key, hour, f"a{hour}", hour, c=c, unsent=unsent) for key in "kl"])
            lab.build()
            for model in words:
                now = [row for row in lab.rows(model) if row["is_current"]]
                assert {row["k"]: row["c"] for row in now} == {"k": "big", "l": "big"}, (edit, model)
                if "a," in columns:
                    assert {row["a"] for row in now} == {f"a{hour}"}, (edit, model)
    shown = "k a loud c ts seq _arrived_at valid_from valid_to is_current _batch_id"
    assert set(lab.rows("synced")[0]) == set(shown.split())


def test_on_schema_change_fail_and_ignore_and_sync(lab: Lab) -> None:
    narrow = SELECT.replace(" c,", "")
    for word in ("fail", "ignore", "sync_all_columns"):
        lab.model(
            word,
            "t",
            narrow if word != "sync_all_columns" else SELECT,
            **SCD2,
            on_schema_change=word,
        )
    lab.deliver("t", [event("k", 10, "A", c="x")])
    lab.build()
    for word in ("fail", "ignore", "sync_all_columns"):
        lab.model(
            word,
            "t",
            SELECT if word != "sync_all_columns" else narrow,
            **SCD2,
            on_schema_change=word,
        )
    lab.deliver("t", [event("k", 20, "B", 2, c="y")])
    outcome = {r.node.name: r for r in lab.build(check=False)}
    assert outcome["fail"].status == "error" and "on_schema_change=fail" in outcome["fail"].message
    assert outcome["ignore"].status == outcome["sync_all_columns"].status == "success", outcome
    assert "c" not in lab.rows("ignore")[0] and "c" not in lab.rows("sync_all_columns")[0]
    assert {r["c"] for r in lab.rows("sync_all_columns__cdc")} == {"x", None}, "hidden, not dropped"


def test_a_type_that_widens_at_the_source_widens_in_place_and_any_other_is_refused(lab: Lab) -> None:
    """As after a full refresh: keys, values, views, and values that were carried forward."""
    words = {"history": "append_new_columns", "state": "sync_all_columns", "strict": "fail"}
    lab.bronze("n", "k int, a decimal(12,2), c int")
    for model, word in words.items():
        options = SCD1 if model == "state" else SCD2
        lab.model(model, "n", SELECT, **options, ignore_null_updates=True, on_schema_change=word)
    lab.deliver("n", [event(1, 10, Decimal("1.50"), c=5), event(1, 20, None), event(2, 10, Decimal("2.25"), c=7)])
    lab.build()
    lab.spark.sql(f"alter table {lab.schema}.n set tblproperties ('delta.enableTypeWidening' = 'true')")
    for column, wider in (("k", "bigint"), ("a", "decimal(14,4)"), ("c", "bigint")):
        lab.spark.sql(f"alter table {lab.schema}.n alter column {column} type {wider}")
    late, again = event(1, 15, None, 2, c=2**40), event(2, 10, Decimal("2.25"), 2, c=7)
    lab.deliver("n", [late, again, event(2**40, 10, Decimal("1234567890.1234"), 2, c=1)])

    outcome = {r.node.name: r for r in lab.build(check=False)}
    assert outcome["strict"].status == "error" and "bigint" in outcome["strict"].message
    assert outcome["history"].status == outcome["state"].status == "success", outcome
    assert "duplicates 1" in lab.messages["history"] and "inserted 2" in lab.messages["history"]
    found = [(r["k"], r["a"], r["c"]) for r in lab.rows("history") if r["is_current"]]
    assert sorted(found) == [
        (1, Decimal("1.5000"), 2**40), (2, Decimal("2.2500"), 7), (2**40, Decimal("1234567890.1234"), 1),
    ]  # fmt: skip

    def shown() -> list[list[str]]:
        rows = [lab.rows(model) for model in ("history", "state")]
        return [sorted(str({**row, "_batch_id": None}) for row in some) for some in rows]

    before = shown()
    version = lab.version("history__cdc")
    lab.build("history", "state")
    assert lab.version("history__cdc") == version, "once"
    lab.build("history", "state", full_refresh=True)
    assert shown() == before

    lab.model(
        "history", "n", SELECT.replace(" a,", " cast(a as decimal(14,2)) as a,"), **SCD2, ignore_null_updates=True
    )
    with pytest.raises(AssertionError, match=r"decimal\(14,4\), as stored"):
        lab.build("history")


BAD_EVENTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "no_key": (event(None, 10, "A"), "1 event(s) without a key (k)"),
    "no_sequence": (
        ("k", "A", None, "u", None, ORIGIN, None, None, ARRIVED, 1), "1 event(s) without a sequence (seq)",
    ),
    "no_time": (("k", "A", None, "u", 10, None, None, None, ARRIVED, 1), "1 event(s) without ts"),
    "no_batch": (("k", "A", None, "u", 10, ORIGIN, None, None, ARRIVED, None), "1 event(s) without _batch_id"),
    "future": (event("k", 72, "A", arrived=ORIGIN), "more than a day after their arrival"),
}  # fmt: skip


def test_events_the_engine_cannot_place_stop_the_model(lab: Lab) -> None:
    for name, (row, _) in BAD_EVENTS.items():
        lab.bronze(name, "k string, a string, c string")
        lab.model(f"history_{name}", name, SELECT, **SCD2)
        lab.deliver(name, [event("good", 10, "A"), row])
    outcome = {result.node.name: result for result in lab.build(check=False)}
    for name, (_, text) in BAD_EVENTS.items():
        failed = outcome[f"history_{name}"]
        assert failed.status == "error" and text in failed.message, failed.message
        assert "Nothing was written" in failed.message, failed.message


def test_a_full_refresh_that_would_lose_history_is_refused(lab: Lab) -> None:
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A", 1), event("k", 20, "B", 2)])
    lab.build()
    lab.spark.sql(f"delete from {lab.schema}.t where _batch_id = 1")
    (failed,) = lab.build(full_refresh=True, check=False)
    assert failed.status == "error" and "--full-refresh refused" in failed.message, failed.message
    assert versions(lab, "history") == {"k": [("A", 10, 20), ("B", 20, None)]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"unique_key": None}, "unique_key: expected"),
    ({"sequence_by": None}, "sequence_by: expected"),
    ({"sequence_by": "nope"}, "sequence_by: expected a column of the SELECT"),
    ({"effective_at": None}, "effective_at: expected a timestamp column"),
    ({"effective_at": "a"}, "effective_at: expected a timestamp or date column"),
    ({"on_tie": "guess"}, "on_tie: expected"),
    ({"track_history": ["nope"]}, "track_history"),
    ({"track_history_exept": ["a"]}, "did you mean track_history_except?"),
    ({"apply_as_deletes": "_op = 'd'"}, "here it is delete_when"),
    ({"incremental_strategy": "merge"}, "it belongs to cdc_scd1 and cdc_scd2"),
]


def test_a_wrong_configuration_says_expected_got_and_fix(lab: Lab) -> None:
    for number, (change, _) in enumerate(WRONG):
        lab.model(f"history_{number}", "t", SELECT, **{**SCD2, **change})
    lab.deliver("t", [event("k", 10, "A")])
    outcome = {result.node.name: result for result in lab.build(check=False)}
    for number, (_, text) in enumerate(WRONG):
        failed = outcome[f"history_{number}"]
        assert failed.status == "error" and text in failed.message and "Fix:" in failed.message, failed.message
