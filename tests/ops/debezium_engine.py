"""Debezium itself on a PostgreSQL server of the tests: a table of many types, and engines of several settings on it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from python_ops.lake.config import PROJECT_ROOT

PYTHON = PROJECT_ROOT / "target" / "debezium" / "bin" / "python"
"""Of the environment that `make debezium` makes."""

_RECORDER = PROJECT_ROOT / "tests" / "debezium" / "recorder.py"
_LAST = "the last row"
_PLAIN = {"key.converter.schemas.enable": "false", "value.converter.schemas.enable": "false"}
_FLAT = {
    "transforms": "unwrap",
    "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
    "transforms.unwrap.add.fields": "op,table,lsn,source.ts_us,source.snapshot",
    "transforms.unwrap.delete.tombstone.handling.mode": "rewrite",
}

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "defaults": {},
    "advised": {
        **_PLAIN, "decimal.handling.mode": "string", "time.precision.mode": "adaptive_time_microseconds",
        "heartbeat.interval.ms": "300", "provide.transaction.metadata": "true", "skipped.operations": "none",
    },
    "flattened": {
        **_PLAIN, **_FLAT, "decimal.handling.mode": "string", "time.precision.mode": "isostring",
        "binary.handling.mode": "base64",
    },
    "floating": {
        **_PLAIN, "decimal.handling.mode": "double", "time.precision.mode": "connect", "binary.handling.mode": "hex",
    },
    "nanoseconds": {
        **_PLAIN, "decimal.handling.mode": "precise", "time.precision.mode": "nanoseconds",
        "binary.handling.mode": "base64-url-safe",
    },
    "incremental": {"snapshot.mode": "no_data", "signal.data.collection": "public.signals"},
}  # fmt: skip
"""Settings of the connector, beside those that all engines have."""

SCHEMA = """
    create table things (
        id bigint primary key, name text, small int, flag boolean, amount numeric(12,2), anything numeric,
        at timestamptz, local_at timestamp, day date, raw bytea, big text
    );
    alter table things alter column big set storage external;
    create table signals (id varchar(42) primary key, type varchar(32) not null, data varchar(2048));
    insert into things
    select n, 'row é ' || n, n, n % 2 = 0, n * 12.34 - 50, n / 7.0::numeric(10,5),
        timestamptz '2025-03-03 06:00:00.123+02' + n * interval '1 hour', timestamp '2025-03-03 06:00:00.5',
        date '2025-03-03' - n::int, decode('00ff616263' || lpad(to_hex(n), 4, '0'), 'hex'), repeat('x' || n, 3000)
    from generate_series(1, 20) as n;
    insert into things (id) values (100);
"""

CHANGES = (
    "insert into things (id, name, amount, anything) values (21, 'new', -0.01, 123456789.0123), (22, 'gone', 1, 1)",
    "update things set name = 'changed', amount = amount + 0.07 where id <= 5",
    "update things set big = repeat('y', 4000) where id = 6; update things set small = 0 where id = 6",
    "update things set id = 1100 where id = 100",
    "delete from things where id in (8, 22)",
    "delete from things where id = 9; insert into things (id, name) values (9, 'again')",
    "begin; update things set name = 'one' where id = 10; update things set name = 'two' where id = 10; commit",
    "update things set amount = null, at = null, raw = '', day = '1969-12-31', local_at = '1969-12-31 23:59:59.999'"
    " where id = 11",
)


def record(dsn: str, folder: Path) -> None:
    """Makes the table, runs all engines on it, changes rows while they run, and waits for all to have seen the last.

    Raises:
        TimeoutError: an engine did not; the text has the end of its log.
    """
    place = urlsplit(dsn)
    common = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector", "plugin.name": "pgoutput",
        "database.hostname": place.hostname, "database.port": place.port, "database.user": place.username,
        "database.password": place.password, "database.dbname": place.path.strip("/"), "topic.prefix": "tests",
        "table.include.list": "public.things,public.signals", "offset.flush.interval.ms": 1000,
        "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore", "slot.drop.on.stop": "false",
    }  # fmt: skip
    engines = {
        name: {**common, "name": name, "slot.name": name, "publication.name": name, **settings}
        for name, settings in SETTINGS.items()
    }
    with psycopg.connect(dsn, autocommit=True) as database, (folder / "log").open("wb") as log:
        database.execute(SCHEMA)
        process = subprocess.Popen(
            [PYTHON, _RECORDER], stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps({"folder": str(folder), "engines": engines}).encode() + b"\n")
            process.stdin.flush()
            _wait(database, "select count(*) = %s from pg_replication_slots where active", (len(SETTINGS),), folder)
            for name, settings in SETTINGS.items():
                if "snapshot.mode" not in settings:
                    _wait_for(folder, name, '"row é 20"')
            for change in CHANGES:
                database.execute(change)
            signal = json.dumps({"data-collections": ["public.things"], "type": "incremental"})
            database.execute("insert into signals values ('s1', 'execute-snapshot', %s)", (signal,))
            _wait_for(folder, "incremental", '"row é 20"')
            database.execute("update things set name = 'after the snapshot' where id = 12")
            database.execute("insert into things (id, name) values (999, %s)", (_LAST,))
            for name in SETTINGS:
                _wait_for(folder, name, _LAST)
        finally:
            process.kill()
            process.wait(timeout=30)


def _wait(database: psycopg.Connection, question: str, values: tuple[int, ...], folder: Path) -> None:
    deadline = time.monotonic() + 300
    while database.execute(question, values).fetchall() != [(True,)]:
        _check(deadline, question, folder)


def _wait_for(folder: Path, name: str, text: str) -> None:
    deadline = time.monotonic() + 300
    path = folder / f"{name}.jsonl"
    while not path.exists() or text not in path.read_text(encoding="utf-8"):
        _check(deadline, f"{text} in {name}", folder)


def _check(deadline: float, what: str, folder: Path) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"{what}: not seen\n{(folder / 'log').read_text(errors='replace')[-4000:]}")
    time.sleep(0.2)
