"""Ingestion on real Delta: what is accepted, what is quarantined and why, and what a fault in the middle leaves."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from python_ops.jobs.ingest import IngestResult, ingest, reading
from python_ops.jobs.ingest import batch as batch_module
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Column, Contracts, load
from python_ops.lake.erasure import Subject, hashing, keep_receipt
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Ledger

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

pytestmark = pytest.mark.spark

PLACEHOLDER = "__debezium_unavailable_value"


def event(op: str = "c", lsn: Any = 10, key: Any = None, table: str = "accounts", **after: Any) -> dict[str, Any]:
    """A Debezium record of crm_accounts as it lies in a landing file."""
    row = {"account_id": "A1", "name": "Acme", "updated_at": "2025-03-03T06:00:00.000001Z"} | after
    row = {name: value for name, value in row.items() if value is not ...}
    source = {"table": table, "lsn": lsn, "ts_us": 1741000000000001, "txId": 7}
    value = {"before": None, "after": None if op in "dt" else row, "source": source, "op": op}
    return {"topic": "t", "key": key or (None if op == "t" else {"account_id": row.get("account_id")}), "value": value}


class Desk:
    """One source's landing folder and tables, in schemas of their own."""

    def __init__(self, spark: SparkSession, lake: Lake, source: str = "crm_accounts") -> None:
        self.spark, self.lake, self.source = spark, lake, source
        self.landing = lake.landing / source
        self.landing.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, *lines: Any) -> Path:
        texts = [line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines]
        path = self.landing / name
        path.write_bytes(b"".join(text + b"\n" for text in texts))
        return path

    def ingest(self) -> IngestResult:
        return ingest(self.lake, [self.source])[0]

    def bronze(self, *columns: str) -> list[Row]:
        table = f"{self.lake.schema_name('bronze')}.{self.source}"
        return list(
            self.spark.table(table).selectExpr(*(columns or ("*",))).orderBy("_batch_id", "_file", "_line").collect()
        )

    def types(self) -> list[tuple[str, str]]:
        return list(self.spark.table(f"{self.lake.schema_name('bronze')}.{self.source}").dtypes)

    def dlq(self) -> list[Row]:
        return list(self.spark.table(f"{self.lake.schema_name('dlq')}.{self.source}").orderBy("file", "line").collect())

    def ledger(self) -> Ledger:
        return self.lake.ledger(self.source)


@pytest.fixture
def desk(
    spark: SparkSession, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Desk]]:
    """Makes a desk; its landing and state lie in a folder of the test, its tables in the shared warehouse."""
    prefix = "t" + str(abs(hash(request.node.name)) % 10**8)
    changed = settings.model_copy(update={"schema_prefix": prefix})
    opened = Lake(changed, landing=tmp_path / "landing", state=tmp_path / "state", start=lambda: spark)
    yield lambda source="crm_accounts": Desk(spark, opened, source)
    for layer in ("bronze", "dlq"):
        spark.sql(f"drop schema if exists {opened.schema_name(layer)} cascade")


BAD_RECORDS: list[tuple[str, Any, str, str | None]] = [
    ("garbage", b"not json at all", "not one JSON object", None),
    ("half a line", b'{"topic":"t","key":{"account_id":"A1"},"val', "not one JSON object", None),
    ("an array", b"[1, 2]", "not one JSON object", None),
    ("two objects", json.dumps(event()).encode() * 2, "not one JSON object", None),
    ("two objects with a comma", b'{"a":1},{"b":2}', "not one JSON object", None),
    ("a key twice", b'{"topic":"t","topic":"u","value":{}}', "not one JSON object", None),
    ("not UTF-8", b'{"topic":"\xff\xfe"}', "not valid UTF-8", None),
    ("no value", {"topic": "t", "key": {"account_id": "A1"}}, "no value", None),
    ("unknown op", event("x"), "unknown operation", None),
    ("no op", {"key": {}, "value": {"after": {}, "source": {}}}, "unknown operation", None),
    ("another table", event(table="contacts"), "event of another table", None),
    ("no position", event(lsn=None), "no log position", None),
    ("a position as text", event(lsn="10"), "no log position", None),
    ("no row", {**event(), "value": {**event()["value"], "after": None}}, "no row in the event", None),
    ("missing required", event(name=...), "a required column is missing", "name"),
    ("null required", event(name=None), "a required value is null", "name"),
    ("null key", event(account_id=None), "a required value is null", "account_id"),
    ("blank key", event(account_id="  "), "the key is blank", "account_id"),
    ("delete without key", event("d", key={"other": 1}), "a required column is missing", "account_id"),
    ("a number where a text belongs", event(name=5), "not a string", "name"),
    ("a text where a number belongs", event(annual_revenue="1,234.50"), "not a decimal(38,10)", "annual_revenue"),
    ("an exponent", event(annual_revenue="1e3"), "not a decimal(38,10)", "annual_revenue"),
    ("too many digits", event(annual_revenue="9" * 29), "not a decimal(38,10)", "annual_revenue"),
    ("scale loss", event(annual_revenue="0.00000000001"), "not a decimal(38,10)", "annual_revenue"),
    ("no time zone", event(updated_at="2025-03-03T06:00:00"), "not a timestamp", "updated_at"),
    ("no such day", event(updated_at="2025-02-30T06:00:00Z"), "not a timestamp", "updated_at"),
    ("an object where a text belongs", event(industry={"a": 1}), "not a string", "industry"),
]


def test_records_and_files_go_where_they_belong_as_they_were_received(desk: Callable[..., Desk]) -> None:
    """Given a file of bad records and a good one, a file of odd but good ones (placeholders, extra columns, deletes,
    truncates, awkward strings and numbers), a broken file and an empty one, Then the good are in bronze exactly, a
    tombstone is no row, every other is kept as it was received, with its reason, and a broken file is rejected whole.
    """
    here = desk()
    path = here.write("a.jsonl", *[record for _, record, _, _ in BAD_RECORDS], event(), b"")
    awkward = "a\u2028b\u2029c\u0085d 'q' \\ ${env:HOME} \x01"
    here.write(
        "b.jsonl",
        b"\xef\xbb\xbf"
        + json.dumps(event("r", name=awkward, annual_revenue="12345678901234567890.123456789")).encode(),
        event("u", 11, industry=PLACEHOLDER, name=PLACEHOLDER, nickname={"x": [1, 9007199254740993]}),
        event("d", 12, key={"account_id": "A1"}),
        {"topic": "t", "key": {"account_id": "A1"}, "value": None},
        event("t", 13),
    )
    (here.landing / "c.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 9999)[:-9])
    (here.landing / "d.jsonl").write_bytes(b"")

    result = here.ingest()

    assert (result.files, result.error, result.rejected_files) == (4, None, {"c.jsonl.gz": "truncated gzip"})
    assert (result.accepted, result.quarantined, result.ignored) == (5, len(BAD_RECORDS), 2)
    assert result.read == result.accepted + result.quarantined + result.ignored
    raw = (
        here.spark.table(f"{here.lake.schema_name('dlq')}.crm_accounts")
        .where("file = 'a.jsonl'")
        .selectExpr("cast(raw as binary) as raw", "line")
    )
    received = path.read_bytes().split(b"\n")
    assert {row["line"]: bytes(row["raw"]) for row in raw.collect()} == {
        number: received[number - 1] for number in range(1, len(BAD_RECORDS) + 1)
    }
    *bad, broken = here.dlq()
    told = [
        f"{name}: expected {reason!r} at {column}, got {row['reason']!r} at {row['column']}"
        for row, (name, _, reason, column) in zip(bad, BAD_RECORDS, strict=True)
        if not row["reason"].startswith(reason) or row["column"] != column
    ]
    assert not told, "\n".join(told)
    assert {(row["file"], row["contract_version"], row["_batch_id"]) for row in bad} == {("a.jsonl", "1.0.0", 1)}
    assert [broken[name] for name in ("file", "line", "raw", "reason")] == ["c.jsonl.gz", None, None, "truncated gzip"]

    assert result.extra_columns == ("nickname",)
    _, snapshot, update, delete, truncate = here.bronze()
    assert snapshot["name"] == awkward and snapshot["annual_revenue"] == Decimal("12345678901234567890.1234567890")
    assert snapshot["updated_at"] == datetime(2025, 3, 3, 6, 0, 0, 1) and snapshot["_source_lsn"] == 10
    assert update["_unsent"] == ["name", "industry"] and update["name"] is None and update["industry"] is None
    assert json.loads(update["_extra"]) == {"nickname": {"x": [1, 9007199254740993]}}
    assert (delete["_op"], delete["account_id"], delete["name"]) == ("d", "A1", None)
    assert (truncate["_op"], truncate["account_id"], truncate["_line"]) == ("t", None, 5)


def test_dates_integers_and_booleans_are_typed(desk: Callable[..., Desk]) -> None:
    here = desk("crm_opportunities")
    row = {"opportunity_id": "O1", "account_id": "A", "stage": "new", "updated_at": "2025-03-03T06:00:00Z"}
    source = {"table": "opportunities", "lsn": 1, "ts_us": 1}

    def record(**values: Any) -> dict[str, Any]:
        return {"key": {"opportunity_id": "O1"}, "value": {"op": "c", "source": source, "after": row | values}}

    here.write(
        "a.jsonl",
        record(close_date=-141428, amount="9999999999.99"),
        record(close_date=2932896, amount="-0.01"),
        record(close_date=2932897),
        record(close_date="01.01.2025"),
        record(amount="10000000000.00"),
    )

    assert (here.ingest().accepted, here.dlq()[0]["column"]) == (2, "close_date")
    assert [(r["close_date"], r["amount"]) for r in here.bronze()] == [
        (date(1582, 10, 14), Decimal("9999999999.99")), (date(9999, 12, 31), Decimal("-0.01")),
    ]  # fmt: skip
    assert [row["line"] for row in here.dlq()] == [3, 4, 5]


def test_csv_rows_are_checked_like_events(desk: Callable[..., Desk]) -> None:
    here = desk("fx_rates")
    good, many, short = b"2025-03-03,USD,1.0465", b"2025-03-03,JPY,many", b"2025-03-03,GBP"
    no_day, no_date, quoted = b"2025-13-03,CHF,1", b",CHF,1", b'2025-03-03,"CHF",0.9437'
    here.write("a.csv", b"rate_date,currency,units_per_eur", good, many, short, no_day, no_date, quoted)

    result = here.ingest()

    assert (result.read, result.accepted, result.quarantined, result.ignored) == (7, 2, 4, 1)
    assert [(r["currency"], r["units_per_eur"], r["_line"]) for r in here.bronze()] == [
        ("USD", Decimal("1.04650000"), 2), ("CHF", Decimal("0.94370000"), 7),
    ]  # fmt: skip
    assert [(row["line"], row["column"]) for row in here.dlq()] == [
        (3, "units_per_eur"), (4, None), (5, "rate_date"), (6, "rate_date"),
    ]  # fmt: skip


def test_a_run_that_dies_is_finished_by_the_next(desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a run that dies before a step and files that arrive afterwards, When it runs again,
    Then the frozen batch is finished under its number, the new files make the next, and nothing is there twice.
    """
    here = desk()
    real_append = AppendOnlyTable.append

    def die_before(where: str) -> Any:
        def append(table: AppendOnlyTable, *given: Any) -> None:
            if where == ("dead letters" if ".crm_accounts" in table.name and "dlq" in table.schema else "bronze"):
                raise OSError("killed")
            real_append(table, *given)

        return append

    def set_state(ledger: Ledger, *args: Any, **changes: Any) -> Any:
        raise OSError("killed")

    points = ("dead letters", "bronze", "ledger")
    here.write("0.jsonl", event(lsn=10), b"garbage")
    for number, where in enumerate(points, 1):
        with monkeypatch.context() as patch:
            if where == "ledger":
                patch.setattr(Ledger, "set_state", set_state)
            else:
                patch.setattr(AppendOnlyTable, "append", die_before(where))
            assert "run again to finish it" in str(here.ingest().error), where
        here.write(f"{number}.jsonl", event(lsn=10 + number), b"garbage")

        result = here.ingest()

        assert (result.batch_id, result.accepted, result.quarantined) == (number, 1, 1), where
        found = [(r["_batch_id"], r["_source_lsn"]) for r in here.bronze()]
        assert found == [(batch, 9 + batch) for batch in range(1, number + 1)], where
        assert len(here.dlq()) == number, where
    last = here.ingest()
    assert (last.batch_id, last.accepted, here.ingest().batch_id) == (len(points) + 1, 1, None)
    assert [r["_source_lsn"] for r in here.bronze()] == [10, 11, 12, 13] and len(here.dlq()) == 4


def test_a_lost_ledger_is_rebuilt_and_a_restored_table_gets_its_lost_batches_again(desk: Callable[..., Desk]) -> None:
    here = desk()
    table = f"{here.lake.schema_name('bronze')}.crm_accounts"
    here.write("1.jsonl", event(lsn=1), b"garbage")
    here.ingest()
    for manifest in here.ledger().folder.glob("*.json"):
        manifest.unlink()
    for number in (2, 3):
        here.write(f"{number}.jsonl", event(lsn=number))
        result = here.ingest()
        assert (result.batch_id, result.accepted) == (number, 1)
    assert [r["_source_lsn"] for r in here.bronze()] == [1, 2, 3] and len(here.dlq()) == 1
    here.spark.sql(f"restore table {table} to version as of 1").collect()

    result = here.ingest()

    assert (result.batch_id, result.files, result.accepted) == (4, 2, 2)
    assert "no longer holds batch 2, 3" in result.warnings[0]
    assert [r["_source_lsn"] for r in here.bronze()] == [1, 2, 3]
    assert here.ingest().batch_id is None


def test_a_first_load_never_replaces_what_stands_there(desk: Callable[..., Desk], tmp_path: Path) -> None:
    """Given a view under the table's name, another folder's table, a log that is gone: each is an error and is left as
    it was; a table that only the metastore lost is entered again, with its rows.
    """
    here = desk()
    bronze, place = (f"{here.lake.schema_name('bronze')}.crm_accounts",
                     here.lake.table_path("bronze", "crm_accounts"))  # fmt: skip
    here.write("a.jsonl", event())
    here.spark.sql(f"create schema if not exists {here.lake.schema_name('bronze')}")
    here.spark.sql(f"create view {bronze} as select 1 as account_id")
    assert f"{bronze}: the metastore has a view under this name" in str(here.ingest().error)
    assert not place.exists() and here.ledger().manifests == []
    here.spark.sql(f"drop view {bronze}")
    here.spark.sql(f"create table {bronze} (account_id string) using delta location '{tmp_path / 'other'}'")
    assert f"has a table in file:{tmp_path / 'other'} under this name" in str(here.ingest().error)
    here.spark.sql(f"drop table {bronze}")
    assert here.ingest().accepted == 1

    moved = place.with_name("moved")
    place.rename(moved)
    here.spark.sql(f"drop table if exists {bronze}")
    moved.rename(place)
    here.write("b.jsonl", event(lsn=11))
    assert (here.ingest().accepted, [r["_source_lsn"] for r in here.bronze()]) == (1, [10, 11])
    (place / "_delta_log").rename(place / "_gone")
    here.write("c.jsonl", event(lsn=12))
    assert "and no Delta log. Restore the table from a snapshot" in str(here.ingest().error)
    (place / "_gone").rename(place / "_delta_log")
    assert (here.ingest().accepted, len(here.bronze())) == (1, 3), "the ledger was left as it was"


def test_a_file_that_changes_stops_its_frozen_batch_and_is_reported_after_it(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a file of a batch that died, or that was taken, Then another file under its name is told and not read."""
    here = desk()
    path = here.write("a.jsonl", event())
    delivered = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(batch_module.BatchWriter, "_write", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        here.ingest()
    path.write_bytes(delivered * 2)
    assert "has changed since batch 1" in str(here.ingest().error)
    path.write_bytes(delivered)
    assert here.ingest().accepted == 1

    for other in ([event(), event(lsn=11)], [event(lsn=11)]):
        here.write("a.jsonl", *other)

        result = here.ingest()

        assert result.batch_id is None and "was replaced after it was taken" in result.warnings[0]
        assert len(here.bronze()) == 1
    here.write("a.jsonl", event())
    assert here.ingest().warnings == (), "it holds again what was taken"


def test_a_source_that_fails_does_not_stop_the_others(desk: Callable[..., Desk]) -> None:
    """Given a file where a source's folder belongs, Then that source fails by name, and the other one is taken."""
    here, other = desk(), desk("fx_rates")
    here.landing.rmdir()
    here.landing.write_bytes(b"")
    other.write("a.csv", b"rate_date,currency,units_per_eur", b"2025-03-03,USD,1.0465")

    failed, taken = ingest(here.lake, ["crm_accounts", "fx_rates"])

    assert "cannot be read" in str(failed.error) and str(here.landing) in str(failed.error)
    assert taken.accepted == 1


def test_a_newer_contract_adds_a_column_and_a_changed_type_is_refused(desk: Callable[..., Desk]) -> None:
    """Given rows under one contract, When a column is added, Then old rows have NULL; a changed type is refused."""
    here = desk()
    here.write("a.jsonl", event())
    here.ingest()
    contract = load("crm_accounts")
    added = replace(contract, version="1.1.0", columns=(*contract.columns, Column("region", "string", "Sales region.")))
    here.lake.contracts = Contracts({here.source: added})
    here.write("b.jsonl", event(account_id="A2", region="north"))
    assert (here.ingest().accepted, here.ingest().error) == (1, None)
    rows = [tuple(row) for row in here.bronze("account_id", "region", "_contract_version")]
    assert rows == [("A1", None, contract.version), ("A2", "north", "1.1.0")]

    narrowed = tuple(replace(c, type="int") if c.name == "region" else c for c in added.columns)
    here.lake.contracts = Contracts({here.source: replace(added, columns=narrowed)})
    here.write("c.jsonl", event(account_id="A3", region=5))
    failed = here.ingest()
    assert failed.error and "region (string → int)" in str(failed.error) and "new name" in str(failed.error)
    here.lake.contracts = Contracts({here.source: added})
    assert here.ingest().error is None, "the file waits until the contract is right again"


def test_a_newer_contract_widens_types_in_place(desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given rows of narrow types, When the contract widens them, Then all rows read as the wider; all types or none."""
    here = desk()
    contract = load("crm_accounts")

    def under(**types: str) -> None:
        more = tuple(Column(name, type, "A number.") for name, type in types.items())
        here.lake.contracts = Contracts({here.source: replace(contract, columns=(*contract.columns, *more))})

    under(size="int", price="decimal(6,2)", name_2="string")
    here.write("a.jsonl", event(size=5, price="1.50"))
    here.write("b.jsonl", event(account_id="A2", size=2**40))
    taken = here.ingest()
    assert (taken.accepted, taken.quarantined, taken.error) == (1, 1, None)
    under(size="bigint", price="decimal(8,2)", name_2="int")
    here.write("c.jsonl", event(account_id="A3", size=2**40, price="123456.78"))
    failed = here.ingest()
    assert failed.error and "name_2 (string → int)" in str(failed.error) and "size" not in str(failed.error)
    assert {"size": "int", "price": "decimal(6,2)"}.items() <= dict(here.types()).items(), "nothing was changed"
    under(size="bigint", price="decimal(8,2)", name_2="string")
    assert here.ingest().accepted == 1
    rows = [tuple(row) for row in here.bronze("account_id", "size", "price")]
    assert rows == [("A1", 5, Decimal("1.50")), ("A3", 2**40, Decimal("123456.78"))]
    assert dict(here.types())["size"] == "bigint"

    def die(batch: batch_module.BatchWriter) -> None:
        raise OSError("killed")

    here.write("k.jsonl", event(account_id="A5", size=2**41))
    with monkeypatch.context() as patch:
        patch.setattr(batch_module.BatchWriter, "close", die)
        assert "killed" in str(here.ingest().error)
    assert (here.ingest().error, len(here.bronze())) == (None, 3), "a killed batch is finished, once"
    under(size="int", price="decimal(8,2)", name_2="string")
    here.write("d.jsonl", event(account_id="A4"))
    assert "size (bigint → int)" in str(here.ingest().error)


def test_a_large_file_is_spread_over_spark_and_its_lines_keep_their_numbers(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = desk()
    monkeypatch.setattr(reading, "_SPREAD_ABOVE", 0)
    lines = [event(lsn=number, account_id=f"A{number}") for number in range(1, 501)]
    here.write("a.jsonl", *lines[:250], b"not an event", *lines[250:])
    result = here.ingest()
    assert (result.read, result.accepted, result.quarantined) == (501, 500, 1)
    numbers = {row["account_id"]: row["_line"] for row in here.bronze("account_id", "_file", "_line", "_batch_id")}
    assert numbers == {f"A{n}": n if n <= 250 else n + 1 for n in range(1, 501)}
    assert [row["line"] for row in here.dlq()] == [251]


def test_records_of_people_who_were_erased_are_kept_out(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given one who was erased, Then records are dropped, rejected ones too, or keyed anew. Without the key nothing
    is taken.
    """
    monkeypatch.setenv("LAKEHOUSE_SECRET_ERASURE_KEY", "a-key-of-the-tests-0123456789")
    here = desk("crm_contacts")
    key = hashing(here.lake)
    name = f"contact_id.{key.digest(Subject('contact_id', 'C-1'))}"
    keep_receipt(here.lake, name, {"key_check": key.check(), "at": "2025-01-01T00:00:00+00:00"})

    def contact(lsn: int, who: str, op: str = "c", **more: Any) -> dict[str, Any]:
        row = {"contact_id": who, "email": "e", "lifecycle_stage": "lead", **more, "account_id": ..., "name": ...}
        return event(op, lsn, {"contact_id": who}, "contacts", **row)

    lines = [contact(1, "C-1"), contact(2, "C-11"), contact(3, "C-1", "d"), contact(4, "C-1", lifecycle_stage=5)]
    here.write("a.jsonl", *lines, event("t", 5, table="contacts"))
    result = here.ingest()
    assert (result.read, result.accepted, result.quarantined, result.ignored) == (5, 2, 0, 3)
    assert result.warnings[0].startswith("batch 1: 3 records of people who were erased were dropped.")
    assert [row["contact_id"] for row in here.bronze("contact_id", "_batch_id", "_file", "_line")] == ["C-11", None]
    assert here.dlq() == [] and here.ledger().committed[0].counts["suppressed"] == 3

    orders = desk("shop_orders")
    row = {"customer_id": "C-1", "ordered_at": "2025-03-03T06:00:00Z", "status": "paid", "currency": "EUR"}
    row |= {"account_id": ..., "name": ...}
    amounts = {1: "1.00", 2: "x"}
    given = [
        event("c", n, {"order_id": n}, "orders", **row | {"order_id": n, "total_amount": each})
        for n, each in amounts.items()
    ]
    orders.write("a.jsonl", *given)
    assert (orders.ingest().accepted, orders.dlq()) == (1, [])
    (kept,) = orders.bronze("customer_id", "_batch_id", "_file", "_line")
    assert kept["customer_id"] == key.pseudonym(Subject("contact_id", "C-1"))

    monkeypatch.delenv("LAKEHOUSE_SECRET_ERASURE_KEY")
    here.lake.secrets._kept.clear()
    here.write("b.jsonl", contact(9, "C-11"))
    assert "erasure_key is not set" in str(here.ingest().error)
