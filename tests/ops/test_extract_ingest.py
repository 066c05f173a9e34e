"""What an extraction lands, ingestion takes: exactly, through Spark, with what does not fit as dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from extraction import use

from python_ops.jobs.extract import extract
from python_ops.jobs.extract.files import LandingDraft, numbered
from python_ops.jobs.extract.sources import sources
from python_ops.jobs.ingest import IngestResult, ingest
from python_ops.lake.config import Settings
from python_ops.lake.contracts import load

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

AT = datetime(2026, 1, 5, 8, 0, 0, 123456)
HOSTILE = 'a "quoted", line\nbreak \\ and \\" Ünïcode \u2028 x'


@pytest.fixture
def lake(spark: SparkSession, settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Schemas, landing folder and state of the test's own; its tables lie in the shared warehouse."""
    given = settings.model_copy(update={"schema_prefix": "extracted"})
    for name, value in (("landing", tmp_path / "landing"), ("state", tmp_path / "state")):
        given.__dict__[name] = value
    yield given
    for schema in ("extracted_bronze", "extracted_dlq"):
        spark.sql(f"drop schema if exists {schema} cascade")


def land(lake: Settings, source: str, *rows: tuple[Any, ...]) -> None:
    """Lands rows as a database's reader gives them."""
    contract = load(source)
    draft = LandingDraft(lake.landing / source, numbered(source, 1, AT, contract), contract)
    draft.write([dict(zip([column.name for column in contract.columns], row, strict=True)) for row in rows])
    draft.finish(lambda: None)


def test_landed_rows_arrive_exactly(
    spark: SparkSession, lake: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        batches += ingest(lake, lambda: spark, names)
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
