"""Extraction from databases by their real drivers: PostgreSQL, which plays Redshift too, and fakesnow for Snowflake."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fakesnow
import psycopg
import pytest
import snowflake.connector
from extraction import contract, failed, lake_with, landed, mark, overlap, pull, source, use, versions
from snowflake.connector import errors

from python_ops.jobs.extract.pull_state import PullState
from python_ops.jobs.extract.sources import Source
from python_ops.jobs.ingest.inspection import inspect
from python_ops.lake import landing
from python_ops.lake.lake import Lake
from python_ops.lake.secrets import mask
from python_ops.lake.state.watermarks import Watermark

TABLE = """create table {} (ticket_id bigint, subject varchar(200), hours numeric(12,2), is_open boolean, due_date date,
    updated_at timestamp)"""
START = datetime(2026, 1, 5, 8, 0, 0, 123456)
HOSTILE = 'a "quoted", line\nbreak \\ and Ünïcode'


class Desk:
    """A table of tickets in a database.

    Args:
        execute: Runs a statement there; `{}` stands for the table.
        entry: How it is extracted.
        secret: Address and credentials.
    """

    def __init__(self, execute: Callable[[str, tuple[Any, ...]], None], entry: Source, secret: dict[str, Any]) -> None:
        self.run, self.entry, self.secret = execute, entry, secret
        self.run(TABLE, ())

    def put(self, number: int, minutes: float | None, subject: str | None = "help", table: str = "{}") -> None:
        at = None if minutes is None else START + timedelta(minutes=minutes)
        self.run("delete from {} where ticket_id = %s", (number,))
        values = (number, subject, Decimal("1.50"), True, START.date(), at)
        self.run("insert into {} values (%s, %s, %s, %s, %s, %s)", values)


@pytest.fixture(scope="session")
def redshift_desk(redshift: str, postgres: str) -> str:
    """A database with Redshift's clock."""
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("create database extract_redshift template template_redshift")
    with psycopg.connect(postgres, dbname="extract_redshift") as database:
        database.execute(
            "create or replace function getdate() returns timestamp language sql"
            " as $$ select cast(clock_timestamp() at time zone 'UTC' as timestamp) $$"
        )
    return redshift.rsplit("/", 1)[0] + "/extract_redshift"


@pytest.fixture(params=["postgres", "redshift", "snowflake"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    system = request.param
    if system == "snowflake":
        with fakesnow.patch():
            given = {
                "account": "test",
                "user": "lake",
                "password": "canary-snow",
                "database": "SHOP",
                "schema": "PUBLIC",
            }
            connection = snowflake.connector.connect(**given)
            with connection.cursor() as cursor:

                def execute(sql: str, values: tuple[Any, ...]) -> None:
                    cursor.execute(sql.format("tickets"), values)

                yield Desk(execute, source("snowflake", "parquet", relation="SHOP.PUBLIC.TICKETS"), given)
        return
    request.getfixturevalue("postgres")
    dsn = request.getfixturevalue("redshift_desk" if system == "redshift" else "postgres")
    direct = request.getfixturevalue("postgres")
    parts: dict[str, Any] = dict(psycopg.conninfo.conninfo_to_dict(dsn))
    with psycopg.connect(direct, dbname=parts["dbname"], autocommit=True) as admin:
        admin.execute("drop schema if exists desk cascade")
        admin.execute("create schema desk")

        def run(sql: str, values: tuple[Any, ...]) -> None:
            admin.execute(sql.format("desk.tickets").encode(), values)

        secret = {**parts, "port": int(parts["port"]), **({"ssl": False} if system == "redshift" else {})}
        yield Desk(run, source(system, "csv", relation="desk.tickets"), secret)
        admin.execute("drop schema desk cascade")


@pytest.fixture
def lake(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    use(monkeypatch, desk.entry)
    return lake_with(tmp_path / "lake", tickets=desk.secret)


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")]


def test_everything_lands_and_then_what_changed(desk: Desk, lake: Lake) -> None:
    for number in range(5):
        desk.put(number, number)
    assert pull(lake).rows == 5
    at = START.replace(tzinfo=UTC) + timedelta(minutes=4)
    assert mark(lake) == Watermark(at.isoformat(), "4")
    again = pull(lake)
    assert (again.rows, again.files, again.again) == (0, (), 5)
    desk.put(1, 5, HOSTILE)
    desk.put(7, 4)  # of the watermark's time, with another key
    desk.put(6, -10)  # committed late, within the overlap
    assert pull(lake).rows == 3
    assert set(versions(lake).values()) == {1} and len(versions(lake)) == 8
    assert pull(lake).rows == 0


def test_values_are_what_ingestion_reads(desk: Desk, lake: Lake) -> None:
    desk.put(1, 0, HOSTILE)
    desk.put(2, 1, None)
    desk.put(3, 2, "")
    pull(lake)
    rows = landed(lake)
    if desk.entry.contract.format == "parquet":
        assert rows[0] == {
            "ticket_id": 1, "subject": HOSTILE, "hours": "1.50", "is_open": True, "due_date": START.date(),
            "updated_at": START.replace(tzinfo=UTC),
        }  # fmt: skip
        assert [row["subject"] for row in rows] == [HOSTILE, None, ""]
        return
    assert rows[0] == {
        "ticket_id": "1", "subject": HOSTILE, "hours": "1.50", "is_open": "true", "due_date": "2026-01-05",
        "updated_at": "2026-01-05T08:00:00.123456Z",
    }  # fmt: skip
    (name,) = landing.names(lake.landing / "tickets")
    assert inspect(lake.landing / "tickets", name, contract("csv")).fault is None
    import gzip

    lines = gzip.decompress((lake.landing / "tickets" / name).read_bytes()).decode().rsplit("\n", 3)[1:3]
    assert [line.split(",")[1] for line in lines] == ["", '""'], "NULL and an empty text are told apart"


def test_files_of_a_long_pull_move_the_watermark_one_by_one(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given small pages and files, When a pull is long, Then each file has its manifest, and rows are in order."""
    for number in range(20):
        desk.put(number, 20 - number)
    use(monkeypatch, Source(**{**desk.entry.__dict__, "page_rows": 3, "file_rows": 6}))
    lake = lake_with(tmp_path / "small", tickets=desk.secret)
    result = pull(lake)
    assert (result.rows, len(result.files)) == (20, 4)
    assert [int(row["ticket_id"]) for row in landed(lake)] == list(range(19, -1, -1))
    manifests = PullState(lake.state / "extract", "tickets").manifests()
    found = [json.loads(path.read_text()) for path in manifests]
    assert [(m["file"]["rows"], m["done"]) for m in found] == [(6, True), (6, True), (6, True), (2, True)]
    assert [m["to"]["key"] for m in found] == ["14", "8", "2", "0"]
    assert {m["until"] for m in found} == {found[0]["until"]}, "one upper bound for the whole pull"


def test_rows_that_no_pull_delivers_are_counted(desk: Desk, lake: Lake) -> None:
    desk.put(1, 0)
    desk.put(2, None)
    desk.put(3, None)
    desk.run("insert into {} values (%s, %s, %s, %s, %s, %s)", (4, "", None, None, None, datetime(2999, 1, 1)))
    result = pull(lake)
    assert result.rows == 1
    assert any(w.startswith("2 rows have no usable updated_at") for w in result.warnings)
    assert any(w.startswith("1 rows have their updated_at after the source's clock") for w in result.warnings)


def test_what_is_still_being_committed_is_left_to_the_next_pull(
    desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.put(1, 0)
    desk.run("insert into {} values (%s, %s, %s, %s, %s, %s)", (2, "", None, None, None, datetime.now(UTC)))
    use(monkeypatch, Source(**{**desk.entry.__dict__, "lag_seconds": 600}))
    assert pull(lake).rows == 1
    use(monkeypatch, desk.entry)
    assert pull(lake).rows == 1


def test_a_table_that_is_not_there_is_named(desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Source(**{**desk.entry.__dict__, "relation": desk.entry.relation + "_gone"}))
    message = failed(lake)
    assert "did not give rows without a time of" in message and "gone" in message.lower()
    assert not landing.names(lake.landing / "tickets")


def test_without_an_overlap_the_watermarks_own_time_is_still_read(
    desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, overlap(desk.entry, 0))
    desk.put(1, 0)
    pull(lake)
    desk.put(0, 0)
    assert (pull(lake).rows, len(versions(lake))) == (1, 2)


@pytest.mark.parametrize("desk", ["postgres", "redshift"], indirect=True)
def test_refused_credentials_are_named_and_not_shown(desk: Desk, tmp_path: Path, lake: Lake) -> None:
    given = lake_with(tmp_path / "other", tickets={**desk.secret, "password": "canary-wrong"})
    message = failed(given)
    assert "refuses the credentials of secret tickets" in message and "Renew the secret" in message
    assert "canary" not in message


@pytest.mark.parametrize("desk", ["postgres", "redshift"], indirect=True)
def test_a_password_rotated_while_a_pull_runs_is_read_afresh(desk: Desk, lake: Lake) -> None:
    """Given a cached secret that was rotated, When the server refuses it, Then it is read again."""
    from python_ops.lake.secrets import Secrets

    desk.put(1, 0)
    right, given = json.dumps(desk.secret), [json.dumps({**desk.secret, "password": "canary-old-one"})]

    class Rotating:
        def get(self, name: str, stage: str = "AWSCURRENT") -> str | None:
            return given[0] if stage == "AWSCURRENT" else None

        def where(self, name: str) -> str:
            return "here"

    secrets = Secrets([Rotating()])
    secrets.get("tickets")
    given[0] = right
    assert pull(Lake(lake.settings, secrets=secrets)).rows == 1


class Cutting:
    """A proxy that cuts each connection after so many bytes from the server, as often as it is told to."""

    def __init__(self, port: int, after: int, times: int) -> None:
        self.target, self.after, self.times = port, after, times
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            left = self.after if self.times > 0 else 1 << 60
            self.times -= 1
            threading.Thread(target=self._copy, args=(client, server, 1 << 60), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, left), daemon=True).start()

    @staticmethod
    def _copy(come: socket.socket, go: socket.socket, left: int) -> None:
        try:
            while left > 0 and (data := come.recv(min(4096, left))):
                left -= len(data)
                go.sendall(data)
        except OSError:
            pass
        for end in (come, go):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("desk", ["postgres", "redshift"], indirect=True)
@pytest.mark.parametrize("times", [1, 99])
def test_a_connection_that_drops_while_rows_are_read(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Given a proxy that cuts the connection, When it does so once, Then the pull goes on from its last file; when it
    keeps cutting, the pull fails, what landed is safe, and the next run lands the rest: each state once."""
    for number in range(400):
        desk.put(number, number, "x" * 150)
    use(monkeypatch, Source(**{**desk.entry.__dict__, "page_rows": 20, "file_rows": 100, "overlap_seconds": 60}))
    cutting = Cutting(desk.secret["port"], 40_000, times)
    lake = lake_with(tmp_path / "lake2", tickets={**desk.secret, "port": cutting.port, "host": "127.0.0.1"})
    if times == 1:
        assert pull(lake).rows == 400
    else:
        cutting.after = 25_000
        message = failed(lake)
        assert "tickets" in message and "canary" not in mask(message)
        assert 0 < len(landed(lake)) < 400
        cutting.times = 0
        pull(lake)
    assert len(versions(lake)) == 400 and set(versions(lake).values()) == {1}
    assert not list(lake.landing.rglob("*.tmp"))
    cutting.listener.close()


@pytest.mark.parametrize("desk", ["postgres"], indirect=True)
def test_a_statement_has_its_time(desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run("create view desk.slow as select t.* from {} t cross join lateral (select pg_sleep(5), t.ticket_id) s", ())
    desk.put(1, 0)
    use(monkeypatch, Source(**{**desk.entry.__dict__, "relation": "desk.slow", "timeout_seconds": 1}))
    started = datetime.now(UTC)
    message = failed(lake)
    assert "QueryCanceled 57014" in message
    assert (datetime.now(UTC) - started).total_seconds() < 4, "a time limit is not tried again"


@pytest.mark.parametrize("desk", ["postgres"], indirect=True)
def test_the_session_can_only_read(desk: Desk, lake: Lake) -> None:
    from python_ops.jobs.extract.postgres import PostgresReader
    from python_ops.lake.secrets import Secret

    reader = PostgresReader(desk.entry, Secret("tickets", json.dumps(desk.secret)))
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.connection.execute("delete from desk.tickets")
    reader.close()


@pytest.mark.parametrize("desk", ["postgres"], indirect=True)
def test_a_server_that_is_not_there_is_named(desk: Desk, tmp_path: Path, lake: Lake) -> None:
    given = lake_with(tmp_path / "other", tickets={**desk.secret, "port": 9})
    assert "PostgreSQL cannot be reached" in failed(given)
    given = lake_with(tmp_path / "third", tickets={"host": "x"})
    assert "tickets" in failed(given)


@pytest.mark.parametrize(
    ("error", "refused", "lost"),
    [
        (
            errors.DatabaseError("Incorrect username or password was specified.", errno=250001, sqlstate="08001"),
            True,
            False,
        ),
        (errors.DatabaseError("JWT token is invalid.", errno=390144, sqlstate="08001"), True, False),
        (errors.ForbiddenError(msg="Verify the account name", errno=250001, sqlstate="08001"), True, False),
        (errors.OperationalError("Could not connect to Snowflake backend", errno=250001), False, True),
        (errors.ServiceUnavailableError(msg="busy", errno=250001), False, True),
        (errors.ProgrammingError("Object 'X' does not exist", errno=2003, sqlstate="02000"), False, False),
        (errors.ProgrammingError("Statement reached its timeout", errno=630, sqlstate="57014"), False, False),
        (ValueError("of another kind"), False, False),
    ],
)
def test_errors_of_snowflake_are_told_apart(error: Exception, refused: bool, lost: bool) -> None:
    from python_ops.jobs.extract.snowflake import SnowflakeReader

    assert (SnowflakeReader.is_refused(error), SnowflakeReader.is_lost(error)) == (refused, lost)
    told = SnowflakeReader.told(error)
    assert told.startswith(type(error).__name__) and "of another kind" not in told


def test_a_private_key_opens_snowflake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a key instead of a password, When Snowflake is opened to read or to publish, Then the connector gets it."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_der_private_key,
    )

    from python_ops.jobs.extract.snowflake import SnowflakeReader
    from python_ops.jobs.publish.snowflake_target import SnowflakeTarget
    from python_ops.lake.secrets import Secret, Secrets

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary-phrase")).decode()
    given = {"account": "a", "user": "u", "private_key": pem, "private_key_passphrase": "canary-phrase"}
    given |= {"database": "LAKE", "warehouse": "W"}
    asked: dict[str, Any] = {}
    published: dict[str, Any] = {}
    with fakesnow.patch(), monkeypatch.context() as patched:  # undone in this order, or the fake would stay
        opened = snowflake.connector.connect
        patched.setattr(snowflake.connector, "connect", lambda **options: asked.update(options) or opened(**options))
        entry = source("snowflake", "parquet", relation="SHOP.PUBLIC.TICKETS")
        SnowflakeReader(entry, Secret("tickets", json.dumps(given))).close()
        patched.setattr(
            snowflake.connector, "connect", lambda **options: published.update(options) or opened(**options)
        )
        SnowflakeTarget(Secrets([]), "ops", "local").connect(given).close()
    assert published["private_key"] == asked["private_key"] and "password" not in published
    loaded = load_der_private_key(asked["private_key"], None)
    assert loaded.private_numbers() == key.private_numbers()  # type: ignore[union-attr]
    assert asked["session_parameters"]["TIMEZONE"] == "UTC" and "password" not in asked
    assert asked["login_timeout"] and asked["network_timeout"]
