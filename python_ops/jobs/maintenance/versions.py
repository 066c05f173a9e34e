"""Versions of a table: its history, the difference of two, and the return to one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.jobs.maintenance import Policy, policies
from python_ops.lake.artifacts import Manifest
from python_ops.lake.delta import open_log
from python_ops.lake.deltalog import damage, read_version
from python_ops.lake.errors import ConfigError, OpsError, first_line, listed
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, job_run
from python_ops.lake.lock import check_held, leased
from python_ops.lake.spark import run
from python_ops.lake.storage import folder_at

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Commit:
    """One version. `rows` is what it inserted, updated and deleted, where the log says so."""

    version: int
    at: str
    operation: str
    rows: int | None


@dataclass(frozen=True)
class Difference:
    """The rows that differ between two versions, as counts; never their values.

    Attributes:
        changed: Rows of keys that both have, with other values; None if the key is not known: then a changed row
            counts as one added and one removed.
    """

    table: str
    before: int
    after: int
    added: int
    removed: int
    changed: int | None


@dataclass(frozen=True)
class TableRestore:
    """A return to an older version: done, or planned.

    Attributes:
        undone: Commits that are taken back, newest first.
        version: The table's version afterwards; None in a plan.
    """

    table: str
    before: int
    to: int
    undone: tuple[Commit, ...]
    version: int | None = None


def history(lake: Lake, table: str, limit: int = 20) -> list[Commit]:
    """The newest commits of a table. Starts no JVM.

    Raises:
        ConfigError: there is no such table.
    """
    return _commits(_find(lake, table).path, limit)


def diff(lake: Lake, table: str, before: int, after: int | None = None) -> Difference:
    """Counts the rows that differ between two versions. `after` None is the newest.

    Raises:
        ConfigError: there is no such table or version.
        OpsError: files of a version are no longer there.
    """
    policy = _find(lake, table)
    newest = open_log(policy.path).version()
    after = newest if after is None else after
    _check_versions(policy, newest, before, after)
    key = _key(lake, table)
    from pyspark.errors import PySparkException

    session = lake.spark
    try:
        old, new = (session.sql(f"select * from {policy.table} version as of {number}") for number in (before, after))
        columns = [name for name in old.columns if name in new.columns]
        gone, come = _minus(old, new, columns), _minus(new, old, columns)
        removed, added = gone.count(), come.count()
        changed = None
        if key and set(key) <= set(columns):
            changed = gone.select(*key).intersect(come.select(*key)).count()
    except PySparkException as exc:
        raise OpsError(
            f"Versions {before} and {after} of {policy.table} cannot be read: {first_line(exc, 200)} "
            f"Files are kept for {policy.retain_hours} hours after they were removed."
        ) from exc
    return Difference(policy.table, before, after, added - (changed or 0), removed - (changed or 0), changed)


def restore(lake: Lake, table: str, version: int, execute: bool = False) -> TableRestore:
    """Makes an older version the newest again, by a commit. So nothing is lost, and it can be undone the same way.

    Raises:
        ConfigError: there is no such table or version.
        OpsError: files of that version, deletion vectors among them, are no longer there or garbled, or dead letters
            would be lost. The table is as it was.
        BusyError: another process holds the table's lease.
    """
    policy = _find(lake, table)
    newest = open_log(policy.path).version()
    _check_versions(policy, newest, version)
    planned = TableRestore(policy.table, newest, version, tuple(_commits(policy.path, newest - version)))
    is_dlq = policy.table.startswith(f"{lake.schema_name('dlq')}.")
    if is_dlq and (appends := [c.version for c in planned.undone if c.operation == "WRITE"]):
        raise OpsError(
            f"{policy.table}: version {version} lacks the dead letters of version {', '.join(map(str, appends))}, and "
            f"nothing would take these records again. Go back to version {max(appends)} at the furthest; to take "
            "batches again, restore the bronze table."
        )
    folder = folder_at(policy.path)
    if lacking := damage(folder, read_version(folder, version)):
        raise OpsError(
            f"{policy.table}: version {version} cannot be read any more: {listed(lacking, 1)}. The table is as it was. "
            f"Files are kept for {policy.retain_hours} hours after they were removed; choose a later version "
            f"(`lakeops table history {policy.table}`), or restore from a snapshot: docs/runbooks/dr_restore.md."
        )
    if not execute:
        return planned
    if newest == version:
        return replace(planned, version=newest)
    output = Dataset(policy.table, policy.path.as_uri())
    with (
        leased(lake, [policy.table], f"lakeops table restore {policy.table}"),
        job_run(lake, f"restore.{policy.table}", outputs=[output]),
    ):
        session = lake.spark
        check_held(policy.table)
        failed = f"{policy.table} was not restored to version {version}"
        then = "It is as it was. An older state may be in a snapshot: docs/runbooks/dr_restore.md."
        run(session, f"restore table {policy.table} to version as of {version}", failed, then)
    return replace(planned, version=open_log(policy.path).version())


def unreadable(lake: Lake, manifest: Manifest, content: bool = False) -> dict[str, str]:
    """Tables whose newest version has lost a file, and what is wrong with the first of them; starts no JVM.

    Args:
        content: Look into the files too.
    """
    found = {}
    for policy in policies(lake, manifest):
        folder = folder_at(policy.path)
        try:
            lacking = damage(folder, read_version(folder), content)
        except OpsError as exc:
            lacking = [str(exc)]
        if lacking:
            found[policy.table] = listed(lacking, 1)
    return found


def _find(lake: Lake, table: str) -> Policy:
    (policy,) = policies(lake, lake.manifest(), [table])
    return policy


def _key(lake: Lake, table: str) -> tuple[str, ...]:
    """Columns that tell rows apart. (A CDC model's storage table has a row for each event of a key.)"""
    for model in lake.manifest().models.values():
        if model.storage and model.stored_table == table:
            sequence = (model.config.get("sequence_by") or ()) if model.is_cdc else ()
            return (*model.unique_key, *((sequence,) if isinstance(sequence, str) else sequence))
    return ()


def _check_versions(policy: Policy, newest: int, *versions: int) -> None:
    if wrong := [version for version in versions if not 0 <= version <= newest]:
        raise ConfigError(
            f"{policy.table} has versions 0 to {newest}, not {wrong[0]}. "
            f"`lakeops table history {policy.table}` shows them."
        )


def _minus(left: DataFrame, right: DataFrame, columns: list[str]) -> DataFrame:
    return left.select(*columns).exceptAll(right.select(*columns))


def _commits(path: Path, limit: int) -> list[Commit]:
    if limit < 1:
        return []
    return [
        Commit(
            int(commit["version"]),
            datetime.fromtimestamp(int(commit["timestamp"]) / 1000, UTC).isoformat(timespec="seconds"),
            str(commit.get("operation", "")),
            _rows(commit.get("operationMetrics") or {}),
        )
        for commit in open_log(path).history(limit)
    ]


def _rows(metrics: dict[str, Any]) -> int | None:
    names = ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted")
    applied = [int(metrics[name]) for name in names if name in metrics]
    if applied:
        return sum(applied)
    return int(metrics["numOutputRows"]) if "numOutputRows" in metrics else None
