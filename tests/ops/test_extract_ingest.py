"""What an extraction lands, ingestion takes: exactly, through Spark, with what does not fit as dead letters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import fastavro
import pytest
from extraction import use

from python_ops.jobs.extract import extract
from python_ops.jobs.extract.files import LandingDraft, numbered
from python_ops.jobs.extract.sources import sources
from python_ops.jobs.ingest import IngestResult, ingest
from python_ops.lake import contracts
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.contracts import infer, load
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Ledger

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

AT = datetime(2026, 1, 5, 8, 0, 0, 123456)
HOSTILE = 'a "quoted", line\nbreak \\ and \\" Ünïcode \u2028 x'


@pytest.fixture
def lake(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[Lake]:
    """Schemas, landing folder and state of the test's own; its tables lie in the shared warehouse."""
    changed = settings.model_copy(update={"schema_prefix": "extracted"})
    yield Lake(changed, landing=tmp_path / "landing", state=tmp_path / "state", start=lambda: spark)
    for schema in ("extracted_bronze", "extracted_dlq"):
        spark.sql(f"drop schema if exists {schema} cascade")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of the test's own, empty."""
    folder = tmp_path / "contracts"
    folder.mkdir()
    shutil.copy(contracts.FOLDER / "contract.schema.json", folder)
    with monkeypatch.context() as patched:
        patched.setattr(contracts, "FOLDER", folder)
        for known in (contracts.load, contracts.sources):
            known.cache_clear()
        yield folder
    for known in (contracts.load, contracts.sources):
        known.cache_clear()


def land(lake: Lake, source: str, *rows: tuple[Any, ...]) -> None:
    """Lands rows as a database's reader gives them."""
    contract = load(source)
    draft = LandingDraft(lake.landing / source, numbered(source, 1, AT, contract), contract)
    draft.write([dict(zip([column.name for column in contract.columns], row, strict=True)) for row in rows])
    draft.finish(lambda: None)


def test_landed_rows_arrive_exactly(
    spark: SparkSession, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given rows with hostile texts, NULLs and values beyond their columns, When they are landed as csv and parquet and
    ingested, Then what fits is in bronze as it was in the source, and the rest is in the dead-letter queue."""
    land(
        lake,
        "redshift_behavior",
        ("e1", None, "s", "view", "/", None, 12, AT),
        ("e2", HOSTILE, "s", "view", "", 'x""y', None, AT),
        ("e3", "u", " s ", "view", "\\", None, 2**62, AT),
        ("e4", None, None, "without a session", None, None, None, AT),
    )
    order = ("m", HOSTILE, "s", 1, "EUR")
    land(
        lake,
        "snowflake_orders",
        ("m:1", *order, Decimal("0E-10"), "placed", AT, AT),
        ("m:2", "m", None, "s", 2, "EUR", Decimal("12.5"), "placed", AT, AT),
        ("m:3", *order, Decimal("1.005"), "placed", AT, AT),
        ("m:4", "m", "", "s", 2**31, "EUR", Decimal(1), "placed", AT, AT),
    )
    use(monkeypatch, sources()["fx_rates"])
    rates = tmp_path / "rates.csv"
    monkeypatch.setenv("LAKEHOUSE_SECRET_FX_RATES", f'{{"url": "{rates.as_uri()}"}}')
    batches: list[IngestResult] = []
    for text in ("2025-01-03,1.0299,161.99,\n", "2025-01-06,1.0426,164.16,\n2025-01-03,1.0300,161.99,\n"):
        rates.write_text("Date,USD,JPY,\n" + text)
        assert extract(lake, ["fx_rates"])[0].error is None
        names = ["fx_rates"] if batches else ["fx_rates", "redshift_behavior", "snowflake_orders"]
        batches += ingest(lake, names)
    assert [(batch.source, batch.accepted, batch.quarantined, batch.error) for batch in batches] == [
        ("fx_rates", 2, 0, None),
        ("redshift_behavior", 3, 1, None),
        ("snowflake_orders", 2, 2, None),
        ("fx_rates", 3, 0, None),
    ]
    behaviour = spark.sql(
        "select event_id, user_id, session_id, page, sku, duration_ms"
        " from extracted_bronze.redshift_behavior order by 1"
    ).collect()
    assert [tuple(row) for row in behaviour] == [
        ("e1", None, "s", "/", None, 12),
        ("e2", HOSTILE, "s", "", 'x""y', None),
        ("e3", "u", " s ", "\\", None, 2**62),
    ]
    orders = spark.sql(
        "select order_id, buyer, amount, updated_at from extracted_bronze.snowflake_orders order by 1"
    ).collect()
    at = AT.replace(tzinfo=UTC).timestamp()
    assert [(*tuple(row)[:3], row.updated_at.timestamp()) for row in orders] == [
        ("m:1", HOSTILE, Decimal("0.00"), at), ("m:2", None, Decimal("12.50"), at),
    ]  # fmt: skip
    rejected = spark.sql("select reason, column from extracted_dlq.snowflake_orders order by line").collect()
    assert [tuple(row) for row in rejected] == [("not a decimal(12,2)", "amount"), ("not a int", "quantity")]
    last = spark.sql(
        "select currency, max_by(units_per_eur, struct(_file, _line)) from extracted_bronze.fx_rates"
        " where rate_date = date '2025-01-03' group by 1 order by 1"
    ).collect()
    assert [(row[0], row[1]) for row in last] == [("JPY", Decimal("161.99")), ("USD", Decimal("1.03"))]


SAMPLES = {
    "csv": b"Partner,Fee,Active,Since,Seen_At,Visits,Email,Code\r\n"
    b'"a ""quoted"", text",1.25,true,2025-01-31,2025-01-31T10:00:00.5Z,7,x@y.z,007\r\n'
    b"b,-0.5,False,2024-02-29,2025-01-31 10:00:00+01:00,-12,,8\r\n",
    "jsonl": b'{"id": 1, "rate": 1.5e3, "tags": ["a"], "at": "2025-01-31T10:00:00Z", "who": {"email": "x@y.z"}}\n'
    b'{"id": 2, "rate": 0.125, "tags": null, "at": "2025-01-31T10:00:00Z", "note": "late; column"}\n'
    b'{"id": 3, "rate": -7, "tags": [], "at": "2025-01-31T10:00:00Z", "who": null, "mixed": 1}\n'
    b'{"id": 4, "rate": 9, "at": "2025-01-31T10:00:00Z", "mixed": "one", "big": 18446744073709551615}\n',
}


def sample(kind: str, path: Path) -> None:
    """A file as a partner sends it: nested values, names in upper case, NULLs, times without a zone."""
    if kind == "parquet":
        duckdb.sql(
            "select 1::ubigint as \"ID\", 0.1::double as share, [1, 2] as items, {'a': 1} as more,"
            " 12.50::decimal(9,2) as fee, timestamp '2025-01-01 10:00:00' as at,"
            " timestamptz '2025-01-01 10:00:00+00' as seen_at, null::date as until"
            " union all select 18446744073709551615::ubigint, -1e-9, null, null, null, null, null, date '2025-01-31'"
        ).write_parquet(str(path))
    elif kind == "avro":
        item = {"type": "record", "name": "item", "fields": [{"name": "sku", "type": "string"}]}
        fields = {"id": "long", "items": {"type": "array", "items": item}, "share": "double",
                  "note": ["null", "string"],
                  "fee": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
                  "at": {"type": "long", "logicalType": "timestamp-micros"}}  # fmt: skip
        schema = {
            "type": "record",
            "name": "p",
            "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
        }
        first = {
            "id": 1,
            "items": [{"sku": "a"}],
            "share": 0.1,
            "note": None,
            "fee": Decimal("12.50"),
            "at": AT.replace(tzinfo=UTC),
        }
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema(schema), [first, {**first, "id": 2, "items": [], "note": "x"}])
    elif kind == "debezium":
        shutil.copy(PROJECT_ROOT / "seeds" / "landing" / "crm_accounts" / "batch_0.jsonl.gz", path)
    else:
        path.write_bytes(SAMPLES[kind])


def test_a_drafted_contract_takes_its_own_sample(spark: SparkSession, lake: Lake, registry: Path) -> None:
    """Given samples of every format, When each draft is finished by description and owner alone, Then ingestion accepts
    every record of the sample, and what the contract leaves out is kept in `_extra`."""
    kinds = {"csv": 2, "jsonl": 4, "parquet": 2, "avro": 2, "debezium": None}
    for kind in kinds:
        path = lake.landing / f"partner_{kind}" / ("a.jsonl.gz" if kind == "debezium" else f"a.{kind}")
        path.parent.mkdir(parents=True)
        sample(kind, path)
        text = infer.draft(path, f"partner_{kind}").text
        finished = text.replace('description: ""', "description: As the partner says.").replace(
            'owner: ""', "owner: shop"
        )
        (registry / f"partner_{kind}.yml").write_text(finished)
    taken = {batch.source.removeprefix("partner_"): batch for batch in ingest(lake)}
    ledgers = {kind: Ledger(lake.state / "ingest", batch.source).manifests for kind, batch in taken.items()}
    refused = {kind: (taken[kind].error, ledgers[kind] and ledgers[kind][-1].rejected) for kind in kinds}
    assert refused == dict.fromkeys(kinds, (None, ()))
    assert all(taken[kind].accepted == count for kind, count in kinds.items() if count)
    assert taken["debezium"].quarantined == 0 < taken["debezium"].accepted
    kept = spark.sql("select _extra from extracted_bronze.partner_jsonl order by id").collect()
    assert json.loads(kept[0][0]) == {"tags": ["a"], "who": {"email": "x@y.z"}}
    assert json.loads(kept[2][0])["mixed"] == 1
