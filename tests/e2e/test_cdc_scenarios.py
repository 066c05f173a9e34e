"""What only Spark and Delta can prove of the engine: hostile keys, pruning, concurrency, restore, changed models.

What the engine computes is proven on DuckDB (tests/engine). Of its scenarios a few are here too, beside the others.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Generator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from cdc_lab import FULL_REFRESH, MAY_FAIL, Lab, Scenario
from cdc_scenarios import (
    COLUMNS,
    GROUPS,
    SELECT,
    SELECT_UNSENT,
    batches,
    deleted,
    differences,
    event,
    states,
    versions,
)
from cdc_sets import SCD1, SCD2
from rendering import load

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

Steps = Generator[str | None, None, None]
SCENARIOS: dict[str, Scenario] = {}
A_THEN_B = {"k": [("A", 10, 20), ("B", 20, None)]}


def scenario(steps: Scenario, name: str = "") -> Scenario:
    """One of those that share their dbt runs. It begins with an empty bronze table `t`, and its names are its own."""

    def begun(lab: Lab) -> Steps:
        lab.bronze("t", COLUMNS)
        yield from steps(lab)

    SCENARIOS[name or steps.__name__] = begun
    return steps


def documented(*groups: str) -> Scenario:
    """The scenarios of docs/cdc.md whose configurations go together, in one table."""

    def steps(lab: Lab) -> Steps:
        select = max((GROUPS[group].select for group in groups), key=len)
        options = {name: value for group in groups for name, value in GROUPS[group].options.items()}
        lab.model("m", "t", select, **SCD2, **options)
        for parcels in itertools.zip_longest(*map(batches, groups), fillvalue=[]):
            lab.deliver("t", [row for parcel in parcels for row in parcel])
            yield None
        assert [differences(lab, group, "history", "m") for group in groups] == [{}] * len(groups)

    return steps


scenario(documented("plain", "warn", "moved"), "documented")
scenario(documented("truncated"), "documented_truncates")


@scenario
def what_an_option_asks_for_belongs_to_the_payload(lab: Lab) -> Steps:
    """Given two events at one position that differ in a tracked `_status`, Then they are a tie, in both orders."""
    orders = {"forth": ("open", "closed"), "back": ("closed", "open")}
    for name, order in orders.items():
        lab.bronze(name, COLUMNS)
        select = SELECT.replace(" c,", " c as _status,")
        lab.model(name + "_warned", name, select, **SCD2, track_history=["_status"], on_tie="warn")
        for batch, value in enumerate(order, 1):
            lab.deliver(name, [event("k", 10, "A", batch, c=value)])
    lab.model("tied", "back", select, **SCD2, track_history=["_status"])
    yield MAY_FAIL
    assert list(lab.failed) == ["tied"] and "They differ in: _status." in lab.failed["tied"]
    forth, back = ([row["_status"] for row in lab.rows(f"{name}_warned")] for name in orders)
    assert forth == back


@scenario
def a_repeat_at_another_time_keeps_the_earliest_time(lab: Lab) -> Steps:
    """As after a new snapshot in the middle of a stream: the values at the position are the stored ones."""
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A"), event("k", 20, "B"), event("gone", 10, "G"), deleted("gone", 20)])
    yield None
    lab.deliver("t", [event("k", 20, "B", 2, time=26), event("k", 20, "B", 2, time=23)])
    yield None
    assert versions(lab, "history")["k"] == A_THEN_B["k"]
    assert "duplicates 2" in lab.messages["history"] and "inserted" not in lab.messages["history"]
    lab.deliver("t", [event("k", 20, "B", 3, time=17), deleted("gone", 20, 3, time=15)])
    yield None
    want = {"k": [("A", 10, 17), ("B", 17, None)], "gone": [("G", 10, 15)]}
    assert versions(lab, "history") == want
    lab.deliver("t", [event("k", 20, "C", 4, time=17)])
    yield MAY_FAIL
    assert "1 tie(s)" in lab.failed["history"] and "They differ in: a." in lab.failed["history"]
    lab.spark.sql(f"delete from {lab.table('t')} where a = 'C'").collect()
    yield FULL_REFRESH
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


def hostile_keys(*key_types: str) -> Scenario:
    """A history by keys of each type, and a second event of every key."""

    def steps(lab: Lab) -> Steps:
        for key_type in key_types:
            lab.bronze(f"keys_{key_type[:7]}", f"k {key_type}, a string, c string")
            lab.model(f"history_{key_type[:7]}", f"keys_{key_type[:7]}", SELECT, **SCD2)
        for batch, (seq, a) in enumerate([(10, "A"), (20, "B")], 1):
            for key_type in key_types:
                lab.deliver(f"keys_{key_type[:7]}", [event(key, seq, a, batch) for key in HOSTILE[key_type]])
            yield None
        for key_type in key_types:
            model, keys = f"history_{key_type[:7]}", HOSTILE[key_type]
            assert versions(lab, model) == dict.fromkeys(keys, A_THEN_B["k"]), key_type
            history = lab.spark.sql(f"describe history {lab.table(model)}__cdc").where("operation = 'MERGE'")
            assert history.collect()[0]["operationMetrics"]["numTargetRowsUpdated"] == str(len(keys)), key_type

    return steps


scenario(hostile_keys("string"), "hostile_texts_find_their_stored_rows")
scenario(hostile_keys(*HOSTILE), "hostile_keys_of_every_type_find_their_stored_rows")


@scenario
def one_outlier_does_not_make_the_merge_scan_everything(lab: Lab) -> Steps:
    """Twenty files of narrow key ranges: a batch of local keys and one far outlier may open three of them."""
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event(f"K{n:05d}", 10, "A") for n in range(2000)])
    yield None
    table = lab.table("history__cdc")
    lab.spark.conf.set("spark.sql.files.maxRecordsPerFile", "100")
    try:
        rows = lab.spark.table(table).orderBy("k").coalesce(1)
        rows.write.format("delta").mode("overwrite").saveAsTable(table)
    finally:
        lab.spark.conf.unset("spark.sql.files.maxRecordsPerFile")
    lab.deliver("t", [event(f"K{n:05d}", 20, "B", 2) for n in [*range(1900, 1910), 5]])
    yield None
    (merge,) = lab.spark.sql(f"describe history {table}").where("operation = 'MERGE'").collect()
    metrics = merge["operationMetrics"]
    assert int(metrics["numTargetRowsUpdated"]) == 11
    assert int(metrics["numTargetFilesRemoved"]) + int(metrics["numTargetDeletionVectorsAdded"]) <= 3, metrics
    assert "K00005" in merge["operationParameters"]["predicate"], "the outlier is a range of its own"


@scenario
def some_keys_of_a_file_are_read_without_the_rest_of_it(lab: Lab) -> Steps:
    """Given a file of 60 000 keys, new or after OPTIMIZE, Then a range of keys reads a third of it at most."""
    lab.bronze("many", "k bigint, a string, c string")
    lab.spark.sql(
        f"insert into {lab.table('many')} select id, concat('a', id), null, 'c', 1, timestamp '2025-01-01', null, null,"
        " timestamp '2025-01-01', 1 from range(60000) distribute by hash(id)"
    )
    lab.model("state", "many", SELECT, **SCD1)
    yield None
    table = lab.table("state__cdc")
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


@scenario
def rows_that_arrive_while_the_engine_works_are_left_for_the_next_run(lab: Lab) -> Steps:
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    yield None
    lab.deliver("t", [event("k", 20, "B", 2)])
    delivered = []

    def deliver_more(cursor: Any, sql: str) -> None:
        if f"merge into {lab.table('history__cdc')}" in sql and not delivered:
            delivered.append(True)
            lab.deliver("t", [event("k", 30, "C", 3), event("k", 15, "late", 3)])

    lab.watchers.append(deliver_more)
    yield None
    assert delivered
    assert versions(lab, "history") == A_THEN_B
    yield None
    assert versions(lab, "history") == {"k": [("A", 10, 15), ("late", 15, 20), ("B", 20, 30), ("C", 30, None)]}


@scenario
def a_commit_by_another_run_between_read_and_merge_fails_the_model_and_loses_nothing(lab: Lab) -> Steps:
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    yield None
    lab.deliver("t", [event("k", 20, "B", 2)])
    table, read, rivals = lab.table("history__cdc"), lab.version("history__cdc"), []

    def commit_first(cursor: Any, sql: str) -> None:
        if f"merge into {table}" in sql and not rivals:
            rivals.append(lab.spark.newSession())
            rivals[0].conf.set("spark.databricks.delta.write.txnAppId", f"cdc:{table}")
            rivals[0].conf.set("spark.databricks.delta.write.txnVersion", str(read + 1))
            merge = f"merge into {table} t using {table} s on t.k = s.k when matched then update set t.c = 'rival'"
            rivals[0].sql(merge).collect()

    lab.watchers.append(commit_first)
    yield MAY_FAIL
    assert rivals
    assert "another run changed this table" in lab.failed["history"]
    yield None
    assert versions(lab, "history") == A_THEN_B


@scenario
def the_transaction_number_of_a_merge_that_fails_ends_with_its_nodes_session(lab: Lab) -> Steps:
    """Given a MERGE that fails, Then its number was on its node's session and on no other; the retry begins clean."""
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    yield None
    lab.deliver("t", [event("k", 20, "B", 2)])
    settings = ("spark.databricks.delta.write.txnAppId", "spark.databricks.delta.commitInfo.userMetadata")
    at_first: dict[Any, list[str | None]] = {}  # of each node's session, before its first statement
    merging: list[Any] = []

    def kept(session: Any) -> list[str | None]:
        return [session.conf.get(name, None) for name in settings]

    def break_the_first_merge(cursor: Any, sql: str) -> str:
        session = cursor._connection.session
        at_first.setdefault(session, kept(session))
        if f"merge into {lab.table('history__cdc')}" in sql:
            merging.append(session)
            return sql.replace("merge into", "merge over") if len(merging) == 1 else sql
        return sql

    lab.watchers.append(break_the_first_merge)
    yield MAY_FAIL
    assert "merge over" in lab.failed["history"] or "PARSE_SYNTAX_ERROR" in lab.failed["history"]
    assert kept(merging[0])[0] == f"cdc:{lab.table('history__cdc')}"
    assert kept(lab.spark) == [None, None]
    yield None
    assert len(merging) == 2 and merging[0] is not merging[1]
    assert set(map(tuple, at_first.values())) == {(None, None)}
    assert versions(lab, "history") == A_THEN_B


@scenario
def a_run_that_dies_after_its_merge_is_finished_by_the_next(lab: Lab) -> Steps:
    """At the first statement after it, which is there because a hook is still to run."""
    lab.model("history", "t", SELECT, **SCD2, post_hook="select 1")
    lab.deliver("t", [event("k", 10, "A")])
    yield None
    lab.deliver("t", [event("k", 20, "B", 2)])
    merged: list[Any] = []

    def die_after_the_merge(cursor: Any, sql: str) -> None:
        if len(merged) == 1 and cursor._connection is merged[0]:
            merged.append("dead")
            raise OSError("killed")
        if f"merge into {lab.table('history__cdc')}" in sql:
            merged.append(cursor._connection)

    lab.watchers.append(die_after_the_merge)
    yield MAY_FAIL
    assert merged[1:] == ["dead"] and "killed" in lab.failed["history"]
    version = lab.version("history__cdc")
    yield None
    assert "nothing new" in lab.messages["history"] and lab.version("history__cdc") == version
    assert versions(lab, "history") == A_THEN_B


@scenario
def a_restored_storage_table_catches_up(lab: Lab) -> Steps:
    lab.model("history", "t", SELECT, **SCD2)
    lab.deliver("t", [event("k", 10, "A")])
    yield None
    before = lab.version("history__cdc")
    for batch in (2, 3):  # the second is a duplicate, whose mark is a property
        lab.deliver("t", [event("k", 20, "B", batch)])
        yield None
    lab.spark.sql(f"restore table {lab.table('history__cdc')} to version as of {before}").collect()
    assert versions(lab, "history") == {"k": [("A", 10, None)]}
    yield None
    assert versions(lab, "history") == A_THEN_B
    first, second, third = lab.explain("history", "k")[2:]
    assert "duplicate" in third and "duplicate" not in first + second


@scenario
def a_mark_beyond_the_source_is_refused_with_both_numbers(lab: Lab) -> Steps:
    """Of the source's table, also where an ephemeral model is between."""
    lab.model("history", "t", SELECT, **SCD2)
    lab.model("stg", "t", "*", materialized="ephemeral")
    lab.sql("behind", f"select {SELECT} from {{{{ ref('{lab.prefix}stg') }}}}", **SCD2)
    lab.deliver("t", [event("k", 10, "A", 3)])
    yield None
    for model in ("history", "behind"):
        lab.spark.sql(f"alter table {lab.table(model)}__cdc set tblproperties ('lakehouse.cdc.watermark' = '70')")
    lab.deliver("t", [event("k", 20, "B", 4)])
    yield MAY_FAIL
    assert set(lab.failed) == {"history", "behind"}
    assert all("applied up to 70 and" in text and "ends at 4" in text for text in lab.failed.values()), lab.failed
    for model in ("history", "behind"):
        lab.spark.sql(f"alter table {lab.table(model)}__cdc unset tblproperties ('lakehouse.cdc.watermark')")
    yield None
    assert versions(lab, "history") == versions(lab, "behind") == A_THEN_B


@scenario
def what_is_applied_is_read_from_the_last_commit_and_from_the_rows_after_any_other(lab: Lab) -> Steps:
    lab.model("history", "t", SELECT, **SCD2)
    table = lab.table("history__cdc")
    asked: list[str] = []
    lab.watchers.append(lambda cursor, sql: asked.append(sql) if f"as truncates\nfrom {table}" in sql else None)
    for batch, (seq, by_hand, times) in enumerate(
        [(10, "", 0), (20, "", 0), (30, f"delete from {table} where seq = 10", 1), (40, f"optimize {table} full", 1),
         (50, "", 0)], 1
    ):  # fmt: skip
        if by_hand:
            lab.spark.sql(by_hand).collect()
        asked.clear()
        lab.deliver("t", [event("k", seq, f"at {seq}", batch)])
        yield None
        assert len(asked) == times, (seq, "a statement by hand may have changed what is applied")
    shown = [("at 20", 20, 30), ("at 30", 30, 40), ("at 40", 40, 50), ("at 50", 50, None)]
    assert versions(lab, "history") == {"k": shown}


@scenario
def a_table_of_the_same_name_becomes_a_cdc_model_and_back(lab: Lab) -> Steps:
    lab.deliver("t", [event("k", 10, "A")])
    lab.model("entity", "t", SELECT, materialized="table")
    yield None
    lab.model("entity", "t", SELECT, **SCD2)
    yield None
    assert versions(lab, "entity") == {"k": [("A", 10, None)]}
    lab.model("entity", "t", SELECT, materialized="table")
    yield None
    assert states(lab, "entity") == {"k": ("A",)}


EDITS = {
    "as it was": "k, a, c",
    "added in the middle": "k, a, cast(ts as timestamp_ntz) as seen_at, concat(c, '!') as `it's`, c",
    "removed": "k, concat(c, '!') as `it's`, c",
    "renamed, and in another order": "k, c, concat(c, '!') as loud",
    "back": "k, a, concat(c, '!') as loud, c",
}


def edited(word: str, *edits: str) -> Scenario:
    """Without a full refresh, with a delivery at each edit; a value that was not sent is carried across edits."""

    def steps(lab: Lab) -> Steps:
        for hour, edit in enumerate(edits, 1):
            columns = EDITS[edit]
            select = f"{columns}, _op, seq, ts, _unsent, _arrived_at, _batch_id"
            lab.model("history", "t", select, **SCD2, on_schema_change=word)
            c, unsent = ("big", None) if hour == 1 else (None, ["c", "it's", "loud"])
            lab.deliver("t", [event(key, hour, f"a{hour}", hour, c=c, unsent=unsent) for key in "kl"])
            yield None
            now = [row for row in lab.rows("history") if row["is_current"]]
            assert {row["k"]: row["c"] for row in now} == {"k": "big", "l": "big"}, edit
            if "a," in columns:
                assert {row["a"] for row in now} == {f"a{hour}"}, edit
        if word == "sync_all_columns":
            shown = "k a loud c ts seq _arrived_at valid_from valid_to is_current _batch_id"
            assert set(lab.rows("history")[0]) == set(shown.split())

    return steps


EDITED = "the_columns_of_a_model_with_unsent_values_may_be_edited_in_any_way"
scenario(edited("sync_all_columns", *EDITS), EDITED)
scenario(edited("append_new_columns", "as it was", "removed", "back"), f"{EDITED}_and_are_kept")


@scenario
def a_type_that_widens_at_the_source_widens_in_place_and_any_other_is_refused(lab: Lab) -> Steps:
    """As after a full refresh: keys, values, views, and values that were carried forward."""
    words = {"history": "append_new_columns", "state": "sync_all_columns", "strict": "fail"}
    lab.bronze("n", "k int, a decimal(12,2), c int")
    for model, word in words.items():
        options = SCD1 if model == "state" else SCD2
        lab.model(model, "n", SELECT, **options, ignore_null_updates=True, on_schema_change=word)
    lab.deliver("n", [event(1, 10, Decimal("1.50"), c=5), event(1, 20, None), event(2, 10, Decimal("2.25"), c=7)])
    yield None
    lab.spark.sql(f"alter table {lab.table('n')} set tblproperties ('delta.enableTypeWidening' = 'true')")
    for column, wider in (("k", "bigint"), ("a", "decimal(14,4)"), ("c", "bigint")):
        lab.spark.sql(f"alter table {lab.table('n')} alter column {column} type {wider}")
    late, again = event(1, 15, None, 2, c=2**40), event(2, 10, Decimal("2.25"), 2, c=7)
    lab.deliver("n", [late, again, event(2**40, 10, Decimal("1234567890.1234"), 2, c=1)])
    yield MAY_FAIL
    assert list(lab.failed) == ["strict"] and "bigint" in lab.failed["strict"]
    assert "duplicates 1" in lab.messages["history"] and "inserted 2" in lab.messages["history"]
    found = [(r["k"], r["a"], r["c"]) for r in lab.rows("history") if r["is_current"]]
    assert sorted(found) == [
        (1, Decimal("1.5000"), 2**40), (2, Decimal("2.2500"), 7), (2**40, Decimal("1234567890.1234"), 1),
    ]  # fmt: skip

    def shown() -> list[list[str]]:
        rows = [lab.rows(model) for model in ("history", "state")]
        return [sorted(str({**row, "_batch_id": None}) for row in some) for some in rows]

    before, version = shown(), lab.version("history__cdc")
    lab.remove("strict")
    yield None
    assert lab.version("history__cdc") == version, "once"
    yield FULL_REFRESH
    assert shown() == before
    lab.remove("state")
    narrower = SELECT.replace(" a,", " cast(a as decimal(14,2)) as a,")
    lab.model("history", "n", narrower, **SCD2, ignore_null_updates=True)
    yield MAY_FAIL
    assert "decimal(14,4), as stored" in lab.failed["history"]


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


@scenario
def a_wrong_configuration_says_expected_got_and_fix(lab: Lab) -> Steps:
    for number, (change, _) in enumerate(WRONG):
        lab.model(f"history_{number}", "t", SELECT, **{**SCD2, **change})
    lab.deliver("t", [event("k", 10, "A")])
    yield MAY_FAIL
    for number, (_, text) in enumerate(WRONG):
        message = lab.failed[f"history_{number}"]
        assert text in message and "Fix:" in message, message


@scenario
def a_key_that_a_full_extract_lacks_is_deleted(lab: Lab) -> Steps:
    """Spark plans what tests/engine proves; with too many keys gone the model stops and nothing is written."""
    config = {name: value for name, value in SCD2.items() if name not in ("delete_when", "truncate_when")}
    lab.model("history", "t", SELECT, **config, full_extracts=True)
    lab.deliver("t", [event(key, 10, "A") for key in "klmn"])
    yield None
    lab.deliver("t", [event(key, 20, "A", 2) for key in "klmo"])
    yield None
    assert "deletes 1" in lab.messages["history"]
    want = {key: [("A", 10, None)] for key in "klm"} | {"n": [("A", 10, 20)], "o": [("A", 20, None)]}
    assert versions(lab, "history") == want
    lab.deliver("t", [event("k", 30, "A", 3)])
    yield MAY_FAIL
    assert "lacks 3 of the 4 keys of the extract before it" in lab.failed["history"]
    assert versions(lab, "history") == want


@scenario
def an_explanation_says_what_became_of_each_event(lab: Lab) -> Steps:
    """By `dbt run-operation`: of a key that moved, of one that a truncate closed, with the model's SELECT rendered."""
    lab.model("moved", "t", SELECT_UNSENT, **SCD2, moved_from="_move")
    lab.deliver("t", [event("1", 10, "A", c="big"), deleted("1", 20, move=7), event("z", 20, "Z", time=20)])
    yield None
    lab.deliver("t", [event("2", 20, "A", 2, unsent=["c"], move=7), event("1", 15, "A", 2, c="big")])
    lab.deliver("t", [event("z", 20, "Z", 2, time=20), event(None, 40, None, 2, op="t")])
    yield None
    first, second, closed = (lab.explain("moved", key) for key in ("1", "2", "z"))
    assert [line.split()[:3] for line in first[2:]] == [
        ["10", "1", "change"], ["15", "2", "change"], ["20", "1", "delete"], ["40", "truncate", "closes"],
    ]  # fmt: skip
    assert "equal on the tracked columns" in first[2] and "late" in first[3] and "moved to another key" in first[4]
    assert "moved from another key; filled: c from the key it moved from" in second[2] and "big" not in str(second)
    assert "moved from 1" in lab.explain("moved", "2", values=True)[2]
    assert "closed by a truncate at 40" in closed[2] and "duplicate of the event of batch 1" in closed[3]


@scenario
def an_earlier_state_is_read_by_version_by_batch_and_by_time(lab: Lab) -> Steps:
    """Real versions of Delta; the timeline of the known events planned by Spark, with a key that moved."""
    lab.model("m", "t", SELECT_UNSENT, **SCD2, moved_from="_move")
    reads = f"{{{{ ref('{lab.prefix}m') }}}}"
    lab.sql("plain", f"select k, a, valid_from, valid_to from {reads}", materialized="table")
    lab.deliver("t", [event("1", 10, "A", c="big"), event("z", 30, "Z")])
    lab.deliver("t", [deleted("1", 20, 2, move=7), event("2", 20, "B", 2, unsent=["c"], move=7)])
    yield None
    version, plain, moment = lab.version("m__cdc"), lab.version("plain"), dt.datetime.now(dt.UTC).isoformat()
    for name, of, macro, time in (
        ("by_version", "m", "at_version", version), ("by_batch", "m", "as_known_at", "batch=1"),
        ("known", "m", "as_known_at", "batch=2"), ("valid", "m", "as_of", "'2025-01-02 01:00:00+05:00'"),
        ("plain_version", "plain", "at_version", plain), ("plain_time", "plain", "as_known_at", f"'{moment}'"),
    ):  # fmt: skip
        columns = "k, a, valid_from, valid_to" + (", c" if of == "m" else "")
        query = f"select {columns} from {{{{ delta_cdc.{macro}(ref('{lab.prefix}{of}'), {time}) }}}} as then"
        lab.sql(name, query, materialized="table")
    lab.deliver("t", [event("z", 15, "Y", 3), event(None, 40, None, 3, op="t")])
    yield None
    two = {"1": [("A", 10, 20)], "2": [("B", 20, None)], "z": [("Z", 30, None)]}
    assert versions(lab, "by_batch") == {"1": [("A", 10, None)], "z": [("Z", 30, None)]}
    for name in ("by_version", "known", "plain_version", "plain_time"):
        assert versions(lab, name) == two, name
    filled = {name: [row["c"] for row in lab.rows(name) if row["k"] == "2"] for name in ("by_version", "known")}
    assert filled == {"by_version": ["big"], "known": ["big"]}
    assert versions(lab, "valid") == {"2": [("B", 20, 40)], "z": [("Y", 15, 30)]}
    assert versions(lab, "plain")["z"] == [("Y", 15, 30), ("Z", 30, 40)]


# `make test` has these by DuckDB (tests/engine) or by rendering (tests/macros); of the hostile keys the texts, and the
# literals of every type.
PROVEN_WITHOUT_SPARK = {
    "documented",
    "documented_truncates",
    what_an_option_asks_for_belongs_to_the_payload.__name__,
    a_repeat_at_another_time_keeps_the_earliest_time.__name__,
    a_mark_beyond_the_source_is_refused_with_both_numbers.__name__,
    what_is_applied_is_read_from_the_last_commit_and_from_the_rows_after_any_other.__name__,
    a_wrong_configuration_says_expected_got_and_fix.__name__,
    "hostile_keys_of_every_type_find_their_stored_rows",
    f"{EDITED}_and_are_kept",
    an_explanation_says_what_became_of_each_event.__name__,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.campaign if name in PROVEN_WITHOUT_SPARK else ()) for name in SCENARIOS],
)
def test_scenario(name: str, ended: dict[str, Exception | None]) -> None:
    if (exception := ended[name]) is not None:
        raise exception


@pytest.mark.parametrize("key_type", HOSTILE)
def test_ranges_of_hostile_keys_are_literals_that_hold_them(spark: SparkSession, key_type: str) -> None:
    """What a MERGE is limited by, as Spark reads it: the one place where a key's type matters."""
    macros = load("cdc", context={"fromjson": json.loads})
    spark.createDataFrame([(key,) for key in HOSTILE[key_type]], f"k {key_type}").createOrReplaceTempView("hostile")
    found = spark.sql(macros["cdc_key_ranges"]("k", key_type, "hostile")).collect()[0]["ranges"]
    ranges = macros["_cdc_listed_ranges"](found)
    predicate = macros["cdc_range_predicate"]("k", key_type, ranges, "hostile")
    assert len(ranges) > 1 and spark.table("hostile").where(predicate).count() == len(HOSTILE[key_type]), predicate


def test_a_listing_that_fails_is_no_first_load(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given bronze lost its first batch and dbt takes the schema for empty (dbt-spark#950), Then history stays."""
    part = lab.part("listing_")
    part.bronze("t", COLUMNS)
    part.model("history", "t", SELECT, **SCD2)
    part.deliver("t", [event("k", 10, "A"), event("old", 10, "O")])
    part.build("listing_history")
    part.spark.sql(f"delete from {part.table('t')}").collect()
    part.deliver("t", [event("k", 20, "B", 2)])
    failed = []

    def list_nothing(cursor: Any, sql: str) -> str:
        if "show table extended" in sql:
            failed.append(sql)
            return f"select * from {lab.schema}.dropped_meanwhile"
        return sql

    part.watchers.append(list_nothing)
    part.build("listing_history")
    part.watchers.remove(list_nothing)
    assert failed
    assert versions(part, "history") == {**A_THEN_B, "old": [("O", 10, None)]}

    part.model("second", "t", SELECT, **SCD2)
    table = part.table("second__cdc")

    def be_first(cursor: Any, sql: str) -> None:
        if f"table {table}" in sql:
            part.spark.sql(f"create table if not exists {table} using delta as select 'theirs' as k")

    part.watchers.append(be_first)
    part.build("listing_second", check=False)
    part.watchers.remove(be_first)
    assert "already exists" in part.failed["listing_second"]
    assert part.rows("second__cdc") == [{"k": "theirs"}], "a first load replaces nothing"
