"""What the lake costs a month, from its own figures and a price file. Starts no JVM and changes nothing.

A home in a folder is counted as if it lay in S3: that is what it would cost there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import NamedTuple

from python_ops.jobs.recovery.manifest import store_of
from python_ops.lake.buckets import Entry
from python_ops.lake.deltalog import read_version
from python_ops.lake.errors import OpsError
from python_ops.lake.files import files_under
from python_ops.lake.home import LAYERS
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import history
from python_ops.lake.run_record import last_run
from python_ops.lake.storage import folder_at
from python_ops.watch.cost.prices import Prices

_GB = 1e9
_HOUR = 3600.0

NOT_COUNTED = (
    "queries: Athena's scans, and what readers make the warehouses do",
    "storage inside the warehouses",
    "older versions that a bucket with versioning keeps, and multipart uploads that were never ended",
    "data transfer, NAT gateways and VPC endpoints",
    "the services around it: Glue, DynamoDB, Secrets Manager, CloudWatch, Airflow, Kafka, a Spark Connect server",
    "discounts, free tiers and taxes",
)


@dataclass(frozen=True)
class Line:
    """One part of the cost.

    Attributes:
        group: `storage`, `requests`, `compute` or `warehouse loads`.
        quantity: A month's, in `unit`.
        price: Of one unit.
        basis: Where the quantity comes from.
    """

    group: str
    part: str
    quantity: float
    unit: str
    price: float
    basis: str

    @property
    def amount(self) -> float:
        """Of a month."""
        return self.quantity * self.price


@dataclass(frozen=True)
class Estimate:
    """What a month costs. `not_counted` says what is missing in it, and why."""

    currency: str
    region: str
    lines: tuple[Line, ...]
    not_counted: tuple[str, ...]

    @property
    def total(self) -> float:
        """Of all lines."""
        return sum(line.amount for line in self.lines)


class _Table(NamedTuple):
    layer: str
    live_files: int
    live_bytes: int
    old_bytes: int
    log_files: int
    log_bytes: int


def estimate(lake: Lake, prices: Prices) -> Estimate:
    """Estimates a month: storage as it is now, and `runs_per_month` runs like those that were recorded.

    Raises:
        OpsError: the home cannot be listed.
    """
    files = {
        name: file for name, file in files_under(lake.home).items() if not file.name.startswith(".")
    }  # Hadoop's own
    unread: list[str] = []
    tables = list(_tables(lake, files, unread))
    lines = [*_storage(lake, prices, files, tables), *_requests(lake, prices, files, tables)]
    seconds = _seconds(lake)
    lines += _compute(prices, seconds)
    lines += _loads(lake, prices, seconds.get("publish"))
    missing = [f"the table {name}, whose log cannot be read: its files count as old versions" for name in unread]
    if not seconds:
        missing.append("compute and warehouse loads: no run was recorded yet")
    missing += [
        f"loads of {name}: the price file has no warehouse {name}"
        for name in lake.settings.publish
        if name not in (*prices.warehouses, "duckdb")
    ]
    return Estimate(prices.currency, prices.region, tuple(lines), (*missing, *NOT_COUNTED))


def _tables(lake: Lake, files: Mapping[str, Entry], unread: list[str]) -> Iterator[_Table]:
    """The Delta tables under the home; those of other schema prefixes are of the layer `other prefixes`."""
    layers = {f"{lake.schema_name(layer)}.db": layer for layer in LAYERS}
    found: dict[tuple[str, str], dict[str, int]] = {}
    for name, file in files.items():
        parts = name.split("/", 3)
        if len(parts) == 4 and parts[0] == "warehouse":
            found.setdefault((parts[1], parts[2]), {})[parts[3]] = file.bytes or 0
    for (schema, table), sizes in sorted(found.items()):
        log = {name: size for name, size in sizes.items() if name.startswith("_delta_log/")}
        live: set[str] = set()
        try:
            if log:
                live = sizes.keys() & read_version(folder_at(lake.home / "warehouse" / schema / table)).files.keys()
        except OpsError:
            unread.append(f"{schema.removesuffix('.db')}.{table}")
        held, logged = sum(sizes[name] for name in live), sum(log.values())
        yield _Table(
            layers.get(schema, "other prefixes"), len(live), held, sum(sizes.values()) - held - logged, len(log), logged
        )


def _storage(lake: Lake, prices: Prices, files: Mapping[str, Entry], tables: list[_Table]) -> Iterator[Line]:
    def line(part: str, held: float, basis: str, price: float = prices.storage.gb_month) -> Line:
        return Line("storage", part, held / _GB, "GB-month", price, basis)

    for layer in (*LAYERS, "other prefixes"):
        if of := [table for table in tables if table.layer == layer]:
            yield line(f"{layer}, live", sum(t.live_bytes for t in of), f"{len(of)} tables' newest versions")
    yield line("older versions", sum(t.old_bytes for t in tables), "files that only earlier versions need")
    yield line("Delta logs", sum(t.log_bytes for t in tables), "commits, checkpoints, checksums")
    top: dict[str, int] = {}
    for name, file in files.items():
        folder = name.split("/", 1)[0]
        top[folder] = top.get(folder, 0) + (file.bytes or 0)
    in_home = top.pop("snapshots", 0)
    top.pop("warehouse", None)
    yield line("landing", top.pop("landing", 0), "delivered files")
    yield line("published file", top.pop("published", 0), "DuckDB's file")
    elsewhere = sum(store_of(lake).names().values()) if lake.settings.recovery else in_home
    basis = "copies for disaster recovery"
    yield line("snapshots", elsewhere, basis, prices.storage.snapshots_gb_month)
    yield line("records", sum(top.values()), "state, artifacts, logs")


def _requests(lake: Lake, prices: Prices, files: Mapping[str, Entry], tables: list[_Table]) -> Iterator[Line]:
    record = last_run(lake) or {}
    record = record.get("last_done") or record
    runs = prices.runs_per_month
    if record:
        since = datetime.fromisoformat(record["started_at"]).timestamp()
        written = sum(file.modified >= since for file in files.values()) + len(tables)
        yield Line("requests", "writes and lists", runs * written / 1000, "1000 requests",
                   prices.requests.writes_per_1000,
                   f"{written} a run: objects written since the last one began, a list per table")  # fmt: skip
    read_once = sum(table.live_files + table.log_files for table in tables)
    yield Line("requests", "reads", runs * read_once / 1000, "1000 requests", prices.requests.reads_per_1000,
               f"{read_once} a run, if it reads every live file and log entry once")  # fmt: skip


def _seconds(lake: Lake) -> dict[str, float]:
    """Seconds of a run and of its step `publish`, medians of those recorded; empty where none was."""
    recorded = history(lake.figures(), "run_seconds", "job")
    whole = recorded.get("run") or recorded.get("demo")
    if not whole:
        return {}
    return {"run": median(whole), **({"publish": median(recorded["publish"])} if "publish" in recorded else {})}


def _compute(prices: Prices, seconds: Mapping[str, float]) -> Iterator[Line]:
    if "run" in seconds:
        hours = prices.runs_per_month * seconds["run"] / _HOUR
        size = f"{prices.compute.vcpus:g} vCPU, {prices.compute.memory_gb:g} GB"
        yield Line("compute", "runs", hours, "hours", prices.compute.hour,
                   f"{seconds['run']:.0f} s a run (median of those recorded), {size}")  # fmt: skip


def _loads(lake: Lake, prices: Prices, seconds: float | None) -> Iterator[Line]:
    for name in lake.settings.publish:
        if seconds is not None and (price := prices.warehouses.get(name)):
            billed = max(seconds, price.minimum_seconds)
            yield Line("warehouse loads", name, prices.runs_per_month * billed / _HOUR, "hours", price.hour,
                       f"{billed:.0f} s a run: the step publish, {price.minimum_seconds:g} s at least")  # fmt: skip
