"""The project's feature models on DuckDB: at any time they give what follows from the events known, and so, by then."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import duckdb
import jinja2
import pytest
from cdc_duck import transpile

from python_ops.lake.config import PROJECT_ROOT

GOLD = PROJECT_ROOT / "dbt_project" / "models" / "gold"
ORIGIN = dt.datetime(2025, 1, 1)
LATER = dt.datetime(2030, 1, 1)
METADATA = (
    "_source_generation bigint, _source_lsn bigint, _source_position bigint, _source_ts timestamp, "
    "_arrived_at timestamp, _cdc_deleted boolean, _cdc_truncate boolean"
)
TABLES = {
    "slv_contacts_history": "contact_id string, lifecycle_stage string, marketing_opt_in boolean",
    "slv_products_history": "product_id int, category string, list_price decimal(12,2), active boolean",
    "slv_shop_orders": "order_id int, customer_id string, ordered_at timestamp",
}
Event = tuple[Any, ...]


def at(hour: float) -> dt.datetime:
    return ORIGIN + dt.timedelta(hours=hour)


def changes(seed: int, keys: list[Any], values: Any, count: int = 40) -> list[Event]:
    """Stored events: several of one moment, some late, some deletes, a truncate in the middle."""
    rng, hour, found = random.Random(seed), 0, []
    for lsn in range(count):
        hour += rng.choice([0, 1, 3])
        arrived = at(hour + rng.choice([0.5, 0.5, 1, 20]))
        is_truncate, is_deleted = lsn == count // 2, rng.random() < 0.15
        cells = values(rng)
        key = None if is_truncate else rng.choice(keys)
        found.append((key, *cells, 1, lsn, 0, at(hour), arrived, is_deleted, is_truncate))
    return found


CONTACTS = changes(1, ["c1", "c2", "c3"], lambda rng: (rng.choice("xyz"), rng.choice([True, False, None])))
PRODUCTS = changes(2, [1, 2, 3], lambda rng: (rng.choice("pq"), rng.randrange(9), rng.choice([True, False])))
ORDERS = [
    # An order is stored with each of its changes; the first that arrived says when it was known.
    (order, f"c{order % 4}", at(2 * order), 1, 2 * order + change, 0, at(2 * order), at(2 * order + lag), False, False)
    for order, lags in enumerate([(1, 5), (30, 2), (1,), (0.5, 9), (25, 26), (1,), (3, 1), (40,)])
    for change, lag in enumerate(lags)
]  # fmt: skip


@pytest.fixture(scope="module")
def lake() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'; create schema lab")
    events = {"slv_contacts_history": CONTACTS, "slv_products_history": PRODUCTS, "slv_shop_orders": ORDERS}
    for name, columns in TABLES.items():
        connection.execute(transpile(f"create table lab.{name}__cdc ({columns}, {METADATA})"))
        marks = ", ".join("?" * len(events[name][0]))
        connection.executemany(f"insert into lab.{name}__cdc values ({marks})", events[name])
    return connection


class Package:
    """What the models call of packages/delta_cdc; the keys that changed are those of the first run's."""

    cdc_storage = staticmethod(lambda relation: f"lab.{relation}__cdc")
    touched_keys = staticmethod(lambda query: f"({query})")

    @staticmethod
    def changed_keys(upstream: str) -> str:
        key, value = {
            "slv_contacts_history": ("contact_id", "'c1'"), "slv_products_history": ("product_id", "1"),
            "slv_shop_orders": ("order_id", "2"),
        }[upstream]  # fmt: skip
        return f"select {value} as {key}"


def rows(lake: duckdb.DuckDBPyConnection, name: str, incremental: bool = False) -> list[dict[str, Any]]:
    (path,) = GOLD.rglob(f"{name}.sql")
    query = jinja2.Template(path.read_text(encoding="utf-8")).render(
        config=lambda **_: "", ref=lambda model: model, is_incremental=lambda: incremental, delta_cdc=Package
    )
    # Spark's max_by gives a NULL of the last row; DuckDB's arg_max would pass it over.
    answer = lake.execute(transpile(query).replace("ARG_MAX(", "arg_max_null("))
    names = [column[0] for column in answer.description]
    found = [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
    keys = [(row[names[0]], row["valid_at"], row["known_at"]) for row in found]
    assert len(keys) == len(set(keys)), "the grain"
    return found


def as_of(found: list[dict[str, Any]], moment: dt.datetime, known: dt.datetime) -> dict[str, Any]:
    """The rule of `lakeops features asof`."""
    there = [row for row in found if row["valid_at"] <= moment and row["known_at"] <= known]
    last = max(there, key=lambda row: (row["valid_at"], row["known_at"]), default={})
    return {name: value for name, value in last.items() if name not in ("valid_at", "known_at")}


def state(events: list[Event], key: Any, moment: dt.datetime, known: dt.datetime) -> tuple[Any, ...] | None:
    """Values after the last change of a key by a moment, of what was known by another; None where there was none."""
    there = [e for e in events if e[0] in (key, None) and e[-4] <= moment and e[-3] <= known]
    if not any(e[0] == key for e in there):
        return None
    last = max(there, key=lambda e: e[-6])
    return (None,) * (len(last) - 8) if last[-2] or last[-1] else last[1:-7]


MOMENTS = [at(hour / 2) for hour in range(0, 140)]


@pytest.mark.parametrize("is_known", [True, False], ids=["as known", "valid time"])
def test_a_product_is_what_its_changes_by_then_say(lake: duckdb.DuckDBPyConnection, is_known: bool) -> None:
    found = rows(lake, "feat_product")
    for key in (1, 2, 3):
        mine = [row for row in found if row["product_id"] == key]
        for moment in MOMENTS:
            known = moment if is_known else LATER
            told = tuple(as_of(mine, moment, known).values())[1:] or None
            assert told == state(PRODUCTS, key, moment, known), (key, moment)


@pytest.mark.parametrize("is_known", [True, False], ids=["as known", "valid time"])
def test_a_customer_is_what_contacts_and_orders_by_then_say(lake: duckdb.DuckDBPyConnection, is_known: bool) -> None:
    """Given late contacts and orders, Then they count from their arrival, for every moment after theirs."""
    found = rows(lake, "feat_customer")
    for key in ("c0", "c1", "c2", "c3"):
        mine = [row for row in found if row["customer_id"] == key]
        for moment in MOMENTS:
            known = moment if is_known else LATER
            first_known = {e[0]: min(o[-3] for o in ORDERS if o[0] == e[0]) for e in ORDERS}
            placed = [
                e[2] for e in {o[0]: o for o in ORDERS}.values()
                if e[1] == key and e[2] <= moment and first_known[e[0]] <= known
            ]  # fmt: skip
            contact = state(CONTACTS, key, moment, known)
            if contact is None and not placed:
                assert as_of(mine, moment, known) == {}
                continue
            assert as_of(mine, moment, known) == {
                "customer_id": key,
                "lifecycle_stage": contact[0] if contact else None,
                "is_marketing_opted_in": contact[1] if contact else None,
                "order_count": len(placed),
                "first_ordered_at": min(placed, default=None),
                "last_ordered_at": max(placed, default=None),
            }, (key, moment)


@pytest.mark.parametrize(("name", "touched"), [("feat_product", {1}), ("feat_customer", {"c1", "c2"})])
def test_a_run_gives_the_touched_keys_rows_of_a_full_one(
    lake: duckdb.DuckDBPyConnection, name: str, touched: set[Any]
) -> None:
    """A contact and an order changed: the customers are the contact and whom the order names."""
    key = lambda row: str(list(row.values()))  # noqa: E731
    whole = [row for row in rows(lake, name) if next(iter(row.values())) in touched]
    assert whole and sorted(rows(lake, name, incremental=True), key=key) == sorted(whole, key=key)
