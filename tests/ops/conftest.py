"""Servers that the tests share, started once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_server import postgres_server
from redshift_front import SHIMS, redshift_front


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
    import urllib.request

    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST"), timeout=10).close()
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
