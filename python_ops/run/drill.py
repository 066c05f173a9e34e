"""Tests a snapshot: restores it to a temporary home, compares it with the lake, and goes on from there.

1. restore to an empty home, in which a Spark session with an empty catalog starts;
2. compare each table's rows, and a hash over them, with the lake's table at the same version;
3. deliver the next batch, ingest it, and count it in bronze: once;
4. `dbt build`, with every test; then ingest and build again: nothing may change.

The real lake is not written: the temporary home has its own state, catalog, lineage and artifacts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.jobs.build import arguments, invoke
from python_ops.jobs.ingest import ingest
from python_ops.jobs.recovery.last import keep
from python_ops.jobs.recovery.manifest import Snapshot, StoredTable, load, store_of
from python_ops.jobs.recovery.restore import restore
from python_ops.lake import home, landing
from python_ops.lake.config import Settings
from python_ops.lake.deltalog import LOG, last_version
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import BatchState
from python_ops.lake.sql import escaped
from python_ops.lake.storage import Folder, folder_at

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Compared:
    """A table of the snapshot beside its source.

    Attributes:
        rows: Rows in the restored table.
        source: What it was compared with: `version <n>` of the source, or the snapshot's own count where the source
            no longer has that version.
    """

    table: str
    rows: int
    source: str
    is_equal: bool


@dataclass(frozen=True)
class Resumed:
    """A batch that was applied after the restore.

    Attributes:
        accepted: Rows that ingestion accepted.
        found: Rows of the batch in bronze, at the end.
    """

    source: str
    batch_id: int
    files: int
    accepted: int
    found: int


@dataclass(frozen=True)
class Drill:
    """What a drill showed.

    Attributes:
        rpo_seconds: Age of the snapshot's data when the drill began: what a loss at that moment would have cost.
        rto_seconds: From the command to a lake that is restored, caught up with the next batch and tested.
        seconds: Per step.
        moved_again: Tables that changed when nothing new was delivered; none, if the batch was applied once.
    """

    snapshot: str
    tables: tuple[Compared, ...]
    batches: tuple[Resumed, ...]
    nodes: int
    moved_again: tuple[str, ...]
    rpo_seconds: float
    rto_seconds: float
    seconds: dict[str, float] = field(default_factory=dict)
    scratch: str | None = None

    @property
    def faults(self) -> list[str]:
        """Why the drill failed; empty if it did not."""
        found = [f"{table.table} differs from {table.source}" for table in self.tables if not table.is_equal]
        found += [
            f"batch {batch.batch_id} of {batch.source}: {batch.accepted} rows accepted, {batch.found} in bronze"
            for batch in self.batches
            if batch.accepted != batch.found
        ]
        return found + [f"{table} moved although nothing was delivered" for table in self.moved_again]


def drill(
    lake: Lake,
    identifier: str | None = None,
    batch: Path | None = None,
    scratch: Path | None = None,
    keep: bool = False,
    build: bool = True,
    select: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Drill:
    """Runs the drill. The process must have no Spark session yet.

    Args:
        lake: The environment whose store holds the snapshot.
        identifier: The snapshot; the newest when None.
        batch: Folder with `<source>/<file>` to deliver after the restore; when None, what waits in the real landing
            folders.
        scratch: Home to restore to; must not exist. `<home>/drill` when None.
        keep: Leave the scratch home where it is.
        build: Also run `dbt build`.
        select: dbt's node selection for that build; everything when empty.
        say: Told of each step.

    Raises:
        ConfigError: there is no such snapshot, the scratch home exists, or the batch folder is none.
        OpsError: the snapshot is damaged, or a step failed; the scratch home is left to be looked at.
    """
    tell = say or (lambda text: None)
    snapshot = load(store_of(lake), identifier)
    place = (scratch or lake.workspace / "drill").absolute()  # the session changes the working directory
    if place.exists():
        raise ConfigError(f"{place} exists. A drill needs a place of its own: remove it, or give another by --scratch.")
    deliveries = _deliveries(lake, snapshot, batch)
    own = _own(lake, place)
    seconds: dict[str, float] = {}
    started = last = time.monotonic()
    age = snapshot.age_seconds

    def step(name: str, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        seconds[name], last = round(now - last, 1), now
        tell(f"{name:<8} {text} ({seconds[name]:.1f} s)")

    done = restore(lake, own, snapshot.id, execute=True)
    step("restore", f"{len(done.tables)} tables, {sum(t.bytes for t in done.tables)} bytes, all checksums right")
    home.register(own.settings, own.spark)
    step("spark", "session on the scratch home, tables in its catalog")
    compared = tuple(_compare(lake, own, table) for table in snapshot.tables)
    compare_seconds = time.monotonic() - last
    step("compare", f"{sum(table.is_equal for table in compared)} of {len(compared)} tables equal their source")
    batches = _resume(own, deliveries)
    step("ingest", ", ".join(f"{b.source} batch {b.batch_id}: {b.accepted} rows" for b in batches) or "nothing waits")
    nodes = _build(own, select) if build else 0
    step("build", f"{nodes} nodes green")
    rto = time.monotonic() - started - compare_seconds
    moved = _again(own, snapshot, build, select)
    step("again", f"{len(moved)} tables moved")
    batches = tuple(_count(own, batch) for batch in batches)
    result = Drill(
        snapshot.id, compared, batches, nodes, moved, round(age, 1), round(rto, 1), seconds,
        scratch=str(place) if keep else None,
    )  # fmt: skip
    if result.faults:
        raise OpsError(f"The drill of {snapshot.id} failed: {'; '.join(result.faults[:5])}. Look at {place}.")
    if not keep:
        shutil.rmtree(place, ignore_errors=True)
    return result


def _own(lake: Lake, place: Path) -> Lake:
    """The temporary home: its own state, Spark in this process (a server's catalog is the real lake's), and
    nothing that leaves the machine.
    """
    own = {
        "home": place,
        "target": "local",
        "state_store": "file",
        "lineage": "file",
        "metrics": "file",
        "recovery": "",
    }
    return Lake(Settings(**{**lake.settings.model_dump(), **own, "alerts": ("console",), "publish": ("duckdb",)}))


def _deliveries(lake: Lake, snapshot: Snapshot, batch: Path | None) -> list[tuple[str, Path]]:
    """Files to deliver after the restore, with their sources."""
    root = (batch or lake.landing).absolute()
    if batch is not None and not batch.is_dir():
        raise ConfigError(f"{batch} is not a folder. Give one that holds <source>/<file>.")
    known = {file.path for file in snapshot.landing} | _taken(snapshot, store_of(lake))
    return [
        (source, root / source / name)
        for source in lake.contracts.sources
        for name in landing.names(root / source, lake.contracts.load(source))
        if f"{source}/{name}" not in known
    ]


def _taken(snapshot: Snapshot, store: Folder) -> set[str]:
    """Files of the snapshot's batches, as `<source>/<file>`."""
    found = set()
    for file in snapshot.state:
        manifest = json.loads(store.read(file.object))
        if manifest["state"] != BatchState.LOST:
            found |= {f"{manifest['source']}/{each['name']}" for each in manifest["files"]}
    return found


def _compare(lake: Lake, own: Lake, table: StoredTable) -> Compared:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    rows, restored = _fingerprint(own.spark, str(own.table_path(table.layer, table.table)), None)
    try:
        given = _fingerprint(own.spark, str(lake.table_path(table.layer, table.table)), table.version)
        return Compared(table.name, rows, f"version {table.version}", (rows, restored) == given)
    except (PySparkException, Py4JJavaError):
        return Compared(table.name, rows, "the snapshot's count (the source lacks that version)", rows == table.rows)


def _fingerprint(spark: SparkSession, place: str, version: int | None) -> tuple[int, str]:
    """Rows, and the sum of a hash over each row: independent of files and order."""
    reader = spark.read.format("delta")
    frame = (reader if version is None else reader.option("versionAsOf", version)).load(place)
    (row,) = frame.selectExpr(
        "count(*) as n",
        "cast(coalesce(sum(cast(xxhash64(to_json(struct(*), map('ignoreNullFields', 'false'))) as decimal(38, 0))), 0)"
        " as string) as hash",
    ).collect()
    return int(row["n"]), str(row["hash"])


def _resume(own: Lake, deliveries: Sequence[tuple[str, Path]]) -> tuple[Resumed, ...]:
    for source, file in deliveries:
        (own.landing / source).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, own.landing / source / file.name)
    results = ingest(own)
    if failed := [result for result in results if result.error]:
        raise OpsError(f"The drill's ingestion failed: {failed[0].error}")
    return tuple(Resumed(r.source, r.batch_id, r.files, r.accepted, 0) for r in results if r.batch_id is not None)


def _count(own: Lake, batch: Resumed) -> Resumed:
    """Rows of the batch's files in bronze, whatever their batch number."""
    manifest = next(
        m for m in own.ledger(batch.source).manifests
        if m.batch_id == batch.batch_id and m.state is BatchState.COMMITTED
    )  # fmt: skip
    names = ", ".join(f"'{escaped(file.name)}'" for file in manifest.files)
    table = f"{own.schema_name('bronze')}.{batch.source}"
    (row,) = own.spark.sql(f"select count(*) as n from {table} where _file in ({names})").collect()
    return Resumed(batch.source, batch.batch_id, batch.files, batch.accepted, int(row["n"]))


def _build(own: Lake, select: Sequence[str], command: str = "build") -> int:
    listed = arguments([command], own, select)
    listed += ["--indirect-selection", "cautious"] if select else []  # tests of what is not restored would fail
    result = invoke(own, ["--quiet", *listed])
    if not result.success:
        failed = own.run_results().failed() if result.result is not None else []
        why = "; ".join(f"{node.unique_id}: {node.status}" for node in failed[:5]) or str(result.exception)
        raise OpsError(f"`dbt {command}` on the restored lake failed: {why}. Its log is in {own.workspace / 'logs'}.")
    return len(own.run_results().nodes)


def _again(own: Lake, snapshot: Snapshot, build: bool, select: Sequence[str]) -> tuple[str, ...]:
    """Ingests and builds once more, with nothing new; tables whose version moved."""

    def versions() -> dict[str, int | None]:
        return {t.name: last_version(folder_at(own.table_path(t.layer, t.table)).names(LOG)) for t in snapshot.tables}

    before = versions()
    ingest(own)
    if build:
        _build(own, select, "run")
    after = versions()
    return tuple(name for name in before if before[name] != after[name])


def record_drill(lake: Lake, done: Drill) -> None:
    """Keeps a drill's figures, and adds them to the metrics."""
    figures = {"rpo_seconds": done.rpo_seconds, "rto_seconds": done.rto_seconds}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    keep(lake, "drill", "drill", done.snapshot, {"snapshot": done.snapshot, "at": at}, figures)
