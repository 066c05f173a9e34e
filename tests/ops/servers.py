"""Warehouses of the tests as publishing sees them and as a reader does, and staged tables made without Spark."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import artifact_files as files
import duckdb
import psycopg
import pytest

from python_ops.jobs.publish.fingerprint import Field
from python_ops.jobs.publish.server_target import ServerTarget
from python_ops.jobs.publish.staged import SESSION, fingerprint
from python_ops.jobs.publish.target import StagedTable, Version
from python_ops.jobs.publish.warehouses import driver
from python_ops.lake.artifacts import load_manifest
from python_ops.lake.secrets import Secrets
from python_ops.lake.secrets.providers import EnvironmentProvider


@dataclass
class Server:
    """One warehouse: its secret, and the DSN by which an administrator of PostgreSQL gets there."""

    name: str
    secret: Mapping[str, Any]
    dsn: str = ""

    def target(self, environment: str = "local", **changed: Any) -> ServerTarget:
        """What publishes to it; `changed` fields of the secret are other than they should be."""
        text = json.dumps({**self.secret, **changed})
        secrets = Secrets([EnvironmentProvider({f"LAKEHOUSE_SECRET_{self.name.upper()}": text})])
        return driver(self.name)(secrets, "ops", environment)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """What a reader sees, on a connection of its own."""
        connection = self.target().connect(self.secret)
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]
        finally:
            connection.close()


def on_moto(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the variables by which boto3 finds a moto server, and empties it."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST"), timeout=10).close()


@contextmanager
def postgres_database(dsn: str, template: str = "template1") -> Iterator[str]:
    """A database of one test; gives its DSN."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(f"create database {name} template {template}")
        try:
            yield psycopg.conninfo.make_conninfo(dsn, dbname=name)
        finally:
            admin.execute(f"drop database {name} with (force)")


def secret_of(dsn: str, **more: Any) -> dict[str, Any]:
    """The secret of a DSN."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    found = {name: parts[name] for name in ("host", "dbname", "user", "password")}
    return {**found, "port": int(str(parts["port"])), **more}


def stage_rows(
    folder: Path,
    name: str,
    version: int,
    query: str,
    fields: Sequence[Field],
    meta: Mapping[str, Any] | None = None,
    **options: Any,
) -> StagedTable:
    """A staged table of a DuckDB query's rows, audited by what DuckDB says of them."""
    node = files.model(name, **options)
    node["config"]["meta"] = dict(meta or {})
    files.write_manifest(folder / "manifest", node)
    out = folder / f"{name}_{version}"
    out.mkdir()
    with duckdb.connect() as connection:
        connection.execute(SESSION)
        connection.execute(f"create table t as {query}")
        connection.execute(f"copy t to '{out}/part.parquet'")
        parts = fingerprint(connection, "t", fields)
    model = load_manifest(folder / "manifest").models[f"model.lakehouse.{name}"]
    return StagedTable(model, Version("table-id", version), tuple(fields), out, parts, seconds=0.0)


def to_bucket(folder: Path, bucket: str, prefix: str) -> None:
    """Makes a bucket of moto's with a folder's files."""
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for file in folder.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), bucket, f"{prefix}/{file.relative_to(folder)}")
