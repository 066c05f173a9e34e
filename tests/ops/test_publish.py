"""Publishing gold tables to DuckDB: what is served is a set of whole, audited versions, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifact_files as files
import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from servers import Server, stage_rows

from python_ops.jobs.publish import Action, Publication, PublishResult, publish, status
from python_ops.jobs.publish.duckdb_target import DuckDBTarget
from python_ops.jobs.publish.fingerprint import Field
from python_ops.jobs.publish.staged import SESSION, fingerprint
from python_ops.jobs.publish.target import StagedTable, Version
from python_ops.lake.artifacts import load_manifest
from python_ops.lake.config import Settings
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.run_record import save_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PREFIX = "publishing"  # schemas of these tests, beside those of other tests in the same session


def no_session() -> SparkSession:
    """For calls that must not start a JVM."""
    raise AssertionError("asked for a Spark session")


class GoldLake(Lake):
    """Gold tables in Delta, dbt's artifacts for them, and the published file."""

    def __init__(self, settings: Settings, artifacts: Path, start: Callable[[], SparkSession]) -> None:
        super().__init__(settings, artifacts=artifacts, start=start)
        self.schema = self.schema_name("gold")
        self.file = self.home / "published" / "lakehouse.duckdb"

    def sql(self, statement: str) -> None:
        """Runs a statement in the gold schema."""
        self.spark.sql(statement.replace("gold.", f"{self.schema}."))

    def artifacts_for(self, *names: str, failed: Mapping[str, str] | None = None, **options: Any) -> None:
        """A manifest with these models, a test on each, and the results of a green build but for what `failed` says."""
        options = {"publish_to": ["duckdb"], **options}
        models = [files.model(n, prefix=PREFIX, parents=["slv_x"], **options) for n in names]
        silver = files.model("slv_x", layer="silver", prefix=PREFIX)
        tests = [files.test(f"unique_{n}", n) for n in ("slv_x", *names)]
        files.write_manifest(self.artifacts, silver, *models, *tests)
        statuses = {n["unique_id"]: "success" for n in (silver, *models)} | {t["unique_id"]: "pass" for t in tests}
        files.write_run_results(self.artifacts, statuses | dict(failed or {}))

    def publish(self, on_event: Any = None, session: Any = None) -> list[PublishResult]:
        """Publishes; with the running session unless another is given."""
        return publish(Lake(self.settings, artifacts=self.artifacts, start=session) if session else self, on_event)

    def served(self, query: str) -> list[tuple[Any, ...]]:
        """What a reader of the published file sees."""
        with duckdb.connect(self.file, read_only=True) as connection:
            return connection.execute(query.replace("gold.", f"{self.schema}.")).fetchall()

    def leftovers(self) -> list[Path]:
        """Staged files."""
        return list((self.state / "publish").rglob("*.parquet"))


@pytest.fixture
def lake(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[GoldLake]:
    """An empty gold schema of its own, and nothing published."""
    own = Settings(home=settings.home, schema_prefix=PREFIX)
    made = GoldLake(own, tmp_path / "target", lambda: spark)
    spark.sql(f"create schema if not exists {made.schema}")
    yield made
    spark.sql(f"drop schema {made.schema} cascade")
    shutil.rmtree(made.file.parent, ignore_errors=True)


EVERY_TYPE = """
    create table gold.fct_types (
        id bigint, tiny tinyint, small smallint, medium int, amount decimal(38,10), price decimal(18,2),
        happened_at timestamp, local_at timestamp_ntz, day date, text string, flag boolean, ratio double,
        single float, raw binary, `odd"'name` string, large decimal(38,0)
    ) using delta
"""
EVERY_VALUE = """
    insert into gold.fct_types values
    (9007199254740993, 127, -32768, 2147483647, 1234567890123456789012345678.1234567891, -0.01,
     timestamp'0001-01-01 00:00:00Z', timestamp_ntz'2024-03-31 02:30:00.000001',
     date'0001-01-01', 'l\\u2028''é\\\\n', true, double('NaN'), float(0.1),
     x'00ff', '"', 99999999999999999999999999999999999999),
    (-9223372036854775808, 0, 0, 0, -0.0000000001, 0, timestamp'9999-12-31 23:59:59.999999Z', null, date'9999-12-31',
     '', false, double('-Infinity'), float('Infinity'), x'', null,
     99999999999999999999999999999999999999),
    (9223372036854775807, null, null, null, null, null, timestamp'2024-10-27 00:30:00.123456Z', null, null,
     null, null, null, null, null, '${env:HOME}', null),
    (4, null, null, null, null, null, null, null, null, null, null, null, null, null, 'deleted', null)
"""


@pytest.mark.spark
def test_every_type_arrives_exactly_without_deleted_rows(lake: GoldLake) -> None:
    lake.sql(EVERY_TYPE)
    lake.sql(EVERY_VALUE)
    lake.sql("delete from gold.fct_types where id = 4")
    log = lake.table_path("gold", "fct_types") / "_delta_log" / "00000000000000000002.json"
    assert '"deletionVector":{' in log.read_text()
    lake.artifacts_for("fct_types", description="It's a fact.", columns={"id": "The 'key'.", "gone": "Not a column."})

    (result,) = lake.publish()

    assert (result.table, result.version, result.rows) == (f"{lake.schema}.fct_types", 2, 3)
    assert result.action is Action.PUBLISHED
    types = "select column_name, data_type from duckdb_columns() where table_name = 'fct_types' order by column_index"
    assert [t for _, t in lake.served(types)] == [
        "BIGINT", "TINYINT", "SMALLINT", "INTEGER", "DECIMAL(38,10)", "DECIMAL(18,2)", "TIMESTAMP",
        "TIMESTAMP", "DATE", "VARCHAR", "BOOLEAN", "DOUBLE", "FLOAT", "BLOB", "VARCHAR", "DECIMAL(38,0)",
    ]  # fmt: skip
    rows = lake.served(
        "select id, tiny, small, medium, amount, price, epoch_us(happened_at), epoch_us(local_at), day::varchar, text, "
        'flag, ratio::varchar, single = 0.1::float, raw, "odd""\'name" from gold.fct_types order by id'
    )
    micros = (-62135596800000000, 253402300799999999, 1729989000123456)
    assert rows == [
        (-(2**63), 0, 0, 0, Decimal("-1E-10"), Decimal("0.00"), micros[1], None, "9999-12-31",
         "", False, "-inf", False, b"", None),
        (2**53 + 1, 127, -32768, 2147483647, Decimal("1234567890123456789012345678.1234567891"), Decimal("-0.01"),
         micros[0], 1711852200000001, "0001-01-01", "l\u2028'é\\n", True, "nan", True, b"\x00\xff", '"'),
        (2**63 - 1, None, None, None, None, None, micros[2], None, None, None, None, None, None, None, "${env:HOME}"),
    ]  # fmt: skip
    assert lake.served("select comment from duckdb_tables() where table_name = 'fct_types'") == [("It's a fact.",)]
    comments = "select column_name, comment from duckdb_columns() where table_name = 'fct_types'"
    assert [c for c in lake.served(comments) if c[1]] == [("id", "The 'key'.")]
    assert lake.leftovers() == []


@pytest.mark.spark
def test_an_unchanged_table_sends_nothing_and_starts_no_session(lake: GoldLake) -> None:
    lake.sql("create table gold.dim_a (id int) using delta")
    lake.sql("create table gold.fct_b (id int) using delta")
    lake.sql("insert into gold.dim_a values (1)")
    lake.artifacts_for("dim_a", "fct_b")
    assert [s.state for s in status(lake)] == [Publication.NEVER, Publication.NEVER]
    assert [(r.action, r.rows) for r in lake.publish()] == [(Action.PUBLISHED, 1), (Action.PUBLISHED, 0)]
    before = lake.file.stat().st_mtime_ns

    again = lake.publish(session=no_session)

    assert [(r.action, r.rows) for r in again] == [(Action.UNCHANGED, 1), (Action.UNCHANGED, 0)]
    assert lake.file.stat().st_mtime_ns == before
    lake.sql("alter table gold.dim_a set tblproperties ('lakehouse.lease' = '7')")
    assert {s.state for s in status(lake)} == {Publication.CURRENT}
    assert {r.action for r in lake.publish(session=no_session)} == {Action.UNCHANGED}, "a fence sends nothing again"
    lake.sql("insert into gold.fct_b values (7)")
    assert [s.state for s in status(lake)] == [Publication.CURRENT, Publication.BEHIND]
    assert [r.action for r in lake.publish()] == [Action.UNCHANGED, Action.PUBLISHED]
    assert lake.served("select * from gold.fct_b") == [(7,)]


@pytest.mark.spark
def test_a_table_made_anew_is_sent_although_its_version_is_the_same(lake: GoldLake) -> None:
    lake.artifacts_for("dim_a")
    for value in (1, 2):
        lake.sql("drop table if exists gold.dim_a")
        lake.sql(f"create table gold.dim_a using delta as select {value} as id")
        (result,) = lake.publish()
        assert (result.version, result.action) == (0, Action.PUBLISHED)
        assert lake.served("select * from gold.dim_a") == [(value,)]


GARBLINGS = (
    ("select * replace (amount + 1 as amount) from {}", "failed on sum of amount"),
    ("select * replace (if(id = 1, 'b', 'a') as text) from {}", "failed on hash"),  # values of two rows swapped
    ("from {} limit 0", r"failed on rows, values of id, .* \(2 in the lake, 0 loaded\)"),
    ("select * replace (ratio + 1 as ratio) from {}", "failed on least ratio, greatest ratio"),
    (None, "Publishing to .* failed"),
)


@pytest.mark.spark
def test_a_failed_audit_leaves_the_whole_old_set_served(lake: GoldLake) -> None:
    lake.sql("create table gold.dim_a (id int, amount decimal(10,2), text string, ratio double) using delta")
    lake.sql("create table gold.fct_b (id int) using delta")
    lake.artifacts_for("dim_a", "fct_b")
    lake.publish()
    lake.sql("insert into gold.dim_a values (1, 1.10, 'a', 0.5), (2, 2.20, 'b', 0.5)")
    lake.sql("insert into gold.fct_b values (1)")
    rows = "select count(*) from gold.dim_a union all select count(*) from gold.fct_b"
    for garbling, named in GARBLINGS:

        def garble(event: PublishResult, garbling: str | None = garbling) -> None:
            if event.action is Action.STAGED and event.table.endswith("dim_a"):
                for path in lake.leftovers():
                    if garbling:
                        duckdb.sql(f"create or replace temp table garbled as {garbling.format(repr(str(path)))}")
                        duckdb.sql(f"copy garbled to '{path}' (format parquet)")
                    else:
                        path.write_bytes(path.read_bytes()[:-20])

        with pytest.raises(OpsError, match=named) as failure:
            lake.publish(on_event=garble)

        assert "still served" in str(failure.value)
        assert "2.2" not in str(failure.value)
        assert lake.served(rows) == [(0,), (0,)]
        assert {s.state for s in status(lake)} == {Publication.BEHIND}
        assert lake.leftovers() == []
    assert {r.action for r in lake.publish()} == {Action.PUBLISHED}
    assert lake.served(rows) == [(2,), (1,)]


@pytest.mark.spark
def test_a_red_run_is_not_published(lake: GoldLake) -> None:
    lake.sql("create table gold.dim_a using delta as select 1 as id")
    lake.artifacts_for("dim_a")
    lake.publish()
    lake.sql("insert into gold.dim_a values (2)")
    for red in ("test.lakehouse.unique_dim_a", "model.lakehouse.slv_x", "test.lakehouse.unique_slv_x"):
        lake.artifacts_for("dim_a", failed={red: "fail"})
        with pytest.raises(OpsError, match=rf"not green: {red} \(fail\)"):
            lake.publish(session=no_session)
        assert lake.served("select * from gold.dim_a") == [(1,)]
    lake.artifacts_for("dim_a", failed={"model.lakehouse.elsewhere": "error"})
    assert [r.action for r in lake.publish()] == [Action.PUBLISHED]


@pytest.mark.spark
def test_a_changed_table_whose_tests_did_not_run_is_not_published(lake: GoldLake) -> None:
    lake.sql("create table gold.dim_a using delta as select 1 as id")
    lake.artifacts_for("dim_a")
    for command, statuses in (
        ("run", {"model.lakehouse.dim_a": "success"}),
        ("generate", {"model.lakehouse.dim_a": "success", "test.lakehouse.unique_dim_a": "success"}),
    ):
        files.write_run_results(lake.artifacts, statuses, command)
        with pytest.raises(OpsError, match=rf"`dbt {command}` did not run 1 tests .*unique_dim_a.* Run `dbt test`"):
            lake.publish(session=no_session)
    files.write_run_results(lake.artifacts, {"test.lakehouse.unique_dim_a": "pass"}, "test")
    assert [r.action for r in lake.publish()] == [Action.PUBLISHED]
    files.write_run_results(lake.artifacts, {"model.lakehouse.dim_a": "success"}, "run")
    assert [r.action for r in lake.publish(session=no_session)] == [Action.UNCHANGED]


@pytest.mark.spark
def test_what_waits_for_a_source_stays_as_it_is_served_and_the_rest_is_published(lake: GoldLake) -> None:
    """Given a build that left out a source's readers, one of them never built, Then the other table is published."""
    lake.sql("create table gold.dim_a using delta as select 1 as id")
    lake.artifacts_for("dim_a", "fct_b")
    manifest = json.loads((lake.artifacts / "manifest.json").read_text())
    manifest["nodes"]["model.lakehouse.fct_b"]["depends_on"]["nodes"].append("source.lakehouse.bronze.fx_rates")
    (lake.artifacts / "manifest.json").write_text(json.dumps(manifest))
    done = {"model.lakehouse.dim_a": "success", "test.lakehouse.unique_dim_a": "pass"}
    files.write_run_results(lake.artifacts, done, invocation="this build")
    save_run(lake, {"left_out": {"sources": ["fx_rates"], "invocation": "this build"}})
    assert [(r.table.split(".")[1], r.action) for r in lake.publish()] == [("dim_a", Action.PUBLISHED)]
    assert lake.served("select * from gold.dim_a") == [(1,)]


@pytest.mark.spark
def test_a_file_that_another_process_holds(lake: GoldLake) -> None:
    lake.sql("create table gold.dim_a using delta as select 1 as id")
    lake.artifacts_for("dim_a")
    lake.publish()
    lake.sql("insert into gold.dim_a values (2)")
    with holder(lake.file) as pid:
        with pytest.raises(BusyError, match=rf"held open by process {pid}\. Close it") as busy:
            lake.publish(session=no_session)
        assert busy.value.exit_code == 4
    assert [r.action for r in lake.publish()] == [Action.PUBLISHED]
    with holder(lake.file, read_only=True):
        assert [r.action for r in lake.publish(session=no_session)] == [Action.UNCHANGED]


@pytest.mark.spark
def test_leftovers_of_a_killed_run_are_removed(lake: GoldLake) -> None:
    lake.sql("create table gold.dim_a using delta as select 1 as id")
    lake.artifacts_for("dim_a")
    left = lake.state / "publish" / "stage" / lake.schema / "dim_a" / "part-0.parquet"
    left.parent.mkdir(parents=True)
    left.write_text("half a file")
    lake.publish()
    assert lake.served("select * from gold.dim_a") == [(1,)]
    assert lake.leftovers() == []


@pytest.mark.spark
def test_what_cannot_be_published_says_why(lake: GoldLake) -> None:
    lake.artifacts_for("dim_a")
    with pytest.raises(OpsError, match=r"dim_a .* has no Delta table .*run `dbt build --select dim_a`"):
        lake.publish(session=no_session)
    assert [s.state for s in status(lake)] == [Publication.NOT_BUILT]
    lake.sql("create table gold.dim_a using delta as select array(1) as ids")
    with pytest.raises(ConfigError, match=r"ids is of type array<int>"):
        lake.publish()
    lake.sql("create or replace table gold.dim_a using delta as select 1 as id")
    path = lake.table_path("gold", "dim_a")
    for part in path.glob("*.parquet"):
        part.unlink()
    with pytest.raises(OpsError, match=r"Staging .*dim_a at Delta version 1 failed"):
        lake.publish()


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")  # fakesnow's own use of DuckDB
def test_every_warehouse_gets_what_spark_read(
    lake: GoldLake, on_postgres: Server, on_redshift: Server, on_snowflake: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = {server.name: server for server in (on_postgres, on_redshift, on_snowflake)}
    for server in servers.values():
        monkeypatch.setenv(f"LAKEHOUSE_SECRET_{server.name.upper()}", json.dumps(server.secret))
    lake.settings = lake.settings.model_copy(update={"publish": ("duckdb", *servers)})
    # Without what the stand-ins lack: numbers of more than 64 bits without a scale; and without floats and binaries.
    lake.sql(
        "create table gold.fct_types (id bigint, amount decimal(38,10), happened_at timestamp, local_at timestamp_ntz, "
        "day date, text string, flag boolean) using delta"
    )
    lake.sql(
        "insert into gold.fct_types values"
        "(9007199254740993, 1234567890123456789012345678.1234567891, timestamp'0001-01-01 00:00:00Z', "
        " timestamp_ntz'2024-03-31 02:30:00.000001', date'0001-01-01', 'l\u2028''é\\\\n', true), "
        "(-9223372036854775808, -0.0000000001, timestamp'9999-12-31 23:59:59.999999Z', null, date'9999-12-31', '', "
        " false), "
        "(7, 0.5, timestamp'2024-10-27 00:30:00.123456Z', null, null, null, null), "
        "(4, null, null, null, null, 'deleted', null)"
    )
    lake.artifacts_for("fct_types", publish_to=["duckdb", *servers])

    results = lake.publish()

    assert [(r.target, r.action, r.sent) for r in results] == [
        (name, Action.PUBLISHED, 4) for name in ("duckdb", *servers)
    ]
    lake.sql("delete from gold.fct_types where id = 4")
    again = [(r.target, r.rows, r.sent) for r in lake.publish()]
    assert again == [("duckdb", 3, 0), ("postgres", 3, 0), ("redshift", 3, 0), ("snowflake", 3, 0)]
    assert {r.action for r in lake.publish(session=no_session)} == {Action.UNCHANGED}
    for server in servers.values():
        assert server.read(f"select * from {lake.schema}.fct_types order by id") == [
            (-(2**63), Decimal("-1E-10"), datetime(9999, 12, 31, 23, 59, 59, 999999), None, date(9999, 12, 31), "",
             False),
            (7, Decimal("0.5"), datetime(2024, 10, 27, 0, 30, 0, 123456), None, None, None, None),
            (2**53 + 1, Decimal("1234567890123456789012345678.1234567891"), datetime(1, 1, 1),
             datetime(2024, 3, 31, 2, 30, 0, 1), date(1, 1, 1), "l\u2028'é\\n", True),
        ]  # fmt: skip


@pytest.mark.spark
def test_a_new_policy_for_personal_columns_publishes_again_and_a_missing_key_writes_nothing(
    lake: GoldLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.sql("create table gold.dim_a using delta as select id, concat('canary-', id) as email from range(3)")
    lake.artifacts_for("dim_a", columns={"id": "", "email": ""})
    manifest = json.loads((lake.artifacts / "manifest.json").read_text())
    manifest["nodes"]["model.lakehouse.dim_a"]["columns"]["email"]["meta"] = {"pii": True}
    (lake.artifacts / "manifest.json").write_text(json.dumps(manifest))
    assert [r.action for r in lake.publish()] == [Action.PUBLISHED]

    lake.settings = lake.settings.model_copy(update={"publish_pii": {"duckdb": "hash"}})
    with pytest.raises(ConfigError, match="publish_pii_key is not set"):
        lake.publish(session=no_session)
    assert lake.served("select email from gold.dim_a where id = 0") == [("canary-0",)]
    monkeypatch.setenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY", "k" * 32)
    assert [(s.state, s.personal) for s in status(lake)] == [(Publication.BEHIND, "")]
    assert [(r.action, r.sent) for r in lake.publish()] == [(Action.PUBLISHED, 3)]
    assert lake.served("select id from gold.dim_a where email like '%canary%'") == []
    assert lake.served("select distinct length(email) from gold.dim_a") == [(64,)]
    assert {r.action for r in lake.publish(session=no_session)} == {Action.UNCHANGED}
    assert lake.leftovers() == []


@pytest.mark.spark
def test_a_warehouse_that_is_down_does_not_hold_up_the_others(
    lake: GoldLake, on_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.settings = lake.settings.model_copy(update={"publish": ("duckdb", "postgres")})
    secret = json.dumps(on_postgres.secret)
    monkeypatch.setenv("LAKEHOUSE_SECRET_POSTGRES", json.dumps({**on_postgres.secret, "port": 1}))
    lake.sql("create table gold.dim_a using delta as select id, cast(id as string) as text from range(10)")
    lake.artifacts_for("dim_a", publish_to=["duckdb", "postgres", "snowflake"])
    told: list[PublishResult] = []
    with pytest.raises(OpsError, match=r"postgres: PostgreSQL cannot be reached: .* Up to date: duckdb\.") as down:
        lake.publish(on_event=told.append)
    assert on_postgres.secret["password"] not in str(down.value)
    assert [(event.target, event.action) for event in told] == [("", Action.STAGED), ("duckdb", Action.PUBLISHED)]
    states = {s.target: (s.state, s.error is None) for s in status(lake)}
    assert states == {"duckdb": (Publication.CURRENT, True), "postgres": (Publication.UNREACHABLE, False)}
    monkeypatch.setenv("LAKEHOUSE_SECRET_POSTGRES", secret)
    del lake.secrets  # the next command reads them anew
    assert [s.state for s in status(lake)] == [Publication.CURRENT, Publication.NEVER]
    assert [(r.target, r.action, r.sent) for r in lake.publish()] == [
        ("duckdb", Action.UNCHANGED, 0),
        ("postgres", Action.PUBLISHED, 10),
    ]
    lake.sql("update gold.dim_a set text = 'x' where id = 3")
    assert [(r.target, r.sent) for r in lake.publish()] == [("duckdb", 1), ("postgres", 1)]
    assert on_postgres.read(f"select id from {lake.schema}.dim_a where text = 'x'") == [(3,)]


# Without Spark: the protocol of the DuckDB file, on parquet files written by DuckDB itself.


def staged(folder: Path, name: str, version: int, rows: int = 3) -> StagedTable:
    """A staged table with one column, whose least number is the version."""
    manifest = folder / "manifest"
    files.write_manifest(manifest, files.model(name))
    out = folder / f"{name}_{version}"
    out.mkdir()
    fields = (Field("id", "bigint"),)
    with duckdb.connect() as connection:
        connection.execute(SESSION)  # a slow machine would see a progress bar on standard output
        number = f"{version} + if(range = 0, 0, hash(range) % 1000000007)::bigint"
        connection.execute(f"create table t as select {number} as id from range({rows})")
        connection.execute(f"copy t to '{out}/part.parquet'")
        parts = fingerprint(connection, "t", fields)
    model = load_manifest(manifest).models[f"model.lakehouse.{name}"]
    return StagedTable(model, Version("table-id", version), fields, out, parts, seconds=0.0)


class holder:
    """Another process that has the file open."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        code = (
            f"import duckdb, sys; c = duckdb.connect({str(path)!r}, read_only={read_only}); "
            "print('open', flush=True); sys.stdin.read()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> int:
        assert self.process.stdout and self.process.stdout.readline() == "open\n"
        return self.process.pid

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def read(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a query on the published file."""
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_the_set_is_one_transaction(tmp_path: Path) -> None:
    target = DuckDBTarget(tmp_path / "lakehouse.duckdb")
    target.prepare()
    target.replace([staged(tmp_path, "dim_a", 1), staged(tmp_path, "fct_b", 1)], {})
    ledger = target.served()
    assert {table: (s.version.number, s.rows) for table, s in ledger.items()} == {
        "gold.dim_a": (1, 3),
        "gold.fct_b": (1, 3),
    }
    good, bad = staged(tmp_path, "dim_a", 2), staged(tmp_path, "fct_b", 2)
    (bad.folder / "part.parquet").unlink()
    with pytest.raises(OpsError, match="still served"):
        target.replace([good, bad], ledger)
    assert read(target.path, "select min(id) from gold.dim_a") == [(1,)]
    assert target.served() == ledger


IN_PLACE = (
    Field("id", "bigint"), Field("note", "string"), Field("share", "double"), Field("amount", "decimal(18,2)"),
)  # fmt: skip


def test_only_rows_that_differ_are_written_and_a_table_stays_with_its_index(tmp_path: Path) -> None:
    """Rows without a key, NULLs and floating-point numbers included; repeated rows count as often as they are there."""
    target = DuckDBTarget(tmp_path / "lakehouse.duckdb")
    target.prepare()

    def publish(version: int, query: str) -> int:
        table = stage_rows(tmp_path, "fct_b", version, query, IN_PLACE)
        (loaded,) = target.replace([table], target.served()).values()
        assert target.served()["gold.fct_b"].version.number == version
        with duckdb.connect(target.path, read_only=True) as connection:
            rows = f"(select * from read_parquet('{table.folder}/*.parquet'))"
            apart = f"(from gold.fct_b except all from {rows}) union all (from {rows} except all from gold.fct_b)"
            assert connection.execute(f"select count(*) from ({apart})").fetchall() == [(0,)]
        return loaded.sent

    many = (
        "select range::bigint as id, if(range % 3 = 0, null, 'n') as note, (range / 7.0)::double as share, "
        "1.50::decimal(18,2) as amount from range(20)"
    )
    assert publish(1, many) == 20
    with duckdb.connect(target.path) as connection:
        connection.execute("create index by_id on gold.fct_b (id)")
    assert publish(2, f"select * replace (if(id = 4, share + 1e-9, share) as share) from ({many}) where id <> 7") == 1
    assert publish(3, f"from ({many}) union all from ({many}) where id in (0, 1)") == 4, "7, 4 as it was, 0 and 1 again"
    assert publish(4, f"from ({many})") == 0, "one of each pair is deleted"
    with duckdb.connect(target.path) as connection:
        assert connection.execute("select index_name from duckdb_indexes()").fetchall() == [("by_id",)]
        connection.execute("update gold.fct_b set note = 'by hand' where id = 5")
    assert publish(5, many) == 1, "what somebody changed by hand is put right"
    assert publish(6, f"select * replace (amount + 1 as amount) from ({many})") == 20, "more than half: written anew"
    assert publish(7, f"from ({many}) where false") == 0


def test_a_table_whose_columns_changed_is_written_anew(tmp_path: Path) -> None:
    target = DuckDBTarget(tmp_path / "lakehouse.duckdb")
    target.prepare()
    one, two = Field("id", "bigint"), Field("note", "string")
    shapes = [
        ((one,), "select 1::bigint as id"),
        ((one, two), "select 1::bigint as id, 'a' as note"),
        ((two, one), "select 'a' as note, 1::bigint as id"),
        ((two, Field("id", "int")), "select 'a' as note, 1::int as id"),
    ]
    for version, (fields, query) in enumerate(shapes, start=1):
        table = stage_rows(tmp_path, "dim_a", version, query, fields)
        assert target.replace([table], target.served())["gold.dim_a"].sent == 1
        with duckdb.connect(target.path, read_only=True) as connection:
            served = connection.execute("from gold.dim_a")
            assert [column[0] for column in served.description] == [field.name for field in fields]


def test_a_failed_audit_of_changes_leaves_what_was_served(tmp_path: Path) -> None:
    target = DuckDBTarget(tmp_path / "lakehouse.duckdb")
    target.prepare()
    target.replace([staged(tmp_path, "fct_b", 1, rows=9)], {})
    wrong = staged(tmp_path, "fct_b", 2, rows=9)
    wrong = replace(wrong, fingerprint={**wrong.fingerprint, "sum of id": 0})
    with pytest.raises(OpsError, match="audit against Delta version 2 failed on sum of id"):
        target.replace([wrong], target.served())
    assert read(target.path, "select min(id) from gold.fct_b") == [(1,)]
    assert target.served()["gold.fct_b"].version.number == 1


def test_a_plan_made_from_an_older_ledger_is_refused(tmp_path: Path) -> None:
    target = DuckDBTarget(tmp_path / "lakehouse.duckdb")
    target.prepare()
    target.replace([staged(tmp_path, "dim_a", 2)], {})
    with pytest.raises(BusyError, match="Another run published"):
        target.replace([staged(tmp_path, "dim_a", 1)], {})
    assert read(target.path, "select min(id) from gold.dim_a") == [(2,)]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = {path!r}
    from python_ops.jobs.publish.duckdb_target import DuckDBTarget
    from test_publish import staged

    def tables(folder):
        yield staged(folder, "dim_a", 2, rows=100_000)
        {before}
        yield staged(folder, "fct_b", 2)

    folder = Path({folder!r})
    target = DuckDBTarget(folder / "lakehouse.duckdb")
    target.replace(tables(folder), target.served())
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["between two tables", "after the commit"])
def test_killed_at(tmp_path: Path, moment: str) -> None:
    target = DuckDBTarget(tmp_path / "lakehouse.duckdb")
    target.prepare()
    target.replace([staged(tmp_path, "dim_a", 1), staged(tmp_path, "fct_b", 1)], {})
    before = "os.kill(os.getpid(), signal.SIGKILL)" if moment == "between two tables" else "pass"
    code = textwrap.dedent(KILLED).format(path=sys.path, folder=str(tmp_path), before=before)
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    version = 1 if moment == "between two tables" else 2
    assert {s.version.number for s in target.served().values()} == {version}
    lowest = "select min(id) from gold.dim_a union all select min(id) from gold.fct_b"
    assert read(target.path, lowest) == [(version,), (version,)]


FULL = """
    import json, sys
    from pathlib import Path
    sys.path[:0] = {path!r}
    from python_ops.lake.errors import OpsError
    from python_ops.jobs.publish.duckdb_target import DuckDBTarget
    from test_publish import read, staged

    folder, disk = Path({folder!r}), Path({disk!r})
    target = DuckDBTarget(disk / "lakehouse.duckdb")
    target.prepare()
    target.replace([staged(folder, "dim_a", 1)], {{}})
    other = disk / "other"
    other.write_bytes(bytes(1_000_000))
    try:
        target.replace([staged(folder, "dim_a", 2, rows=5_000_000)], target.served())
    except OpsError as exc:
        print(json.dumps([str(exc), read(target.path, "select count(*), min(id) from gold.dim_a")]))
    other.unlink()
    target.replace([staged(folder, "dim_a", 3)], target.served())
    print(json.dumps(read(target.path, "select count(*), min(id) from gold.dim_a")))
"""


def test_a_full_disk_leaves_the_old_version_served(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4m tmpfs '{disk}'"
    own_mounts = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*own_mounts, mount], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a small disk")
    code = textwrap.dedent(FULL).format(path=sys.path, folder=str(tmp_path), disk=str(disk))
    script = f'{mount} && exec "$0" -c "$1"'
    done = subprocess.run([*own_mounts, script, sys.executable, code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # On a busy machine DuckDB prints the progress of the fixture's query between the two lines.
    (message, old), new = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert "is full. What was served before is still served. Free space" in message
    assert (old, new) == ([[3, 1]], [[3, 3]])


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "lakehouse.duckdb"
    path.write_text("not a database" * 100)
    with pytest.raises(OpsError, match=r"is not a DuckDB database\. Move it away"):
        DuckDBTarget(path).served()


def test_a_project_without_published_models_publishes_nothing(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path), start=no_session)
    files.write_manifest(tmp_path / "target", files.model("dim_a"), files.model("dim_b", publish_to=["redshift"]))
    assert publish(lake) == []
    assert status(lake) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"publish_to": "duckdb"}, "publish_to of dim_a must be a list"),
        ({"publish_to": ["oracle"]}, "publish_to of dim_a names oracle. Known: duckdb, postgres, redshift, snowflake"),
        ({"publish_to": ["duckdb"], "prefix": "other"}, "in schema other_gold; this environment's is gold"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    files.write_manifest(tmp_path / "target", files.model("dim_a", **options))
    with pytest.raises(ConfigError, match=message):
        publish(Lake(Settings(home=tmp_path), start=no_session))


def test_only_commits_that_may_change_what_is_served_leave_it_behind(tmp_path: Path) -> None:
    """Given a served table, When properties are set or files merged, Then it is current; When a row comes, behind."""
    lake = Lake(Settings(home=tmp_path))
    files.write_manifest(tmp_path / "target", files.model("dim_a", publish_to=["duckdb"]))
    path = lake.table_path("gold", "dim_a")
    for _ in range(2):
        write_deltalake(str(path), pa.table({"id": [1]}), mode="append")
    table = DeltaTable(str(path))
    target = DuckDBTarget(tmp_path / "published" / "lakehouse.duckdb")
    target.prepare()
    made = staged(tmp_path, "dim_a", 1)
    target.replace([replace(made, version=Version(str(table.metadata().id), 1))], {})

    def state() -> Publication:
        (found,) = status(lake)
        return found.state

    assert state() is Publication.CURRENT
    table.alter.set_table_properties({"delta.appendOnly": "false"})
    table.optimize.compact()
    assert DeltaTable(str(path)).version() == 3 and state() is Publication.CURRENT
    write_deltalake(str(path), pa.table({"id": [2]}), mode="append")
    assert state() is Publication.BEHIND


def test_a_table_that_the_project_publishes_no_more_is_told(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path))
    target = DuckDBTarget(tmp_path / "published" / "lakehouse.duckdb")
    target.prepare()
    target.replace([staged(tmp_path, "dim_a", 1)], {})
    files.write_manifest(tmp_path / "target", files.model("dim_b"))
    (found,) = status(lake)
    assert (found.table, found.state, found.served_version, found.rows) == ("gold.dim_a", Publication.DROPPED, 1, 3)
