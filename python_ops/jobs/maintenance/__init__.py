"""OPTIMIZE, REORG, VACUUM and checkpoints, when the state of a table needs them, not by the calendar.

Policy is dbt `meta` of the model or source table:

- `optimize_after_files`: how many small files, beyond one per partition, make OPTIMIZE worth it;
- `zorder_by`: columns that OPTIMIZE sorts by; tables with clustering columns are clustered by them instead;
- `retain_hours`: how long a removed file stays for readers of older versions and time travel;
- `reader_lag_hours`: the longest that a reader, an export or a copy for disaster recovery may stay on one version.

A table with a tag (`lakeops table tag`) keeps every file, whatever its policy, until the tag is let go. A table that
people were erased from (`lakeops erase`) loses its old files and its old log as soon as the retention is over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.jobs.maintenance.state import SMALL_BYTES, TableState, read_state
from python_ops.lake.artifacts import Manifest
from python_ops.lake.delta import TableLog, open_log
from python_ops.lake.deltalog import read_version
from python_ops.lake.erasure import erased_at
from python_ops.lake.errors import BusyError, ConfigError, OpsError, first_line
from python_ops.lake.files import files_under
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, job_run
from python_ops.lake.lock import check_held, leased
from python_ops.lake.spark import run as run_sql
from python_ops.lake.storage import folder_at
from python_ops.lake.tags import tags

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LEAST_RETAIN_HOURS = 24
"""Shorter retention is refused: a query, an export or a copy of the files may hold a version for a day. A table with
slower readers says so by `reader_lag_hours`."""

_PURGE_SHARE = 0.2  # of rows behind deletion vectors: a scan reads a fifth for nothing
_UNCLUSTERED_SHARE = 0.5  # of bytes since the last OPTIMIZE
_UNCLUSTERED_BYTES = 8 * SMALL_BYTES  # below it, order saves nothing
_VACUUM_SHARE = 0.1  # of removable bytes
_VACUUM_FILES = 20
_CHECKPOINT_COMMITS = 30
_TRIES = 3

_RETENTION, _LOG_RETENTION = "delta.deletedFileRetentionDuration", "delta.logRetentionDuration"
_ENTRY = re.compile(r"[0-9]{20}\.(json|crc|checkpoint.*)")
_KEPT_HOURS = 24 * 365 * 100
_KEPT = dict.fromkeys((_RETENTION, _LOG_RETENTION), f"interval {_KEPT_HOURS} hours")  # while a table has a tag


class Act(StrEnum):
    """What maintenance does to a table, in this order."""

    PROTECT = "protect"
    PURGE = "purge"
    OPTIMIZE = "optimize"
    CHECKPOINT = "checkpoint"
    VACUUM_LITE = "vacuum lite"
    VACUUM_FULL = "vacuum full"


@dataclass(frozen=True)
class Policy:
    """A table and its policy; see the module's docstring.

    Attributes:
        tags: Names of those that pin a version of it.
        erased: When people were last erased from it.
    """

    table: str
    path: Path
    optimize_after_files: int
    retain_hours: int
    zorder_by: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    erased: datetime | None = None

    @property
    def kept_hours(self) -> int:
        """How long a removed file stays."""
        return _KEPT_HOURS if self.tags else self.retain_hours


@dataclass(frozen=True)
class Step:
    """One act, and the figures that call for it."""

    act: Act
    reason: str


@dataclass(frozen=True)
class TablePlan:
    """What is to be done with a table, or was.

    Attributes:
        before: State before; the plan was made from it.
        after: State afterwards; None in a plan.
        error: Why the table is not done; the others go on.
        seconds: How long it took; 0 in a plan.
    """

    table: str
    actions: tuple[Step, ...]
    before: TableState
    after: TableState | None = None
    error: OpsError | None = None
    seconds: float = 0.0


def policies(lake: Lake, manifest: Manifest, tables: Sequence[str] = ()) -> list[Policy]:
    """Every Delta table of the environment with its policy, by name.

    Args:
        tables: Only these, as `schema.table`; all when empty.

    Raises:
        ConfigError: a table is unknown, or a policy is not allowed.
    """
    found = [_policy(lake, *given) for given in lake.delta_tables(manifest)]
    known_tags, erased = tags(lake), erased_at(lake)
    found = [
        replace(
            policy,
            tags=tuple(tag.name for tag in known_tags if policy.table in tag.tables),
            erased=erased.get(policy.table),
        )
        for policy in sorted(found, key=lambda policy: policy.table)
        if lake.log(policy.path).exists
    ]
    known = {policy.table for policy in found}
    if unknown := sorted(set(tables) - known):
        raise ConfigError(f"No such table: {', '.join(unknown)}. Tables: {', '.join(sorted(known)) or 'none yet'}.")
    return [policy for policy in found if not tables or policy.table in tables]


def plan(lake: Lake, tables: Sequence[str] = ()) -> list[TablePlan]:
    """What `run` would do, with the reasons. Starts no JVM.

    Raises:
        ConfigError: a table is unknown, or a policy is not allowed.
        OpsError: there is no manifest, or a table cannot be read.
    """
    return [_decide(policy, lake.log(policy.path)) for policy in policies(lake, lake.manifest(), tables)]


def run(
    lake: Lake,
    tables: Sequence[str] = (),
    on_event: Callable[[TablePlan], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> list[TablePlan]:
    """Does what `plan` says, table by table.

    Args:
        tables: Only these, as `schema.table`; all when empty.
        on_event: Told of each table when it is done.
        on_start: Told of each table with something to do, before it is done.

    Returns:
        The plan with each table's state afterwards. A table that failed has `error`; the others are done.

    Raises:
        ConfigError: a table is unknown, or a policy is not allowed.
        OpsError: there is no manifest, or a table cannot be read.
    """
    done = []
    for policy in policies(lake, lake.manifest(), tables):
        planned = _decide(policy, lake.log(policy.path))
        if planned.actions:
            began = time.monotonic()
            if on_start:
                on_start(policy.table)
            outputs = [Dataset(policy.table, policy.path.as_uri())]
            with job_run(lake, f"maintain.{policy.table}", outputs=outputs) as job:
                try:
                    with leased(lake, [policy.table], f"maintain {policy.table}"):
                        planned = maintain_table(lake.spark, policy)
                except BusyError as exc:
                    planned = replace(planned, error=exc)
                planned = replace(planned, seconds=round(time.monotonic() - began, 1))
                if planned.after:
                    job.outputs = [replace(outputs[0], rows=0, bytes=planned.after.bytes)]
        done.append(planned)
        if on_event:
            on_event(done[-1])
    return done


def maintain_table(spark: SparkSession, policy: Policy) -> TablePlan:
    """Does what one table needs. `error` says what failed; the table's rows are as they were."""
    planned = _decide(policy, TableLog(policy.path))
    try:
        for action in planned.actions:
            check_held(policy.table)
            _act(spark, policy, action.act)
    except BusyError:
        raise
    except OpsError as exc:
        planned = replace(planned, error=exc)
    return replace(planned, after=read_state(TableLog(policy.path), policy.kept_hours))


def protect(spark: SparkSession, policy: Policy) -> None:
    """Makes a table keep its files and its log, also for whoever vacuums it by hand.

    Raises:
        OpsError: the properties cannot be set.
    """
    _set_properties(spark, policy, _KEPT)


def release(spark: SparkSession, policy: Policy) -> None:
    """Makes a table keep what its policy says: Delta 4 ignores VACUUM's RETAIN argument and reads the property.

    Raises:
        OpsError: the properties cannot be set.
    """
    wanted = {_RETENTION: f"interval {policy.retain_hours} hours"}
    if _properties(policy).get(_LOG_RETENTION) == _KEPT[_LOG_RETENTION]:
        wanted[_LOG_RETENTION] = "interval 30 days"  # Delta's default
    _set_properties(spark, policy, wanted)


def _properties(policy: Policy) -> Mapping[str, str]:
    return open_log(policy.path).metadata().configuration


def _set_properties(spark: SparkSession, policy: Policy, wanted: Mapping[str, str]) -> None:
    """Sets those that are other, in one commit."""
    if not (changed := wanted.items() - _properties(policy).items()):
        return
    check_held(policy.table)
    listed = ", ".join(f"'{name}' = '{value}'" for name, value in sorted(changed))
    failed, then = f"The retention of {policy.table} was not set", "Its rows are as they were. Run it again."
    run_sql(spark, f"alter table {policy.table} set tblproperties ({listed})", failed, then)


def _policy(lake: Lake, layer: str, table: str, meta: Any, where: str) -> Policy:
    name = f"{lake.schema_name(layer)}.{table}"
    numbers = {"optimize_after_files": 16, "retain_hours": 168, "reader_lag_hours": LEAST_RETAIN_HOURS}
    for key, default in numbers.items():
        numbers[key] = meta.get(key, default)
        if not isinstance(numbers[key], int) or numbers[key] < 1:
            raise ConfigError(f"{where}: meta {key} of {name} must be a whole number from 1, not {numbers[key]!r}.")
    least = max(LEAST_RETAIN_HOURS, numbers.pop("reader_lag_hours"))
    if numbers["retain_hours"] < least:
        raise ConfigError(
            f"{where}: meta retain_hours of {name} is {numbers['retain_hours']}; a reader of an older version may need "
            f"its files for {least} hours. Nothing was removed. Raise it."
        )
    zorder = meta.get("zorder_by", ())
    return Policy(
        name,
        lake.table_path(layer, table),
        numbers["optimize_after_files"],
        numbers["retain_hours"],
        zorder_by=(zorder,) if isinstance(zorder, str) else tuple(zorder),
    )


def _decide(policy: Policy, log: TableLog) -> TablePlan:
    state = read_state(log, policy.kept_hours)
    actions = []
    if policy.tags and not _KEPT.items() <= _properties(policy).items():
        actions.append(Step(Act.PROTECT, f"tagged {', '.join(policy.tags)}, and its properties keep less"))
    if state.deleted_share is not None and state.deleted_share >= _PURGE_SHARE:
        actions.append(Step(Act.PURGE, f"{state.deleted_share:.0%} of the rows are behind deletion vectors"))
    if state.compactable_files >= policy.optimize_after_files:
        actions.append(Step(Act.OPTIMIZE, f"{state.compactable_files} small files can be merged"))
    elif state.unclustered_share >= _UNCLUSTERED_SHARE and state.unclustered_share * state.bytes >= _UNCLUSTERED_BYTES:
        actions.append(Step(Act.OPTIMIZE, f"{state.unclustered_share:.0%} of the bytes came since the last OPTIMIZE"))
    if state.commits_since_checkpoint >= _CHECKPOINT_COMMITS:
        actions.append(Step(Act.CHECKPOINT, f"{state.commits_since_checkpoint} commits since the last checkpoint"))
    removable = f"{state.removable_files} files, {state.removable_bytes} bytes, are past {policy.retain_hours} hours"
    if state.untracked_files >= _VACUUM_FILES:
        reason = f"{state.untracked_files} files, {state.untracked_bytes} bytes, belong to no version"
        actions.append(Step(Act.VACUUM_FULL, reason))
    elif state.removable_files >= _VACUUM_FILES or state.removable_bytes > _VACUUM_SHARE * max(state.bytes, 1):
        actions.append(Step(Act.VACUUM_LITE, removable))
    if policy.erased and _is_over(policy, policy.erased):
        reason = f"people were erased on {policy.erased:%Y-%m-%d}, and the retention is over"
        actions = [step for step in actions if step.act not in (Act.CHECKPOINT, Act.VACUUM_FULL, Act.VACUUM_LITE)]
        actions += [Step(Act.VACUUM_FULL, reason), Step(Act.CHECKPOINT, reason)]  # whose clean-up of the log is last
    return TablePlan(policy.table, tuple(actions), state)


def _is_over(policy: Policy, erased: datetime) -> bool:
    """Whether old files may go, and something is left from before people were erased: an entry of the log, or a file of
    data that no version has. Delta cleans a log up by itself, but not the files.
    """
    if datetime.now(UTC) < erased + timedelta(hours=policy.kept_hours):
        return False
    files = files_under(policy.path)
    old = {name for name, file in files.items() if file.modified < erased.timestamp()}
    if any(_ENTRY.fullmatch(name.removeprefix("_delta_log/")) for name in old):
        return True
    data = {name for name in old if name.endswith(".parquet") and not name.startswith("_delta_log/")}
    return bool(data and data - read_version(folder_at(policy.path)).files.keys())


def _act(spark: SparkSession, policy: Policy, act: Act) -> None:
    """Runs one act. If somebody else commits meanwhile, it is tried again, a few times.

    Raises:
        OpsError: it failed; the table is as it was.
    """
    from pyspark.errors import PySparkException

    if act is Act.CHECKPOINT:
        if policy.erased:  # the log holds values too: least and greatest of each file, and ranges of keys
            _set_properties(spark, policy, {_LOG_RETENTION: f"interval {policy.retain_hours} hours"})
        if not hasattr(spark, "_jsparkSession"):
            raise OpsError(
                f"{policy.table}: a Spark Connect client cannot write a checkpoint. Delta writes one at each tenth "
                "commit. If it does not, run `lakeops maintain run --execute --env local` on the server's machine."
            )
        log = spark._jvm.org.apache.spark.sql.delta.DeltaLog
        log.forTable(spark._jsparkSession, str(policy.path)).checkpoint()
        return
    if act is Act.PROTECT:
        protect(spark, policy)
        return
    if act in (Act.VACUUM_LITE, Act.VACUUM_FULL):
        release(spark, policy)
    for attempt in range(1, _TRIES + 1):
        try:
            spark.sql(_statement(policy, act)).collect()
            return
        except PySparkException as exc:
            if "CONCURRENT" not in str(exc).upper() or attempt == _TRIES:
                text = first_line(exc)
                raise OpsError(
                    f"{act.value} of {policy.table} failed: {text} Its rows are as they were. Run "
                    f"`lakeops maintain run {policy.table} --execute` again."
                ) from exc


def _statement(policy: Policy, act: Act) -> str:
    if act is Act.PURGE:
        return f"reorg table {policy.table} apply (purge)"
    if act is Act.OPTIMIZE:
        order = ", ".join(f"`{column}`" for column in policy.zorder_by)
        return f"optimize {policy.table}" + (f" zorder by ({order})" if order else "")
    return f"vacuum {policy.table}" + (" lite" if act is Act.VACUUM_LITE else "")
