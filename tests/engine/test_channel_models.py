"""Orders of all channels, visits and app usage on DuckDB: merged run by run, each is what it is when built at once."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import jinja2
import pytest
from cdc_duck import transpile

from python_ops.lake.config import PROJECT_ROOT

MODELS = PROJECT_ROOT / "dbt_project" / "models"
SILVER = {
    "slv_shop_orders": "order_id bigint, customer_id string, status string, currency string, "
    "total_amount decimal(12,2), ordered_at timestamp",
    "slv_snowflake_orders": "order_id string, marketplace string, status string, currency string, "
    "amount decimal(12,2), ordered_at timestamp",
    "slv_fx_rates": "rate_date date, currency string, units_per_eur decimal(18,8)",
    "slv_redshift_behavior": "event_id string, session_id string, user_id string, event_type string, page string, "
    "sku string, duration_ms bigint, occurred_at timestamp",
    "slv_kafka_events": "event_id string, event_type string, account_id string, contact_id string, "
    "occurred_at timestamp",
}
KEYS = {"slv_fx_rates": ("rate_date", "currency"), "slv_shop_orders": ("order_id",),
        "slv_snowflake_orders": ("order_id",)}  # fmt: skip
MERGED = [
    ("fct_orders_all_channels", "order_key", ("slv_shop_orders", "slv_snowflake_orders", "slv_fx_rates")),
    ("fct_sessions", "session_id", ("slv_redshift_behavior",)),
    ("rpt_app_usage", "account_id", ("slv_kafka_events",)),
]
"""Model, column of `replace_by`, and the silver tables that change."""
FX_RATES_DAILY = """
create view slv_fx_rates_daily as
with days as (
    select unnest(generate_series(date '2025-01-01', date '2025-03-01', interval 1 day))::date as rate_date
),
last as (select currency, max(rate_date) + 7 as day from slv_fx_rates group by currency),
others as (
    select days.rate_date, rates.currency, arg_max(rates.units_per_eur, rates.rate_date) as units_per_eur
    from days
    join slv_fx_rates as rates on rates.rate_date <= days.rate_date
    join last on last.currency = rates.currency and days.rate_date <= last.day
    group by days.rate_date, rates.currency
)
from others
union all
select distinct rate_date, 'EUR', 1 from others
"""


def rendered(name: str, incremental: bool = False) -> tuple[str, str]:
    """A model's query, and the query of its touched keys."""
    touched: list[str] = []

    class Package:
        changed_keys = staticmethod(lambda upstream: f"select * from {upstream}__changed")
        touched_keys = staticmethod(lambda query: touched.append(query) or f"({query})")

    (path,) = MODELS.rglob(f"{name}.sql")
    query = jinja2.Template(path.read_text(encoding="utf-8")).render(
        config=lambda **_: "", ref=lambda model: model, is_incremental=lambda: incremental, delta_cdc=Package
    )
    return transpile(query), transpile("".join(touched)) if touched else ""


@pytest.fixture
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for model, columns in SILVER.items():
            connection.execute(transpile(f"create table {model} ({columns})"))
            keys = ", ".join(KEYS.get(model, ("event_id",)))
            connection.execute(f"create table {model}__changed as select {keys} from {model}")
        connection.execute(FX_RATES_DAILY)
        yield connection


def moment(rng: random.Random) -> dt.datetime:
    return dt.datetime(2025, 1, 1) + dt.timedelta(hours=rng.randrange(24 * 40))


STATUS, CURRENCY = ("placed", "shipped", "cancelled"), ("EUR", "USD", "GBP")
CHANGES: dict[str, Callable[[random.Random], tuple[Any, ...]]] = {
    "slv_shop_orders": lambda rng: (
        rng.randrange(30), rng.choice("abc"), rng.choice(STATUS), rng.choice(CURRENCY), rng.randrange(99), moment(rng),
    ),
    "slv_snowflake_orders": lambda rng: (
        f"agora-{rng.randrange(30)}", "agora", rng.choice(STATUS), rng.choice(CURRENCY), rng.randrange(99), moment(rng),
    ),
    "slv_fx_rates": lambda rng: (moment(rng).date(), rng.choice(CURRENCY[1:]), rng.randrange(1, 9)),
    "slv_redshift_behavior": lambda rng: (
        str(number := rng.randrange(60)), f"s{number % 9}", rng.choice(("a", "b", None)),
        rng.choice(("view", "add_to_cart", "checkout", "purchase")), rng.choice("xy"), rng.choice(("k", None)),
        rng.choice((5, None)), moment(rng),
    ),
    "slv_kafka_events": lambda rng: (
        str(number := rng.randrange(60)), rng.choice(("login", "invoice_opened")), (None, "a", "b", "c")[number % 4],
        rng.choice(("x", "y", None)), moment(rng),
    ),
}  # fmt: skip


def change(lake: duckdb.DuckDBPyConnection, rng: random.Random, models: tuple[str, ...]) -> None:
    """Some rows of these silver tables are new or others; a shop order may vanish."""
    for model in models:
        keys = KEYS.get(model, ("event_id",))
        same_key = " and ".join(f"{key} = ?" for key in keys)
        lake.execute(f"delete from {model}__changed")
        for _ in range(rng.choice((0, 0, 1, 3))):
            row = CHANGES[model](rng)
            lake.execute(f"delete from {model} where {same_key}", row[: len(keys)])
            lake.execute(f"insert into {model}__changed values ({', '.join('?' * len(keys))})", row[: len(keys)])
            if model != "slv_shop_orders" or rng.random() < 0.8:
                lake.execute(f"insert into {model} values ({', '.join('?' * len(row))})", row)


@pytest.mark.parametrize(("name", "replaced_by", "reads"), MERGED, ids=[name for name, *_ in MERGED])
def test_merged_run_by_run_it_is_what_it_is_when_built_at_once(
    lake: duckdb.DuckDBPyConnection, name: str, replaced_by: str, reads: tuple[str, ...]
) -> None:
    rng = random.Random(2)
    whole, (part, touched) = rendered(name)[0], rendered(name, incremental=True)
    for _ in range(30):
        change(lake, rng, reads[:1])
    lake.execute(f"create table gold as {whole}")
    sizes = set()
    for run in range(40):
        change(lake, rng, reads)
        lake.execute(f"create or replace temp table touched as {touched}")
        lake.execute(f"create or replace temp table given as {part}")
        lake.execute(f"delete from gold where {replaced_by} in (select {replaced_by} from touched)")
        lake.execute("insert into gold select * from given")
        for more, less in ((whole, "from gold"), ("from gold", whole)):
            assert lake.execute(f"({more}) except all ({less})").fetchall() == [], (run, more == whole)
        ((size, all_),) = lake.execute("select (select count(*) from given), (select count(*) from gold)").fetchall()
        sizes.add(size < all_)
    assert True in sizes, "a run is about what changed"


def test_a_visit_is_its_events(lake: duckdb.DuckDBPyConnection) -> None:
    """Signed in on the way; a cart without a product's page; a visit on either side of midnight."""
    at = dt.datetime(2025, 1, 1, 23, 59)
    events = [
        ("1", "s1", None, "view", "/", None, 5, at),
        ("2", "s1", "c1", "view", "/p", "k", None, at + dt.timedelta(minutes=2)),
        ("3", "s1", None, "view", "/q", "k", 7, at + dt.timedelta(minutes=3)),
        ("4", "s2", None, "search", "/s", None, None, at),
        ("5", "s2", None, "add_to_cart", "/cart", "k", None, at),
        ("6", "s3", "c2", "purchase", "/thanks", None, None, at + dt.timedelta(minutes=2)),
    ]
    lake.executemany("insert into slv_redshift_behavior values (?, ?, ?, ?, ?, ?, ?, ?)", events)
    lake.execute(f"create view fct_sessions as {rendered('fct_sessions')[0]}")
    told = lake.execute(
        "select session_id, customer_id, landing_page, event_count, product_view_count, furthest_step, duration_ms,"
        " has_purchased, session_date from fct_sessions order by 1"
    ).fetchall()
    day = at.date()
    assert told == [
        ("s1", "c1", "/", 3, 2, 1, 12, False, day),
        ("s2", None, "/s", 2, 0, 2, 0, False, day),
        ("s3", "c2", "/thanks", 1, 0, 4, 0, True, day + dt.timedelta(days=1)),
    ]
    assert lake.execute(f"({rendered('rpt_web_funnel')[0]}) order by 1").fetchall() == [
        (day, 2, 1, 2, 1, 0, 0), (day + dt.timedelta(days=1), 1, 1, 1, 1, 1, 1),
    ]  # fmt: skip
