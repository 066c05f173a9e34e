"""Publishing to PostgreSQL, to Redshift (its driver on PostgreSQL) and to Snowflake (fakesnow): the same protocol."""

from __future__ import annotations

import hmac
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import artifact_files as files
import boto3
import duckdb
import psycopg
import pyarrow
import pytest
from deltalake import write_deltalake
from servers import Server, stage_rows

from python_ops.jobs.publish import Publication, redshift_target, status
from python_ops.jobs.publish.duckdb_target import DuckDBTarget
from python_ops.jobs.publish.fingerprint import Field
from python_ops.jobs.publish.personal import Treatment
from python_ops.jobs.publish.server_target import ServerTarget
from python_ops.jobs.publish.stage import current_version
from python_ops.jobs.publish.staged import StagedRows
from python_ops.jobs.publish.target import StagedTable
from python_ops.lake.artifacts import load_manifest
from python_ops.lake.config import Settings
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.secrets import Secrets
from python_ops.watch.status import status as whole_status

# fakesnow's own use of DuckDB
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")]


@pytest.fixture(params=["postgres", "redshift", "snowflake"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of them."""
    return request.getfixturevalue(f"on_{request.param}")


ID = (Field("id", "bigint"), Field("text", "string"))


def dim(folder: Path, version: int, rows: str, name: str = "dim_a", **options: Any) -> StagedTable:
    """A small staged table of (id, text)."""
    return stage_rows(folder, name, version, f"select * from (values {rows}) t(id, text)", ID, **options)


def publish_to(target: ServerTarget, *tables: StagedTable) -> dict[str, int]:
    """Publishes the set; gives the rows that were sent of each table."""
    target.prepare()
    return {table.split(".")[1]: took.sent for table, took in target.replace(tables, target.served()).items()}


EVERY_FIELD = (
    Field("id", "bigint"), Field("tiny", "tinyint"), Field("small", "smallint"), Field("medium", "int"),
    Field("amount", "decimal(38,10)"), Field("price", "decimal(18,2)"), Field("large", "decimal(38,0)"),
    Field("happened_at", "timestamp"), Field("local_at", "timestamp_ntz"), Field("day", "date"),
    Field("text", "string"), Field("flag", "boolean"), Field("ratio", "double"), Field("single", "float"),
    Field('odd"name', "string"), Field("raw", "binary"),
)  # fmt: skip
EVERY_ROW = """
    select * from (values
    (9007199254740993::bigint, 127::tinyint, (-32768)::smallint, 2147483647::int,
     1234567890123456789012345678.1234567891::decimal(38,10), (-0.01)::decimal(18,2),
     99999999999999999999999999999999999999::decimal(38,0),
     timestamptz '0001-01-01 00:00:00+00', timestamp '2024-03-31 02:30:00.000001', date '0001-01-01',
     chr(8232) || '''é\\n"|,' || chr(10), true, 'nan'::double, 0.1::float, '"', '\\x00\\xFF'::blob),
    ('-9223372036854775808'::bigint, 0, 0, 0, -0.0000000001, 0, -1,
     timestamptz '9999-12-31 23:59:59.999999+00', null, date '9999-12-31',
     '', false, '-infinity'::double, 'infinity'::float, null, ''::blob),
    (9223372036854775807, null, null, null, null, null, null,
     timestamptz '2024-10-27 00:30:00.123456+00', null, null, null, null, null, null, '{{ x }} %s ? $1', null)
    ) t(id, tiny, small, medium, amount, price, large, happened_at, local_at, day, text, flag, ratio, single,
        "odd""name", raw)
"""


def test_every_type_arrives_exactly(server: Server, tmp_path: Path) -> None:
    fields = EVERY_FIELD if server.name != "redshift" else EVERY_FIELD[:-1]
    query = EVERY_ROW if server.name != "redshift" else f"select * exclude raw from ({EVERY_ROW})"
    largest = 10**38 - 1
    if server.name == "snowflake":  # fakesnow holds a number without a scale in 64 bits; Snowflake does not
        largest = 2**63 - 1
        query = query.replace(str(10**38 - 1), str(largest))
    described = {"id": "The \\key."}
    table = stage_rows(
        tmp_path, "fct_types", 7, query, fields, description="100% facts; a? or {b}", columns=described | {"gone": "?"}
    )
    target = server.target()

    assert publish_to(target, table) == {"fct_types": 3}

    plain = "id, tiny, small, medium, amount, price, large, happened_at, local_at, day, text, flag"
    ratio = 'ratio, single, "odd""name"' if server.name != "snowflake" else 'ratio, single, "ODD""NAME"'
    rows = server.read(f"select {plain}, {ratio} from gold.fct_types order by id")
    assert [row[:12] for row in rows] == [
        (-(2**63), 0, 0, 0, Decimal("-1E-10"), Decimal("0.00"), -1, datetime(9999, 12, 31, 23, 59, 59, 999999), None,
         date(9999, 12, 31), "", False),
        (2**53 + 1, 127, -32768, 2147483647, Decimal("1234567890123456789012345678.1234567891"), Decimal("-0.01"),
         largest, datetime(1, 1, 1), datetime(2024, 3, 31, 2, 30, 0, 1), date(1, 1, 1), "\u2028'é\\n\"|,\n", True),
        (2**63 - 1, None, None, None, None, None, None, datetime(2024, 10, 27, 0, 30, 0, 123456), None, None, None,
         None),
    ]  # fmt: skip
    assert [row[14] for row in rows] == [None, '"', "{{ x }} %s ? $1"]
    assert [str(float(row[12])) for row in rows if row[12] is not None] == ["-inf", "nan"]
    assert [round(row[13], 6) for row in rows if row[13] is not None] == [float("inf"), 0.1]
    if server.name != "redshift":
        raw = server.read("select raw from gold.fct_types order by id")
        assert [row[0] if row[0] is None else bytes(row[0]) for row in raw] == [b"", b"\x00\xff", None]
    ((stored, entry),) = target.served().items()
    assert (stored, entry.version.number, entry.version.table_id, entry.rows) == ("gold.fct_types", 7, "table-id", 3)
    age = datetime.now().astimezone() - datetime.fromisoformat(entry.published_at)
    assert abs(age.total_seconds()) < 60


STAGING = {"staging": "s3://staging/publish", "iam_role": "arn:aws:iam::123456789012:role/copy"}


@pytest.fixture
def on_redshift_with_s3(on_redshift: Server, aws: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Redshift that loads however few rows by COPY, from a bucket of moto."""
    monkeypatch.setattr(redshift_target, "_FEW", 0)
    boto3.client("s3").create_bucket(Bucket="staging", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return replace(on_redshift, secret={**on_redshift.secret, **STAGING})


def test_copy_loads_the_same_as_insert_and_leaves_no_file(on_redshift_with_s3: Server, tmp_path: Path) -> None:
    """By position, whatever the order of a table whose columns have changed."""
    query, fields = f"select * exclude raw from ({EVERY_ROW})", EVERY_FIELD[:-1]
    target = on_redshift_with_s3.target()
    older = [*fields[:2], Field("text", "int"), *fields[2:10], *fields[11:]]  # `text` moves to the end
    publish_to(target, stage_rows(tmp_path, "fct_types", 1, f"select * replace (1 as text) from ({query})", older))
    by_copy = target.replace([stage_rows(tmp_path, "fct_types", 2, query, fields)], target.served())
    assert by_copy["gold.fct_types"].sent == 3
    publish_to(on_redshift_with_s3.target(staging="", iam_role=""), stage_rows(tmp_path, "by_insert", 1, query, fields))
    names = ", ".join(target.dialect.name(field.name) for field in fields)
    by_copy_rows, by_insert_rows = (
        on_redshift_with_s3.read(f"select {names} from gold.{table} order by id")
        for table in ("fct_types", "by_insert")
    )
    assert str(by_copy_rows) == str(by_insert_rows)  # as text: NaN is not equal to itself
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="staging")


def test_a_copy_that_fails_leaves_the_old_rows_and_no_file(on_redshift_with_s3: Server, tmp_path: Path) -> None:
    target = on_redshift_with_s3.target()
    publish_to(target, dim(tmp_path, 1, "(1, 'a')"))
    without_bucket = on_redshift_with_s3.target(staging="s3://gone/publish")
    with pytest.raises(ConfigError, match="There is no bucket gone"):
        publish_to(without_bucket, dim(tmp_path, 2, "(1, 'b')"))
    connection = target.connect(on_redshift_with_s3.secret)
    connection.cursor().execute("alter table gold.dim_a add constraint no_b check (text <> 'b')")
    connection.commit()
    connection.close()
    with pytest.raises(OpsError, match="Publishing to Redshift failed"):
        publish_to(target, dim(tmp_path, 3, "(1, 'b')"))
    assert on_redshift_with_s3.read("select id, text from gold.dim_a") == [(1, "a")]
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="staging")


def test_types_and_comments_are_those_of_the_model(server: Server, tmp_path: Path) -> None:
    fields = EVERY_FIELD if server.name != "redshift" else EVERY_FIELD[:-1]
    query = EVERY_ROW if server.name != "redshift" else f"select * exclude raw from ({EVERY_ROW})"
    query = query.replace(str(10**38 - 1), "0")  # fakesnow holds a number without a scale in 64 bits
    table = stage_rows(tmp_path, "fct_types", 7, query, fields, description="All types.", columns={"id": "The key."})
    publish_to(server.target(), table)
    if server.name == "snowflake":
        where = "table_schema = 'GOLD' and table_name = 'FCT_TYPES' order by ordinal_position"
        types = server.read(
            f"select data_type, numeric_precision, numeric_scale, comment from information_schema.columns where {where}"
        )
        assert sorted(f"{kind}({p},{s})" if kind == "NUMBER" else kind for kind, p, s, _ in types) == sorted([
            "NUMBER(19,0)", "NUMBER(3,0)", "NUMBER(5,0)", "NUMBER(10,0)", "NUMBER(38,10)", "NUMBER(18,2)",
            "NUMBER(38,0)", "TIMESTAMP_NTZ", "TIMESTAMP_NTZ", "DATE", "TEXT", "BOOLEAN", "FLOAT", "FLOAT", "TEXT",
            "BINARY",
        ])  # fmt: skip
        assert [comment for *_, comment in types if comment] == ["The key."]
        return
    with psycopg.connect(server.dsn) as reader:
        types = reader.execute(
            "select format_type(atttypid, atttypmod), col_description(attrelid, attnum) from pg_attribute "
            "where attrelid = 'gold.fct_types'::regclass and attnum > 0 order by attnum"
        ).fetchall()
        (comment,) = reader.execute("select obj_description('gold.fct_types'::regclass)").fetchone() or (None,)
    text = "text" if server.name == "postgres" else "character varying(65535)"
    expected = [
        "bigint", "smallint", "smallint", "integer", "numeric(38,10)", "numeric(18,2)", "numeric(38,0)",
        "timestamp without time zone", "timestamp without time zone", "date", text, "boolean", "double precision",
        "real", text, "bytea",
    ]  # fmt: skip
    assert [kind for kind, _ in types] == expected[: len(fields)]
    assert [said for _, said in types if said] == ["The key."]
    assert comment == "All types."


def test_what_a_server_cannot_hold_is_refused_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    wrong = {"postgres": "interval", "redshift": "binary", "snowflake": "decimal(38,38)"}[server.name]
    table = stage_rows(tmp_path, "fct_b", 1, "select 1 as bad", (Field("bad", "bigint"),))
    table = StagedTable(**{**vars(table), "fields": (Field("bad", wrong),)})
    target = server.target()
    target.prepare()
    with pytest.raises(ConfigError, match="Column bad is of type"):
        target.replace([dim(tmp_path, 1, "(1, 'a')"), table], {})
    assert target.served() == {}


def test_only_rows_that_differ_are_sent(server: Server, tmp_path: Path) -> None:
    target = server.target()
    first = ", ".join(f"({n}, 'text {n % 3}')" for n in range(10)) + ", (null, null), (7, 'text 1')"
    assert publish_to(target, dim(tmp_path, 1, first)) == {"dim_a": 12}
    assert publish_to(target, dim(tmp_path, 2, first)) == {"dim_a": 0}  # OPTIMIZE: a version without a change
    changed = ", ".join(f"({n}, '{'new' if n == 4 else f'text {n % 3}'}')" for n in range(1, 11)) + ", (null, null)"
    assert publish_to(target, dim(tmp_path, 3, changed)) == {"dim_a": 3}  # 4 anew, 10; 7 once instead of twice
    expected = sorted([(n, "new" if n == 4 else f"text {n % 3}") for n in range(1, 11)], key=str)
    assert sorted(server.read("select id, text from gold.dim_a where id is not null"), key=str) == expected
    assert server.read("select count(*) from gold.dim_a") == [(11,)]
    assert {table: entry.version.number for table, entry in target.served().items()} == {"gold.dim_a": 3}
    assert publish_to(target, dim(tmp_path, 4, "(1, 'a'), (2, 'b')")) == {"dim_a": 2}  # most of it: sent in full
    assert sorted(server.read("select id, text from gold.dim_a")) == [(1, "a"), (2, "b")]
    assert publish_to(target, stage_rows(tmp_path, "dim_a", 5, "select 1 as id, 'a' as text where false", ID)) == {
        "dim_a": 0
    }
    assert server.read("select count(*) from gold.dim_a") == [(0,)]


def test_rows_changed_by_hand_are_put_right_with_the_next_change(server: Server, tmp_path: Path) -> None:
    target = server.target()
    rows = ", ".join(f"({n}, 'x')" for n in range(10))
    publish_to(target, dim(tmp_path, 1, rows))
    connection = target.connect(server.secret)
    connection.cursor().execute("update gold.dim_a set text = 'by hand' where id = 3")
    connection.commit()
    connection.close()
    assert publish_to(target, dim(tmp_path, 2, rows + ", (10, 'x')")) == {"dim_a": 2}
    assert server.read("select count(*) from gold.dim_a where text = 'x'") == [(11,)]


@pytest.mark.parametrize("second", ["audit", "file"])
def test_a_failure_leaves_the_whole_old_set_served(server: Server, tmp_path: Path, second: str) -> None:
    target = server.target()
    publish_to(target, dim(tmp_path, 1, "(1, 'old')"), dim(tmp_path, 1, "(1, 'old')", name="fct_b"))
    before = target.served()
    good, bad = dim(tmp_path, 2, "(1, 'new'), (2, 'new')"), dim(tmp_path, 2, "(2, 'secret row')", name="fct_b")
    if second == "audit":  # a file that is not what Spark counted
        duckdb.sql("select 2 as id, 'garbled' as text").write_parquet(str(bad.folder / "part.parquet"))
    else:
        (bad.folder / "part.parquet").write_bytes(b"no parquet")
    with pytest.raises(OpsError, match="failed on hash" if second == "audit" else "fct_b") as failure:
        target.replace([good, bad], before)
    assert "still served" in str(failure.value) and "secret row" not in str(failure.value)
    assert server.read("select text from gold.dim_a union all select text from gold.fct_b") == [("old",), ("old",)]
    assert target.served() == before


def test_a_plan_made_from_an_older_ledger_is_refused(server: Server, tmp_path: Path) -> None:
    target = server.target()
    publish_to(target, dim(tmp_path, 2, "(2, 'new')"))
    with pytest.raises(BusyError, match="Another run published"):
        target.replace([dim(tmp_path, 1, "(1, 'old')")], {})
    assert server.read("select text from gold.dim_a") == [("new",)]


def test_tables_of_others_are_left_alone(server: Server, tmp_path: Path) -> None:
    connection = server.target().connect(server.secret)
    for statement in ("create schema gold", "create table gold.dim_a (x int)"):
        connection.cursor().execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(OpsError, match=r"already has a table gold\.dim_a that `lakeops publish` did not make"):
        publish_to(server.target(), dim(tmp_path, 1, "(1, 'a')"))
    publish_to(server.target(), dim(tmp_path, 1, "(1, 'a')", name="dim_b"))
    with pytest.raises(ConfigError, match="published by environment 'local', not by 'prod'"):
        server.target(environment="prod").served()


def test_columns_that_come_go_and_change(server: Server, tmp_path: Path) -> None:
    target = server.target()
    publish_to(target, dim(tmp_path, 1, "(1, 'a'), (2, 'b')"))
    fields = (Field("id", "int"), Field("amount", "decimal(10,2)"))
    table = stage_rows(tmp_path, "dim_a", 2, "select 1 as id, 1.10::decimal(10,2) as amount", fields)
    assert publish_to(target, table) == {"dim_a": 1}
    assert server.read("select id, amount from gold.dim_a") == [(1, Decimal("1.10"))]
    assert len(server.read("select * from gold.dim_a")[0]) == 2


def test_a_table_dropped_by_hand_is_made_again(server: Server, tmp_path: Path) -> None:
    target = server.target()
    publish_to(target, dim(tmp_path, 1, "(1, 'a'), (2, 'b')"))
    connection = target.connect(server.secret)
    connection.cursor().execute("drop table gold.dim_a")
    connection.commit()
    connection.close()
    assert publish_to(target, dim(tmp_path, 2, "(1, 'a'), (2, 'b')")) == {"dim_a": 2}


def test_a_wide_table_of_long_texts(server: Server, tmp_path: Path) -> None:
    fields = tuple(Field(f"c{n}", "string") for n in range(60))
    columns = ", ".join(f"repeat('é{n}', 50) || range as c{n}" for n in range(60))
    table = stage_rows(tmp_path, "fct_wide", 1, f"select {columns} from range(700)", fields)
    assert publish_to(server.target(), table) == {"fct_wide": 700}
    assert server.read("select count(distinct c59) from gold.fct_wide") == [(700,)]


def test_status_tells_each_warehouse_and_which_does_not_answer(
    on_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home", publish=("duckdb", "postgres"))
    lake = Lake(settings, artifacts=tmp_path / "target")
    monkeypatch.setenv("LAKEHOUSE_SECRET_POSTGRES", json.dumps(on_postgres.secret))
    path = lake.table_path("gold", "dim_a")
    write_deltalake(str(path), pyarrow.table({"id": [1], "text": ["a"]}))
    files.write_manifest(tmp_path / "target", files.model("dim_a", publish_to=["duckdb", "postgres", "redshift"]))
    version = current_version(load_manifest(tmp_path / "target").models["model.lakehouse.dim_a"], lake.log(path))
    publish_to(on_postgres.target(), replace(dim(tmp_path, 0, "(1, 'a')"), version=version))

    told = {s.target: (s.state, s.rows) for s in status(lake)}
    assert told == {"duckdb": (Publication.NEVER, None), "postgres": (Publication.CURRENT, 1)}

    write_deltalake(str(path), pyarrow.table({"id": [2], "text": ["b"]}), mode="append")
    told = {s.target: (s.state, s.rows) for s in status(lake)}
    assert told == {"duckdb": (Publication.NEVER, None), "postgres": (Publication.BEHIND, 1)}

    monkeypatch.setenv("LAKEHOUSE_SECRET_POSTGRES", json.dumps({**on_postgres.secret, "port": 1}))
    lake = Lake(settings, artifacts=tmp_path / "target")
    down = {s.target: s for s in status(lake)}
    assert (down["duckdb"].state, down["postgres"].state) == (Publication.NEVER, Publication.UNREACHABLE)
    assert "cannot be reached" in (down["postgres"].error or "")
    at_a_glance = whole_status(lake)
    assert (at_a_glance.published, list(at_a_glance.unreachable)) == ({"duckdb": {}}, ["postgres"])


# PostgreSQL and Redshift, whose connections can be cut.


@pytest.fixture(params=["postgres", "redshift"])
def cuttable(request: pytest.FixtureRequest) -> Server:
    """Servers whose connections an administrator can end."""
    return request.getfixturevalue(f"on_{request.param}")


def cut_in(target: ServerTarget, dsn: str, when: Callable[[str], bool]) -> None:
    """Ends the publishing connection before the first send to a table for which `when` holds."""
    sending = target.send

    def send(cursor: Any, schema: str, table: str, *rest: Any) -> None:
        if when(table):
            cut(dsn)
        sending(cursor, schema, table, *rest)

    target.send = send  # type: ignore[method-assign]


def cut(dsn: str) -> None:
    """Ends every other connection to the database."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where pid <> pg_backend_pid() and datname = current_database()"
        )


@pytest.mark.parametrize("table", ["dim_a", "publish_changed", "fct_b"])
def test_a_connection_cut_in_the_middle(cuttable: Server, tmp_path: Path, table: str) -> None:
    target = cuttable.target()
    old = ", ".join(f"({n}, 'old')" for n in range(10))
    new = old.replace("(3, 'old')", "(3, 'new')")
    publish_to(target, dim(tmp_path, 1, old), dim(tmp_path, 1, old, name="fct_b"))
    before = target.served()
    tables = [dim(tmp_path, 2, new), dim(tmp_path, 2, new, name="fct_b")]
    cut_in(target, cuttable.dsn, lambda name: name == table)
    with pytest.raises(OpsError, match="Run `lakeops publish run` again: what is served already is not sent twice"):
        target.replace(tables, before)
    both = "select text from gold.dim_a union select text from gold.fct_b"
    assert cuttable.read(both) == [("old",)]
    again = cuttable.target()
    assert again.served() == before
    assert publish_to(again, *tables) == {"dim_a": 1, "fct_b": 1}
    assert sorted(cuttable.read(both)) == [("new",), ("old",)]


def test_a_connection_cut_after_the_commit(cuttable: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = cuttable.target()
    target.prepare()
    connecting = target.connect

    def connect(secret: Any) -> Any:
        made = connecting(secret)
        return CutAfterCommit(made, cuttable.dsn)

    monkeypatch.setattr(target, "connect", connect)
    with pytest.raises(OpsError, match="or the whole new set if the commit had arrived"):
        target.replace([dim(tmp_path, 1, "(1, 'new')")], {})
    again = cuttable.target()
    assert {table: entry.version.number for table, entry in again.served().items()} == {"gold.dim_a": 1}
    assert cuttable.read("select text from gold.dim_a") == [("new",)]


class CutAfterCommit:
    """A connection whose second commit arrives, and its answer does not."""

    def __init__(self, connection: Any, dsn: str) -> None:
        self.connection, self.dsn, self.commits = connection, dsn, itertools.count(1)

    def commit(self) -> None:
        """Commits; the second time the connection is cut, and the next use of it fails as a lost answer would."""
        self.connection.commit()
        if next(self.commits) == 2:
            cut(self.dsn)
            self.connection.cursor().execute("select 1")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def test_a_polling_reader_sees_no_half_and_no_mixed_sets(cuttable: Server, tmp_path: Path) -> None:
    target = cuttable.target()
    rows = [", ".join(f"({n}, 'v{version}')" for n in range(500)) for version in range(1, 5)]
    publish_to(target, dim(tmp_path, 1, rows[0]), dim(tmp_path, 1, rows[0], name="fct_b"))
    seen: list[Any] = []
    done = threading.Event()

    def poll() -> None:
        query = (
            "select (select count(*) from gold.dim_a), (select count(*) from gold.fct_b), "
            "(select count(distinct v) from (select text v from gold.dim_a union all select text from gold.fct_b) u)"
        )
        with psycopg.connect(cuttable.dsn, autocommit=True, options="-c statement_timeout=5s") as reader:
            while not done.is_set():
                seen.append(reader.execute(query).fetchone())

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for version in (2, 3, 4):
            new = dim(tmp_path, version, rows[version - 1]), dim(tmp_path, version, rows[version - 1], name="fct_b")
            publish_to(target, *new)
    finally:
        done.set()
        reader.join(30)
    assert len(seen) > 20
    assert set(seen) == {(500, 500, 1)}


def test_two_publishers_at_once(cuttable: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("python_ops.jobs.publish.redshift_target.LOCK_SECONDS", 1)
    target = cuttable.target()
    publish_to(target, dim(tmp_path, 1, "(1, 'a')"))
    with psycopg.connect(cuttable.dsn) as other:
        other.execute("lock table ops.publish_ledger in share row exclusive mode")
        with pytest.raises(BusyError, match="Another transaction holds"):
            target.replace([dim(tmp_path, 2, "(1, 'b')")], target.served())
    assert cuttable.read("select text from gold.dim_a") == [("a",)]


def test_credentials_rotate_and_are_never_told(cuttable: Server, tmp_path: Path) -> None:
    text = cuttable.target().secrets.get(cuttable.name).reveal()
    stale = text.replace(str(cuttable.secret["password"]), "canary-stale-password")

    class Rotating:
        """Gives a stale secret first, as a rotation that the server has already seen."""

        given = 0

        def get(self, name: str, stage: str = "AWSCURRENT") -> str | None:
            if stage != "AWSCURRENT":
                return None
            self.given += 1
            return stale if self.given == 1 else text

        def where(self, name: str) -> str:
            return "here"

    rotated = type(cuttable.target())(Secrets([Rotating()]), "ops", "local")
    assert publish_to(rotated, dim(tmp_path, 1, "(1, 'a')")) == {"dim_a": 1}
    with pytest.raises(ConfigError, match="refused the credentials of secret") as refused:
        cuttable.target(password="canary-wrong-password").served()
    assert "canary" not in str(refused.value)
    with pytest.raises(ConfigError, match=f"Secret {cuttable.name} has no host"):
        cuttable.target(host="").served()
    with pytest.raises(OpsError, match="cannot be reached") as nowhere:
        cuttable.target(port=1).served()
    assert "canary" not in str(nowhere.value)


def test_grants_views_and_indexes_stay(on_postgres: Server, tmp_path: Path) -> None:
    role = f"r_{on_postgres.secret['dbname']}"
    target = on_postgres.target()
    first, more = '["x"]', ", ".join(f"({n}, 'a')" for n in range(5))
    with psycopg.connect(on_postgres.dsn, autocommit=True) as admin:
        admin.execute(f"create role {role}")
        admin.execute(f"create role {role}_by_hand")
        try:
            meta = {"publish_grants": [role]}
            publish_to(target, dim(tmp_path, 1, f"(1, '{first}')", meta=meta))
            admin.execute(f"grant select on gold.dim_a to {role}_by_hand")
            admin.execute("create view gold.v as select * from gold.dim_a")
            admin.execute("create index by_id on gold.dim_a (id)")
            publish_to(target, dim(tmp_path, 2, more, meta=meta))
            publish_to(target, dim(tmp_path, 3, more + ", (9, 'b')", meta=meta))
            for name in (role, f"{role}_by_hand"):
                granted = "select has_table_privilege(%s, 'gold.dim_a', 'select')"
                assert admin.execute(granted, [name]).fetchone() == (True,)
            assert admin.execute("select has_schema_privilege(%s, 'gold', 'usage')", [role]).fetchone() == (True,)
            assert admin.execute("select count(*) from gold.v").fetchone() == (6,)
            assert admin.execute("select to_regclass('gold.by_id') is not null").fetchone() == (True,)
        finally:
            admin.execute(f"drop owned by {role}, {role}_by_hand")
            admin.execute(f"drop role {role}, {role}_by_hand")
    with pytest.raises(ConfigError, match="publish_grants must be a list of roles"):
        publish_to(target, dim(tmp_path, 4, "(1, 'a')", meta={"publish_grants": "everyone"}))


PII_KEY = "canary-key-of-at-least-32-characters-and-more-than-one-block-of-64-bytes"
PEOPLE = (Field("id", "bigint"), Field("email", "string"), Field("born_on", "date"), Field("amount", "decimal(38,0)"))
PERSONAL = {name: {"pii": True} for name in ("email", "born_on")}


def people(folder: Path, version: int, name: str = "dim_a", marks: Any = None) -> StagedTable:
    """A staged table with two personal columns, a value in two rows, a NULL, and a sum too large for Spark."""
    rows = "(1, 'é@x', date '1980-02-29'), (2, 'é@x', null), (3, '', date '1980-02-29'), (4, null, null)"
    query = (
        "select id::bigint as id, email, born_on, 0::decimal(38,0) as amount "
        f"from (values {rows}) t(id, email, born_on)"
    )
    described = dict.fromkeys(("id", "email", "born_on"), "A column.")
    table = stage_rows(folder, name, version, query, PEOPLE, columns=described)
    large = f"select * replace ({10**38 - 1}::decimal(38,0) as amount) from ({query})"
    duckdb.sql(f"copy ({large}) to '{table.folder}/part.parquet'")
    columns = tuple(
        replace(c, meta=(PERSONAL if marks is None else marks).get(c.name, {})) for c in table.model.columns
    )
    return replace(
        table, model=replace(table.model, columns=columns), fingerprint={**table.fingerprint, "sum of amount": None}
    )


def hashed(value: str) -> str:
    return hmac.digest(PII_KEY.encode(), value.encode(), "sha256").hex()


def treatment(folder: Path, warehouse: str, **policy: Any) -> Treatment:
    return Treatment(Lake(Settings(home=folder / "lake", publish_pii=policy)), warehouse)


def test_a_shared_warehouse_gets_hashes_that_join_and_keeps_its_grants(
    on_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From clear to hash to drop: each time the whole table is served anew; the same value has one hash everywhere."""
    monkeypatch.setenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY", PII_KEY)
    servers: list[tuple[str, Any, Callable[[str], list[tuple[Any, ...]]]]] = [
        ("postgres", on_postgres.target(), on_postgres.read)
    ]
    file = DuckDBTarget(tmp_path / "served.duckdb")

    def read(query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(file.path, read_only=True) as connection:
            return connection.execute(query).fetchall()

    servers.append(("duckdb", file, read))
    role = f"h_{on_postgres.secret['dbname']}"
    every = "select email, born_on from gold.dim_a order by id"
    for version, (name, target, ask) in enumerate(servers):
        folder = tmp_path / name
        folder.mkdir()
        publish_to(target, treatment(folder, name, **{name: "clear"}).applied(people(folder, version)))
        assert ask(every)[0] == ("é@x", date(1980, 2, 29)) and target.served()["gold.dim_a"].personal == ""
        if name == "postgres":
            with psycopg.connect(on_postgres.dsn, autocommit=True) as admin:
                admin.execute(f"create role {role}")
                admin.execute(f"grant select on gold.dim_a to {role}")
        hashes = treatment(folder, name, **{name: "hash"})
        tables = [hashes.applied(people(folder, version + 10, table)) for table in ("dim_a", "fct_b")]
        publish_to(target, *tables)
        email, born = hashed("é@x"), hashed("1980-02-29")
        assert ask(every) == [(email, born), (email, None), (hashed(""), born), (None, None)]
        assert ask("select count(*) from gold.dim_a join gold.fct_b using (email)") == [(5,)]
        noted = target.served()["gold.dim_a"].personal
        assert noted == hashes.note(tables[0].model) and noted.endswith(": email, born_on") and PII_KEY not in noted
        publish_to(target, treatment(folder, name, **{name: "drop"}).applied(people(folder, version + 20)))
        assert ask("select * from gold.dim_a order by id limit 1") == [(1, 10**38 - 1)]
        assert target.served()["gold.dim_a"].personal == "drop: email, born_on"
    with psycopg.connect(on_postgres.dsn, autocommit=True) as admin:
        granted = admin.execute("select has_table_privilege(%s, 'gold.dim_a', 'select')", [role]).fetchone()
        assert granted == (True,)
        told = admin.execute("select col_description('gold.fct_b'::regclass, 2)").fetchone()
        assert told == ("A column. Keyed hash of the value (HMAC-SHA256).",)
        admin.execute(f"drop owned by {role}")
        admin.execute(f"drop role {role}")


def test_every_server_gets_the_same_hashes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY", PII_KEY)
    table = people(tmp_path, 1)
    parts = {part: value for part, value in table.fingerprint.items() if "amount" not in part}  # too large for fakesnow
    table = replace(table, fields=PEOPLE[:3], fingerprint=parts)
    publish_to(server.target(), treatment(tmp_path, server.name).applied(table))
    rows = server.read("select email, born_on from gold.dim_a order by id")
    assert rows[:2] == [(hashed("é@x"), hashed("1980-02-29")), (hashed("é@x"), None)] and rows[3] == (None, None)


def test_a_mark_a_policy_or_a_key_that_changes_is_published_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY", PII_KEY)
    model, unmarked = people(tmp_path, 1).model, people(tmp_path, 2, marks={}).model
    notes = {treatment(tmp_path, "redshift").note(model), treatment(tmp_path, "redshift", redshift="drop").note(model)}
    monkeypatch.setenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY", PII_KEY[::-1])
    notes |= {treatment(tmp_path, "redshift").note(model), treatment(tmp_path, "duckdb").note(model)}
    assert len(notes) == 4 and "" in notes, "the file of this machine has clear values unless it is said otherwise"
    for given, told in (("short", "too short for a key"), (None, "publish_pii_key is not set.* Nothing was published")):
        if given is None:
            monkeypatch.delenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY")
        else:
            monkeypatch.setenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY", given)
        with pytest.raises(ConfigError, match=told):
            treatment(tmp_path, "snowflake").note(model)
    assert treatment(tmp_path, "snowflake").note(unmarked) == "", "who has no personal column needs no key"
    with pytest.raises(ConfigError, match="personal columns alone"):
        alone = replace(people(tmp_path, 3), fields=PEOPLE[1:2])
        treatment(tmp_path, "redshift", redshift="drop").applied(alone)


def test_staged_files_that_are_not_what_spark_read_are_never_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_SECRET_PUBLISH_PII_KEY", PII_KEY)
    table = people(tmp_path, 1)
    with pytest.raises(OpsError, match="failed on rows"):
        treatment(tmp_path, "postgres").applied(replace(table, fingerprint={**table.fingerprint, "rows": 5}))
    assert not list(tmp_path.glob("*.postgres"))


def test_a_publisher_with_no_more_rights_than_it_needs(on_postgres: Server, tmp_path: Path) -> None:
    role = f"p_{on_postgres.secret['dbname']}"
    with psycopg.connect(on_postgres.dsn, autocommit=True) as admin:
        admin.execute(f"create role {role} login password 'canary-publisher'")
        for schema in ("gold", "ops"):
            admin.execute(f"create schema {schema}")
            admin.execute(f"grant usage, create on schema {schema} to {role}")
        try:
            target = on_postgres.target(user=role, password="canary-publisher")
            assert publish_to(target, dim(tmp_path, 1, "(1, 'a')")) == {"dim_a": 1}
            assert publish_to(target, dim(tmp_path, 2, "(1, 'a'), (2, 'b')")) == {"dim_a": 1}
        finally:
            admin.execute(f"drop owned by {role}")
            admin.execute(f"drop role {role}")


def test_a_failed_audit_of_the_changes_loads_the_table_in_full(
    on_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = on_postgres.target()
    rows = ", ".join(f"({n}, 'x')" for n in range(10))
    publish_to(target, dim(tmp_path, 1, rows))
    # Deleting nothing stands for whatever makes the hashes and the audit disagree.
    monkeypatch.setattr(StagedRows, "gone", "select place as h from served where false")
    assert publish_to(target, dim(tmp_path, 2, rows.replace("(3, 'x')", "(3, 'y')"))) == {"dim_a": 10}
    assert on_postgres.read("select count(*), min(text), max(text) from gold.dim_a") == [(10, "x", "y")]


def test_a_statement_that_hangs_ends(on_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = on_postgres.target()
    publish_to(target, dim(tmp_path, 1, "(1, 'a')"))
    monkeypatch.setattr("python_ops.jobs.publish.postgres_target.LOCK_SECONDS", 1)
    with psycopg.connect(on_postgres.dsn) as reader:
        reader.execute("lock table gold.dim_a in access exclusive mode")
        started = time.monotonic()
        with pytest.raises(BusyError, match="Another transaction holds"):
            target.replace([dim(tmp_path, 2, "(1, 'b')")], target.served())
        assert time.monotonic() - started < 15
