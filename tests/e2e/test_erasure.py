"""A person is planted in every place, erased, and looked for in every byte; then everything is delivered again."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from python_ops.jobs.build import arguments, invoke
from python_ops.jobs.ingest import ingest
from python_ops.jobs.ingest.dead_letters import replay
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.jobs.maintenance.tagging import tag, untag
from python_ops.jobs.query import query
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.erasure import Subject, hashing, receipts
from python_ops.lake.errors import OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.lock import exclusive
from python_ops.run.daily import Job
from python_ops.run.erasure import come_back, plan, run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.campaign]

WHO = Subject("contact_id", "CON-PLANTED-7")
PLANTED = (WHO.value, "planted.person@example.org", "Plantedname", "+49-planted-555")
OTHER = "CON-OTHER-1"
LAST = 300_000_000  # beyond the positions of the recording


def contact(lsn: int, key: str, op: str = "c", **columns: Any) -> dict[str, Any]:
    named = key == WHO.value
    row = {
        "contact_id": key, "account_id": "A1", "email": PLANTED[1] if named else "other@example.org",
        "first_name": PLANTED[2] if named else "Other", "last_name": "Doe", "phone": PLANTED[3] if named else "1",
        "lifecycle_stage": "lead", "notes": None, "updated_at": "2025-03-03T06:00:00.000001Z", "marketing_opt_in": True,
    } | columns  # fmt: skip
    return _event("contacts", {"contact_id": key}, row, lsn, op)


def order(lsn: int, number: int, customer: str) -> dict[str, Any]:
    row = {
        "order_id": number, "customer_id": customer, "ordered_at": "2025-03-03T06:00:00Z", "status": "paid",
        "currency": "EUR", "total_amount": "12.50", "updated_at": "2025-03-03T06:00:00Z",
    }  # fmt: skip
    return _event("orders", {"order_id": number}, row, lsn, "c")


def _event(table: str, key: dict[str, Any], row: dict[str, Any], lsn: int, op: str) -> dict[str, Any]:
    source = {
        "table": table,
        "schema": "public",
        "lsn": lsn,
        "ts_us": 1746000000000000 + (lsn - LAST) * 1_000_000,
        "txId": lsn,
    }
    after = None if op == "d" else row
    return {"topic": "t", "key": key, "value": {"before": None, "after": after, "source": source, "op": op}}


def deliver(lake: Lake, name: str) -> None:
    """The same records under names of their own: by the contract's formats, gzip and a rejected record among them."""
    bad = contact(LAST + 13, WHO.value, lifecycle_stage=5)
    contacts = [
        contact(LAST + 10, WHO.value),
        contact(LAST + 11, OTHER),
        contact(LAST + 12, WHO.value, "u", lifecycle_stage="customer"),
        bad,
    ]
    write(lake, "crm_contacts", f"{name}.jsonl.gz", contacts)
    write(
        lake, "shop_orders", f"{name}.jsonl", [order(LAST + 20, 900_001, WHO.value), order(LAST + 21, 900_002, OTHER)]
    )
    app = {"event_type": "open", "account_id": "A1", "payload": "{}", "occurred_at": "2025-03-03T06:00:00Z"}
    people = enumerate((WHO.value, OTHER))
    write(lake, "kafka_events", f"{name}.jsonl", [{"event_id": f"E{n}", "contact_id": who, **app} for n, who in people])
    head = "event_id,user_id,session_id,event_type,page,sku,duration_ms,occurred_at\n"
    rows = [f'W{n},{who},S{n},view,"/a,\n{n}",,5,2025-03-03T06:00:00Z\n' for n, who in enumerate((WHO.value, OTHER))]
    path = lake.landing / "redshift_behavior" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "".join(rows), encoding="utf-8")


def write(lake: Lake, source: str, name: str, records: list[dict[str, Any]]) -> None:
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path = lake.landing / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def holding(home: Path) -> dict[str, list[str]]:
    """Every file that has a planted value: its bytes as they are, inflated, and the rows of a parquet file."""
    found = {}
    for path in sorted(home.rglob("*")):
        if path.is_file():
            data = b"".join(_read(path))
            if hits := [value for value in PLANTED if value.encode() in data]:
                found[str(path.relative_to(home))] = hits
    return found


def _read(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield zlib.decompress(data, 31)
    if data[:4] == b"PAR1":
        yield repr(pq.ParquetFile(path).read().to_pylist()).encode()


def age(lake: Lake, spark: SparkSession) -> None:
    """What retention and maintenance do in a week: the logs are made old, and then cleaned up by Delta itself."""
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    kept = (
        "'delta.deletedFileRetentionDuration' = 'interval 0 hours', 'delta.logRetentionDuration' = 'interval 0 hours'"
    )
    for log in sorted((lake.home / "warehouse").glob(f"{lake.settings.schema_prefix}_*.db/*/_delta_log")):
        table = f"delta.`{log.parent}`"
        spark.sql(f"alter table {table} set tblproperties ({kept})")
        spark.sql(f"vacuum {table}")
        for entry in log.iterdir():
            os.utime(entry, (1e9, 1e9))
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, str(log.parent)).checkpoint()
    spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")


@pytest.fixture
def lake(settings: Settings, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("LAKEHOUSE_SECRET_ERASURE_KEY", "a-key-of-the-tests-0123456789")
    own = settings.model_copy(update={"schema_prefix": "erased", "publish": ["duckdb"], "catalog": "none"})
    return Lake(own, landing=settings.home / "landing_erased", start=lambda: spark)


def rows(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    return query(lake, sql).rows()


def test_a_person_is_erased_and_stays_out(lake: Lake, spark: SparkSession) -> None:
    shutil.copytree(PROJECT_ROOT / "seeds" / "landing", lake.landing)
    deliver(lake, "first")
    assert not [result.error for result in ingest(lake) if result.error]
    job = Job(lake, lambda what, value: None)
    with exclusive(lake, "run"):
        job.build()
        job.publish()
    value = "select coalesce(sum(revenue_eur), 0), sum(order_count) from rpt_customer_value"
    before = rows(lake, value)

    tag(lake, "pinned")
    with exclusive(lake, "erase run"), pytest.raises(OpsError, match=r"tag pinned keeps .*dim_customer.*untag pinned"):
        run(lake, [WHO], lambda what, value: None, lambda text: None)
    assert receipts(lake) == {}, "what is refused leaves nothing"
    untag(lake, "pinned", execute=True)
    planned = plan(lake, [WHO])
    found = {place.name.replace("erased_", ""): (place.records, place.act) for place in planned.places}
    expected = {
        "landing/crm_contacts/first.jsonl.gz": (3, "write again"),
        "landing/kafka_events/first.jsonl": (1, "write again"),
        "landing/redshift_behavior/first.csv": (1, "write again"),
        "landing/shop_orders/first.jsonl": (1, "write again"),
        "dlq.crm_contacts": (1, "remove"), "bronze.crm_contacts": (2, "remove"), "bronze.kafka_events": (1, "remove"),
        "bronze.redshift_behavior": (1, "remove"), "bronze.shop_orders": (1, "key anew"),
        "silver.slv_contacts_history__cdc": (2, "remove"), "silver.slv_kafka_events__cdc": (1, "remove"),
        "silver.slv_redshift_behavior__cdc": (1, "remove"), "silver.slv_shop_orders__cdc": (1, "key anew"),
        "gold.dim_customer": (2, "remove"), "gold.feat_customer": (found["gold.feat_customer"][0], "remove"),
        "gold.fct_orders": (1, "remove"), "gold.rpt_customer_value": (1, "remove"),
        "duckdb: gold.dim_customer": (2, "publish again"), "duckdb: gold.fct_orders": (1, "publish again"),
        "duckdb: gold.rpt_customer_value": (1, "publish again"),
    }  # fmt: skip
    assert expected.items() <= found.items(), expected.items() - found.items()

    hashes = write_whole(lake.state / "extract" / "crm_contacts" / "seen.bin", b"of rows, without a key")
    with exclusive(lake, "erase run"):
        done = run(lake, [WHO], lambda what, value: None, lambda text: None)
    assert done.executed and not done.absent and not hashes.exists()
    (receipt,) = receipts(lake).values()
    assert receipt["state"] == "done" and not any(value in json.dumps(receipt) for value in PLANTED)
    assert rows(lake, value) == before, "an order that is kept counts as before"
    anew = hashing(lake).pseudonym(WHO)
    of_both = "from fct_orders where order_id in (900001, 900002) order by 1"
    kept = rows(lake, f"select order_id, customer_id, customer_key = 'unknown' {of_both}")
    assert kept == [(900_001, anew, True), (900_002, OTHER, False)]
    for source in ("crm_contacts", "shop_orders", "kafka_events", "redshift_behavior"):
        table = AppendOnlyTable(lake, "bronze", lake.contracts.load(source))
        assert lake.ledger(source).committed_rows == table.row_count(), source
    assert all(not result.warnings and result.batch_id is None for result in ingest(lake)), "no file looks replaced"

    age(lake, spark)
    assert holding(lake.home) == {}

    deliver(lake, "again")
    results = {result.source: result for result in ingest(lake)}
    assert results["crm_contacts"].ignored == 3
    assert any("of people who were erased" in told for told in results["crm_contacts"].warnings)
    replay(lake, "crm_contacts")
    with exclusive(lake, "run"):
        assert invoke(lake, ["--quiet", *arguments(["build"], lake, full_refresh=True)]).success
        job.publish()
    assert rows(lake, value) == before and come_back(lake) == [WHO], "in the landing files, and nowhere else"
    with exclusive(lake, "erase run"):
        run(lake, come_back(lake), lambda what, value: None, lambda text: None)
    assert holding(lake.home) == {} and come_back(lake) == []
    assert plan(lake, [WHO]).places == ()
