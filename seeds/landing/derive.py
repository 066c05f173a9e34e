"""Writes the bundled batches of marketplaces, web site and apps, made from the recording's customers and products.

`.venv/bin/python seeds/landing/derive.py [FOLDER]` writes them beside this file, or into FOLDER. The same recording
gives the same bytes (tests/ops/test_bundled_batches.py). Batch 0 is eight days, each later batch a day. A later batch
also has what comes late, and what was delivered before: pulls overlap, and Kafka delivers at least once.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
SEED = 14
BATCHES = range(5)
FIRST_DAY = datetime(2025, 2, 24, tzinfo=UTC)
DAYS_OF_BATCH_0 = 8
Row = dict[str, Any]

STEPS = ("view", "search", "product", "add_to_cart", "checkout", "purchase")
ON_TO_NEXT = (0.85, 0.85, 0.55, 0.6, 0.7)
"""Share of the visits that go on from each step to the next."""
PAGES = {"view": "/", "search": "/search", "add_to_cart": "/cart", "checkout": "/checkout", "purchase": "/thanks"}
APP_EVENTS = ("login", "login", "login", "invoice_opened", "invoice_opened", "report_exported", "trial_started")
LATER_STATES = {
    "placed": ("shipped", "shipped", "shipped", "cancelled"),
    "shipped": ("delivered", "delivered", "returned"),
}


@dataclass(frozen=True)
class Recorded:
    """The snapshot's rows that the other sources speak of."""

    contacts: Sequence[Row]
    products: Sequence[Row]


def recorded() -> Recorded:
    def rows(source: str, key: str) -> list[Row]:
        lines = gzip.decompress((HERE / source / "batch_0.jsonl.gz").read_bytes()).decode().split("\n")
        return sorted((json.loads(line)["value"]["after"] for line in lines if line), key=lambda row: row[key])

    sold = [row for row in rows("shop_products", "product_id") if row["active"] and 1 < float(row["list_price"]) < 1000]
    return Recorded(rows("crm_contacts", "contact_id"), sold)


def days(batch: int) -> list[datetime]:
    """The days whose events a batch brings; batch 0 ends on the day of the snapshot."""
    if batch == 0:
        return [FIRST_DAY + timedelta(days=day) for day in range(DAYS_OF_BATCH_0)]
    return [FIRST_DAY + timedelta(days=DAYS_OF_BATCH_0 - 1 + batch)]


def delivered(made: Sequence[list[Row]], late: int, again: int, chance: random.Random) -> Iterator[list[Row]]:
    """What arrives with each batch, of the rows that were made for it.

    Args:
        made: Rows by batch, in order of time.
        late: Rows at the end of a batch that arrive with the next.
        again: Rows of the batch before that a later batch delivers again. Its own first row is there twice.
    """
    before: list[Row] = []
    held: list[Row] = []
    for number, rows in enumerate(made):
        kept = rows if number == len(made) - 1 else rows[:-late]
        yield [*kept, *held, *chance.sample(before, again), kept[0]] if number else kept
        before, held = kept, rows[len(kept) :]


def visit(start: datetime, known: Recorded, chance: random.Random) -> list[Row]:
    """The events of one visit: some sign in on the way, and most leave before they buy."""
    user = chance.choice(known.contacts)["contact_id"] if chance.random() < 0.6 else None
    signs_in, sku, at, events = chance.choice((0, 0, 1, 2)), None, start, []
    for place, step in enumerate(STEPS):
        for _ in range(chance.randint(1, 3) if step == "product" else 1):
            if step == "product":
                sku = chance.choice(known.products)["sku"]
            stayed = chance.randint(2_000, 120_000)
            events.append({
                "user_id": user if place >= signs_in else None,
                "event_type": "view" if step == "product" else step,
                "page": f"/products/{sku}" if step == "product" else PAGES[step],
                "sku": sku if step in ("product", "add_to_cart") else None,
                "duration_ms": stayed if chance.random() < 0.9 else None,
                "occurred_at": at,
            })  # fmt: skip
            at += timedelta(milliseconds=stayed)
        if place < len(ON_TO_NEXT) and chance.random() > ON_TO_NEXT[place]:
            break
    return events


def web(known: Recorded) -> list[list[Row]]:
    chance, visits, numbers, made = random.Random(f"{SEED} web"), 0, 0, list[list[Row]]()
    for batch in BATCHES:
        rows = []
        for day in days(batch):
            for _ in range(12):
                visits += 1
                start = day + timedelta(seconds=chance.randint(6 * 3600, 22 * 3600))
                for event in visit(start, known, chance):
                    rows.append({"event_id": "", "session_id": f"V-{visits:05}", **event})
        rows.sort(key=lambda row: (row["occurred_at"], row["session_id"]))
        for row in rows:
            numbers += 1
            row["event_id"] = f"W-{numbers:06}"
        made.append(rows)
    return list(delivered(made, 6, 8, chance))


def apps(known: Recorded) -> list[list[Row]]:
    chance, numbers, made = random.Random(f"{SEED} apps"), 0, list[list[Row]]()
    users = chance.sample(known.contacts, 60)
    for batch in BATCHES:
        rows = []
        for day in days(batch):
            for _ in range(24):
                user = chance.choice(users)
                rows.append({
                    "event_id": "",
                    "event_type": chance.choice(APP_EVENTS),
                    "account_id": user["account_id"],
                    "contact_id": user["contact_id"],
                    "payload": json.dumps({"app": chance.choice(("billing", "portal")), "version": f"3.{batch}"}),
                    "occurred_at": day + timedelta(milliseconds=chance.randint(6 * 3_600_000, 22 * 3_600_000)),
                })  # fmt: skip
        rows.sort(key=lambda row: row["occurred_at"])
        for row in rows:
            numbers += 1
            row["event_id"] = f"A-{numbers:06}"
        made.append(rows)
    return list(delivered(made, 4, 5, chance))


def buyer(known: Recorded, chance: random.Random) -> str:
    """A name made of two contacts' names: who buys at a marketplace is nobody of the CRM."""
    return " ".join(chance.choice(known.contacts)[name] or "?" for name in ("first_name", "last_name"))


def marketplaces(known: Recorded) -> list[list[Row]]:
    """Orders as placed, and the states that followed: a pull brings the state that an order has then."""
    chance, made = random.Random(f"{SEED} marketplaces"), list[list[Row]]()
    orders: list[Row] = []
    for batch in BATCHES:
        rows = []
        for order in chance.sample(orders, min(12, len(orders))):
            if states := LATER_STATES.get(order["status"]):
                at = days(batch)[0] + timedelta(seconds=chance.randint(6 * 3600, 20 * 3600))
                order.update(status=chance.choice(states), updated_at=at)
                rows.append(dict(order))
        for day in days(batch):
            for _ in range(12):
                product, quantity = chance.choice(known.products), chance.choice((1, 1, 1, 2, 3))
                at = day + timedelta(seconds=chance.randint(6 * 3600, 22 * 3600))
                marketplace = chance.choice(("agora", "agora", "bazaar"))
                orders.append({
                    "order_id": f"{marketplace}-{10_001 + len(orders)}",
                    "marketplace": marketplace,
                    "buyer": buyer(known, chance),
                    "sku": product["sku"] if chance.random() < 0.97 else "SKU-GONE",
                    "quantity": quantity,
                    "currency": chance.choice(("EUR", "EUR", "GBP", "CHF", "USD")),
                    "amount": Decimal(product["list_price"]) * quantity,
                    "status": "placed",
                    "ordered_at": at,
                    "updated_at": at,
                })  # fmt: skip
                rows.append(dict(orders[-1]))
        made.append(sorted(rows, key=lambda row: (row["updated_at"], row["order_id"])))
    return list(delivered(made, 3, 4, chance))


def text(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z") if isinstance(value, datetime) else value


def as_csv(rows: list[Row]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: text(value) for name, value in row.items()} for row in rows)
    return file.getvalue().encode()


def as_jsonl(rows: list[Row]) -> bytes:
    lines = (json.dumps({name: text(value) for name, value in row.items()}, ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def as_parquet(rows: list[Row]) -> bytes:
    time = pa.timestamp("us", tz="UTC")
    types = {"quantity": pa.int32(), "amount": pa.decimal128(12, 2), "ordered_at": time, "updated_at": time}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in rows[0]])
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")
    return file.getvalue()


def write(folder: Path) -> None:
    known = recorded()
    kinds = (
        ("redshift_behavior", "csv", web, as_csv),
        ("kafka_events", "jsonl", apps, as_jsonl),
        ("snowflake_orders", "parquet", marketplaces, as_parquet),
    )
    for source, ending, make, form in kinds:
        (folder / source).mkdir(parents=True, exist_ok=True)
        for batch, rows in enumerate(make(known)):
            (folder / source / f"batch_{batch}.{ending}").write_bytes(form(rows))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else HERE)
