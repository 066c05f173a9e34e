"""What a merge model has read, and what it may write: `nothing new` only where there is nothing, on real Delta."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cdc_lab import SMALL, Lab
from test_cdc_scenarios import SCD1, SELECT, event

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

MERGE: dict[str, Any] = {"incremental_strategy": "merge", "unique_key": "k"}
PROJECT = """
seed-paths: [seeds]
seeds:
  +schema: {0}
  lab: {{delta_rates: {{+file_format: delta}}, plain_rates: {{+file_format: parquet}}}}
"""
BASE = "{{ ref('up') }}"
RATED = f"select u.k, u.n * s.r as n from {BASE} as u join {{{{ ref('RATES') }}}} as s on s.k = u.k"


class Desk(Lab):
    """A lab with macros and seeds of its own and a table `base` (k, n) that is a source."""

    def __init__(self, spark: SparkSession, folder: Path, schema: str) -> None:
        super().__init__(spark, folder, schema, SMALL)
        self.write("dbt_project.yml", (folder / "dbt_project.yml").read_text() + PROJECT.format(schema))
        self.write("models/_raw.yml", f"sources: [{{name: raw, schema: {schema}, tables: [{{name: base}}]}}]\n")

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def base(self, *rows: tuple[str, int]) -> None:
        frame = self.spark.createDataFrame(list(rows), "k string, n int").coalesce(1)
        frame.write.format("delta").mode("overwrite").saveAsTable(f"{self.schema}.base")

    def pairs(self, name: str) -> list[tuple[str, Any]]:
        return sorted((row["k"], row["n"]) for row in self.rows(name, "k, n"))


@pytest.fixture
def desk(spark: SparkSession, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(spark, tmp_path, "reads_" + request.node.name.removeprefix("test_")[:40])
    desk.base(("a", 1), ("b", 2))
    yield desk
    for prefix in ("", "pr7_"):
        spark.sql(f"drop schema if exists {prefix}{desk.schema} cascade")


def test_a_model_runs_again_when_anything_that_it_reads_has_changed_and_only_then(desk: Desk) -> None:
    desk.write("macros/rate.sql", "{% macro rate() %}10{% endmacro %}")
    desk.write("seeds/delta_rates.csv", "k,r\na,1\nb,1\n")
    desk.write("seeds/plain_rates.csv", "k,r\na,1\nb,1\n")
    desk.sql("up", "select * from {{ source('raw', 'base') }}", materialized="table")
    desk.sql("eph", f"select k, n + {{{{ var('extra', 100) }}}} as n from {BASE}", materialized="ephemeral")
    desk.sql("seen", f"select k, n * {{{{ var('factor', 1) }}}} as n from {BASE}", materialized="view")
    desk.sql("ver_v1", "select 'a' as k, 1 as n", materialized="table")
    desk.sql("ver_v2", "select 'b' as k, 2 as n", materialized="table")
    desk.write("models/_ver.yml", "models: [{name: ver, latest_version: 2, versions: [{v: 1}, {v: 2}]}]\n")
    models = {
        "by_var": f"select k, n * {{{{ var('factor', 1) }}}} as n from {BASE}",
        "by_macro": f"select k, n * {{{{ rate() }}}} as n from {BASE}",
        "by_source": "select k, n from {{ source('raw', 'base') }}",
        "by_delta_seed": RATED.replace("RATES", "delta_rates"),
        "by_ephemeral": "select k, n from {{ ref('eph') }}",
        "by_view": "select k, n from {{ ref('seen') }}",
        "by_versions": "select * from {{ ref('ver', v=1) }} union all select * from {{ ref('ver', v=2) }}",
        "by_run": f"select k, n, '{{{{ invocation_id }}}} {{{{ run_started_at }}}}' as run from {BASE}",
        "by_plain_seed": RATED.replace("RATES", "plain_rates"),
        "by_day": f"select k, n, current_date() as day from {BASE}",
    }
    for name, query in models.items():
        desk.sql(name, query, **MERGE, replace_by="*")
    desk.build(command="build")
    desk.build(*models)
    told = {name for name in models if desk.messages[name] == "nothing new"}
    assert set(models) - told == {"by_plain_seed", "by_day"}, "what cannot be told runs"

    desk.write("macros/rate.sql", "{% macro rate() %}20{% endmacro %}")
    desk.write("seeds/delta_rates.csv", "k,r\na,3\nb,3\n")
    desk.write("seeds/plain_rates.csv", "k,r\na,4\nb,4\n")
    desk.sql("ver_v1", "select 'a' as k, 7 as n", materialized="table")
    desk.build(
        "delta_rates",
        "plain_rates",
        "ver",
        "seen",
        "eph",
        command="build",
        arguments=["--vars", "{factor: 5, extra: 200}"],
    )
    desk.base(("a", 1), ("b", 9))
    desk.build(*models, arguments=["--vars", "{factor: 5, extra: 200}"])

    assert {name: desk.pairs(name) for name in models} == {
        "by_var": [("a", 5), ("b", 10)],
        "by_macro": [("a", 20), ("b", 40)],
        "by_source": [("a", 1), ("b", 9)],
        "by_delta_seed": [("a", 3), ("b", 6)],
        "by_ephemeral": [("a", 201), ("b", 202)],
        "by_view": [("a", 5), ("b", 10)],
        "by_versions": [("a", 7), ("b", 2)],
        "by_run": [("a", 1), ("b", 2)],
        "by_plain_seed": [("a", 4), ("b", 8)],
        "by_day": [("a", 1), ("b", 2)],
    }
    assert desk.messages["by_run"] == "nothing new"


@pytest.mark.campaign
def test_empty_a_sample_and_a_table_made_anew_leave_nothing_behind(desk: Desk) -> None:
    desk.sql("up", "select * from {{ source('raw', 'base') }}", materialized="table")
    desk.sql("star", f"select k, n from {BASE}", **MERGE, replace_by="*")
    desk.sql("plain", f"select k, n from {BASE}", **MERGE)
    desk.build("up")
    desk.build("star", arguments=["--empty"])
    assert desk.pairs("star") == []
    desk.build()
    desk.base(("a", 1), ("b", 2), ("c", 3))
    desk.build("up")
    desk.build("star", "plain", arguments=["--empty"])
    assert desk.pairs("star") == desk.pairs("plain") == [("a", 1), ("b", 2)]
    desk.build("star", "plain")
    assert desk.pairs("star") == desk.pairs("plain") == [("a", 1), ("b", 2), ("c", 3)]
    desk.build("star", arguments=["--sample", "1 day"])
    desk.build("star")
    assert desk.messages["star"] != "nothing new", "the sample's rows are not taken for all"

    version = desk.version("up")
    desk.spark.sql(f"drop table {desk.schema}.up")
    desk.base(("a", 5))
    for _ in range(version + 1):
        desk.spark.sql(f"create or replace table {desk.schema}.up using delta as select * from {desk.schema}.base")
    assert desk.version("up") == version
    desk.build("star")
    assert desk.pairs("star") == [("a", 5)]


KEYED = """
{% if is_incremental() -%}
with touched as (
    select * from {{ delta_cdc.touched_keys('select k from (' ~ delta_cdc.changed_keys('current') ~ ')') }}
)
{% endif -%}
select current.k, EXPRESSION as n
from {{ ref('current') }} as current
{% if is_incremental() %}left semi join touched on current.k = touched.k{% endif %}
"""


@pytest.fixture
def keyed(desk: Desk) -> Desk:
    """A CDC model `current` (k, a) and a model of touched keys on it."""
    desk.bronze("t", "k string, a string, c string")
    desk.model("current", "t", SELECT.replace(" ts,", ""), **SCD1)
    desk.sql("keyed", KEYED.replace("EXPRESSION", "current.a"), **MERGE, replace_by="k")
    desk.deliver("t", [event("a", 10, "x"), event("b", 10, "y")])
    return desk


def test_a_seed_a_restore_and_a_reader_of_keys_reach_every_key(keyed: Desk) -> None:
    keyed.write("seeds/delta_rates.csv", "k,r\na,1\nb,1\n")
    rated = KEYED.replace("EXPRESSION", "concat(current.a, (select max(r) from {{ ref('delta_rates') }}))")
    keyed.sql("keyed", rated, **MERGE, replace_by="k")
    reader = KEYED.replace("EXPRESSION", "(select max(n) from {{ ref('keyed') }} as k2 where k2.k = current.k)")
    keyed.sql("reader", reader, **MERGE, replace_by="k")
    keyed.build(command="build")
    stored = keyed.version("current__cdc")
    keyed.deliver("t", [event("b", 20, "bad", 2)])
    keyed.write("seeds/delta_rates.csv", "k,r\na,2\nb,2\n")
    keyed.build(command="build")
    assert keyed.pairs("keyed") == keyed.pairs("reader") == [("a", "x2"), ("b", "bad2")]

    # A bad batch is taken back, and the next one comes before gold is built.
    keyed.spark.sql(f"restore table {keyed.schema}.current__cdc to version as of {stored}")
    keyed.spark.sql(f"delete from {keyed.schema}.t where _batch_id = 2")
    keyed.deliver("t", [event("a", 30, "z", 3)])
    keyed.build()
    assert keyed.pairs("keyed") == keyed.pairs("reader") == [("a", "z2"), ("b", "y2")]
    keyed.build()
    assert keyed.messages["keyed"] == keyed.messages["reader"] == "nothing new"


UNIT_TEST = """
  - name: of_WAY
    model: keyed
    overrides: {macros: {is_incremental: WAY}}
    given: [{input: ref('current'), rows: [{k: a, a: x}]}]
    expect: {rows: [{k: a, n: x}]}
"""


@pytest.mark.campaign
def test_a_unit_test_of_a_model_of_changed_keys_takes_the_given_keys(keyed: Desk) -> None:
    tests = "".join(UNIT_TEST.replace("WAY", way) for way in ("true", "false"))
    keyed.write("models/_unit.yml", f"unit_tests:{tests}")
    keyed.build()
    keyed.build("keyed", command="build")
    assert keyed.messages["keyed"] == "nothing new", "it is built after its unit tests"


@pytest.mark.campaign
def test_defer_and_clone_read_the_other_environment_and_say_nothing_of_their_own(keyed: Desk) -> None:
    keyed.sql("whole", "select k, a as n from {{ ref('current') }}", **MERGE, replace_by="*")
    keyed.build()
    shutil.copytree(keyed.folder / "target", keyed.folder / "state")
    state = ["--state", str(keyed.folder / "state")]
    at = {"prefix": "pr7", "target": "target_pr"}
    keyed.build("keyed", "whole", arguments=["--defer", *state], **at)
    for name in ("keyed", "whole"):
        assert keyed.pairs(f"{name}") == sorted(
            (r["k"], r["n"]) for r in keyed.spark.table(f"pr7_{keyed.schema}.{name}").collect()
        )
    keyed.build("keyed", "whole", arguments=["--defer", *state], **at)
    assert "nothing new" not in keyed.messages.values(), "no mark is left"

    keyed.spark.sql(f"drop schema pr7_{keyed.schema} cascade")
    keyed.build(command="clone", arguments=state, check=False, **at)
    keyed.spark.sql(f"delete from {keyed.schema}.t")  # bronze keeps only new batches
    keyed.deliver("t", [event("b", 20, "new", 2)])
    keyed.build(**at)
    assert keyed.messages["current"].startswith("read 1,"), "no first load"
    rows = keyed.spark.table(f"pr7_{keyed.schema}.keyed").collect()
    assert sorted((r["k"], r["n"]) for r in rows) == [("a", "x"), ("b", "new")]
    assert keyed.pairs("keyed") == [("a", "x"), ("b", "y")]


def test_a_listing_that_fails_makes_no_first_load(keyed: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given Spark's error while a view is dropped, When dbt lists the schema, Then what stands there is found."""
    from dbt.adapters.spark.impl import LIST_RELATIONS_MACRO_NAME, SparkAdapter
    from dbt_common.exceptions import DbtRuntimeError

    keyed.sql("plain", "select k, a as n from {{ ref('current') }}", **MERGE)
    keyed.build()
    keyed.spark.sql(f"insert into {keyed.schema}.plain values ('kept', 'only here')")
    keyed.deliver("t", [event("b", 20, "new", 2)])
    run_macro = SparkAdapter.execute_macro

    def fails(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if name == LIST_RELATIONS_MACRO_NAME:
            raise DbtRuntimeError("[TABLE_OR_VIEW_NOT_FOUND] The table or view `zz` cannot be found.")
        return run_macro(self, name, *args, **kwargs)

    monkeypatch.setattr(SparkAdapter, "execute_macro", fails)
    keyed.build("keyed", "plain")
    assert keyed.pairs("plain") == [("a", "x"), ("b", "y"), ("kept", "only here")]
    assert [c["operation"] for c in keyed.data_commits("keyed")] == ["CREATE TABLE AS SELECT"]


CONTRACT = """
models:
  - name: NAME
    config: {contract: {enforced: true}, on_schema_change: append_new_columns}
    columns: [COLUMNS]
"""


def contract(desk: Desk, name: str, **types: str) -> None:
    columns = ", ".join(f"{{name: {column}, data_type: '{data_type}'}}" for column, data_type in types.items())
    desk.write(f"models/_{name}.yml", CONTRACT.replace("NAME", name).replace("COLUMNS", columns))


def shape(desk: Desk, name: str) -> dict[str, str]:
    return {field.name: field.dataType.simpleString() for field in desk.spark.table(f"{desk.schema}.{name}").schema}


@pytest.mark.campaign
def test_on_schema_change_does_what_dbt_says_and_a_failed_run_alters_nothing(desk: Desk) -> None:
    edits = {  # name: on_schema_change, the columns before, the columns after
        "ignores": ("ignore", "k, n", "k, n, n + 1 as more"),
        "ignores_gone": ("ignore", "k, n, 'x' as note", "k, n"),
        "fails": ("fail", "k, n", "k, n, n + 1 as more"),
        "appends": ("append_new_columns", "k, n, n as before", "k, n, n + 1 as after"),
        "syncs": ("sync_all_columns", "k, n, n as before", "k, cast(n as bigint) as n, n + 1 as after"),
        "syncs_type": ("sync_all_columns", "k, n", "k, cast(n as string) as n"),
        "renamed": ("append_new_columns", "k, n, 'x' as owner", "k, n, 'x' as account_owner"),
        "twice": ("append_new_columns", "k, n", "k, n, explode(array(n, n + 1)) as more"),
    }

    def write(old: bool) -> None:
        for name, (word, before, after) in edits.items():
            query = f"select {before if old else after} from {{{{ source('raw', 'base') }}}}"
            desk.sql(name, query, **MERGE, replace_by="*", on_schema_change=word)
        contract(desk, "renamed", k="string", n="int", **{"owner" if old else "account_owner": "string"})

    write(old=True)
    desk.build()
    before = {name: shape(desk, name) for name in desk.messages}
    write(old=False)
    desk.base(("a", 1), ("c", 3))

    outcome = {model.node.name: str(model.status) for model in desk.build(check=False)}

    done = {"ignores", "appends", "syncs"}
    assert {name for name, status in outcome.items() if status == "success"} == done
    assert {name: shape(desk, name) for name in set(outcome) - done} == {
        name: before[name] for name in set(outcome) - done
    }
    assert shape(desk, "ignores") == {"k": "string", "n": "int"}
    assert shape(desk, "appends") == {"k": "string", "n": "int", "before": "int", "after": "int"}
    rows = sorted((r["k"], r["before"], r["after"]) for r in desk.rows("appends"))
    assert rows == [("a", 1, 2), ("c", None, 4)]
    assert shape(desk, "syncs") == {"k": "string", "n": "bigint", "after": "int"}
    assert (
        "got new: account_owner; gone: owner; of another type: none. Nothing was altered. Fix: a rename: run the model"
        in desk.messages["renamed"]
    )
    assert "n (int is now string)" in desk.messages["syncs_type"]
    assert 'expected one row per unique_key (k), got 2 keys with more: [{"k":"' in desk.messages["twice"]
    assert "The usual cause: a join" in desk.messages["twice"]

    write(old=True)
    names = ["ignores", "ignores_gone", "fails", "renamed", "twice", "syncs_type"]
    desk.build(*names)
    assert all(desk.pairs(name) == [("a", 1), ("c", 3)] for name in names)


@pytest.mark.campaign
def test_an_enforced_contract_is_checked_before_every_write(keyed: Desk) -> None:
    keyed.sql("money", "select k, cast(n as decimal(12, 2)) as n from {{ source('raw', 'base') }}",
        **MERGE, replace_by="*", on_schema_change="append_new_columns")  # fmt: skip
    contract(keyed, "money", k="string", n="decimal(12,2)")
    keyed.model("current", "t", SELECT.replace(" ts,", ""), on_schema_change="append_new_columns", **SCD1)
    contract(
        keyed, "current", k="string", a="string", c="string", seq="bigint", _arrived_at="timestamp", _batch_id="bigint"
    )
    keyed.build()
    shapes = {name: shape(keyed, name) for name in ("money", "current")}
    cases = {
        "a column that the YAML lacks": ("k, cast(n as decimal(12, 2)) as n, n as more", "decimal(12,2)"),
        "a type that the query no longer gives": ("k, cast(n as string) as n", "decimal(12,2)"),
        "another type in the YAML alone": ("k, cast(n as decimal(12, 2)) as n", "decimal(14,2)"),
    }
    for case, (query, data_type) in cases.items():
        keyed.sql("money", f"select {query} from {{{{ source('raw', 'base') }}}}",
            **MERGE, replace_by="*", on_schema_change="append_new_columns")  # fmt: skip
        contract(keyed, "money", k="string", n=data_type)
        contract(
            keyed, "current", k="bigint", a="string", c="string", seq="bigint", _arrived_at="timestamp", nope="string"
        )
        keyed.build("money", "current", check=False)
        assert "This model has an enforced contract that failed." in keyed.messages["money"], case
        assert "This model has an enforced contract that failed." in keyed.messages["current"]
    assert {name: shape(keyed, name) for name in ("money", "current")} == shapes
