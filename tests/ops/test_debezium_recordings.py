"""What Debezium itself writes of a PostgreSQL table, in several settings, gives PostgreSQL's own rows.

Needs the environment of `make debezium`; without it the test is skipped and says so.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from debezium_engine import PYTHON, SETTINGS, record
from postgres_server import postgres_server

from python_ops.jobs.ingest import ingest
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Column, Contract, Contracts
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.spark,
    pytest.mark.campaign,
    pytest.mark.skipif(not PYTHON.exists(), reason="Debezium's environment is not there: make debezium"),
]

TYPES = {
    "id": "bigint", "name": "string", "small": "int", "flag": "boolean", "amount": "decimal(12,2)",
    "anything": "decimal(38,20)", "at": "timestamp", "local_at": "timestamp", "day": "date", "raw": "string",
    "big": "string",
}  # fmt: skip
ACCEPTS = {
    "defaults": {},
    "advised": {"local_at": "epoch_us"},
    "flattened": {},
    "floating": {"local_at": "epoch_ms", "raw": "hex"},
    "nanoseconds": {"amount": "precise", "local_at": "epoch_ns", "raw": "base64_url"},
    "incremental": {},
}


def contract(name: str) -> Contract:
    columns = tuple(
        Column(column, type_, "A column.", required=column == "id", accepts=(way,) if way else ())
        for column, type_ in TYPES.items()
        for way in (ACCEPTS[name].get(column),)
    )
    return Contract(
        source=name, version="1.0.0", description="Things.", owner="tests", format="debezium_json", key=("id",),
        columns=columns, table="things", others="ignore",
    )  # fmt: skip


def state(rows: list[Any]) -> dict[int, dict[str, Any]]:
    """The rows that live after all events, in the order that bronze gives them."""
    living: dict[int, dict[str, Any]] = {}
    order = ("_source_generation", "_source_lsn", "_source_position", "_line")
    for row in sorted(rows, key=lambda row: [row[name] for name in order]):
        before = living.pop(row["id"], {})
        if row["_op"] != "d":
            unsent = row["_unsent"] or ()
            living[row["id"]] = {name: before.get(name) if name in unsent else row[name] for name in TYPES}
    return living


def as_ingested(row: tuple[Any, ...]) -> dict[str, Any]:
    """PostgreSQL's row as bronze has it: bytes in base64, times in UTC."""
    found = dict(zip(TYPES, row, strict=True))
    found["raw"] = None if found["raw"] is None else base64.b64encode(found["raw"]).decode()
    return found


def test_each_setting_gives_the_rows_of_postgresql(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    folder.mkdir()
    with postgres_server("wal_level=logical") as dsn:
        record(dsn, folder)
        with psycopg.connect(dsn) as database:
            asked = ", ".join(TYPES).replace(" at,", " at at time zone 'UTC',")
            wanted = {row[0]: as_ingested(row) for row in database.execute(f"select {asked} from things").fetchall()}
    assert len(wanted) == 22, "21 rows, three new, one of these and another deleted"

    lake = Lake(
        settings.model_copy(update={"schema_prefix": "recorded"}),
        landing=tmp_path / "landing", state=tmp_path / "state", start=lambda: spark,
    )  # fmt: skip
    lake.contracts = Contracts({name: contract(name) for name in SETTINGS})
    for name in SETTINGS:
        (lake.landing / name).mkdir(parents=True)
        (folder / f"{name}.jsonl").rename(lake.landing / name / "a.jsonl")
    for result in ingest(lake, list(SETTINGS)):
        assert (result.error, result.quarantined) == (None, 0), result
        found = state(spark.table(f"{lake.schema_name('bronze')}.{result.source}").collect())
        want = wanted
        if result.source == "floating":  # its numbers have lost digits, and are counted as such
            assert result.changes
            found, want = (
                {key: row | {"anything": row["anything"] and float(row["anything"])} for key, row in rows.items()}
                for rows in (found, wanted)
            )
        assert found == want, result.source
