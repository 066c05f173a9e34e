"""Servers that the tests share, started once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_server import postgres_server
from redshift_front import SHIMS, redshift_front
from servers import Server, on_moto, postgres_database, secret_of


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Address of a moto server: every AWS service that the project uses."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """AWS as moto plays it, empty, by the variables that boto3 reads."""
    on_moto(moto, monkeypatch)
    return moto


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """DSN of a PostgreSQL server, as a superuser in an empty database.

    All tests share it: make a database or schemas of your own, and leave roles and settings as they were.
    """
    with postgres_server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def redshift(postgres: str) -> Iterator[str]:
    """DSN of the same server as redshift_connector takes it for Redshift; see redshift_front.py for what it is not.

    Its database is `template_redshift`, which has the functions of Redshift that the project uses.
    """
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("create database template_redshift")
    with psycopg.connect(postgres, dbname="template_redshift") as database:
        database.execute(SHIMS)
    parts = psycopg.conninfo.conninfo_to_dict(postgres)
    with redshift_front(int(str(parts["port"]))) as port:
        yield f"postgresql://{parts['user']}:{parts['password']}@127.0.0.1:{port}/template_redshift"


@pytest.fixture
def on_postgres(postgres: str) -> Iterator[Server]:
    """A PostgreSQL database of the test's own, whose sessions are not in UTC unless they ask for it."""
    import psycopg

    with postgres_database(postgres) as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("do $$ begin execute format('alter database %I set timezone = %L', current_database(), "
                          "'America/New_York'); end $$")  # fmt: skip
        yield Server("postgres", secret_of(dsn, sslmode="disable"), dsn)


@pytest.fixture
def on_redshift(redshift: str) -> Iterator[Server]:
    """The same behind the front that redshift_connector takes for Redshift."""
    with postgres_database(redshift, "template_redshift") as dsn:
        yield Server("redshift", secret_of(dsn, ssl=False), dsn)


@pytest.fixture
def on_snowflake() -> Iterator[Server]:
    """A Snowflake account as fakesnow plays it, in memory."""
    import fakesnow

    secret = {"account": "a", "user": "u", "password": "canary-snowflake", "database": "LAKE", "warehouse": "W"}
    with fakesnow.patch():
        yield Server("snowflake", {**secret, "role": "R"})
