"""Gold tables to the environment's warehouses: staged, audited against the lake, and committed as a set.

A model is published to the warehouses that both its `meta` (`publish_to: [duckdb, postgres]`) and the environment
(`publish` in python_ops/lake/config) name. docs/guides/publishing.md says what this protects and what it does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from python_ops.jobs.publish.personal import Treatment
from python_ops.jobs.publish.stage import current_version, stage
from python_ops.jobs.publish.target import Served, StagedTable, Version, Warehouse
from python_ops.jobs.publish.warehouses import published_models, warehouse
from python_ops.lake.artifacts import Manifest, Model, RunResults, refuse_red
from python_ops.lake.buckets import on_bucket
from python_ops.lake.delta import TableLog
from python_ops.lake.errors import OpsError, listed, together
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, job_run
from python_ops.lake.run_record import left_out
from python_ops.lake.storage import clear, fetch


class Action(StrEnum):
    """What was done with a table. `staged` is reported once for all warehouses, and is never a result."""

    STAGED = "staged"
    PUBLISHED = "published"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class PublishResult:
    """What was done with one table in one warehouse.

    Attributes:
        target: The warehouse; empty while the table is staged.
        table: Schema and table name.
        version: Delta version that is served now.
        rows: Its row count.
        seconds: Time spent on this table; staging counts in the first warehouse.
        sent: Rows that went to the warehouse; fewer than `rows` if only those that differ were sent.
    """

    target: str
    table: str
    version: int
    rows: int
    action: Action
    seconds: float
    sent: int = 0


class Publication(StrEnum):
    """How what is served compares with the lake. `dropped`: served, but no longer published by the project."""

    CURRENT = "current"
    BEHIND = "behind"
    NEVER = "never published"
    NOT_BUILT = "not built"
    DROPPED = "dropped"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class PublishStatus:
    """Versions of one table in the lake and in one warehouse; None if there is none.

    Attributes:
        published_at: ISO 8601, UTC.
        error: Why the warehouse could not be asked.
        personal: What was done with the personal columns that are served; empty: nothing, or there are none.
    """

    target: str
    table: str
    state: Publication
    lake_version: int | None
    served_version: int | None
    rows: int | None
    published_at: str | None
    error: str | None = None
    personal: str = ""


@dataclass(frozen=True)
class _Plan:
    """The tables that one warehouse needs."""

    name: str
    target: Warehouse
    treatment: Treatment
    ledger: dict[str, Served]
    changed: list[Model]
    unchanged: list[PublishResult]


def publish(
    lake: Lake,
    on_event: Callable[[PublishResult], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> list[PublishResult]:
    """Publishes every table whose rows, columns or treatment may differ from what is served, as a set per warehouse.

    A warehouse that fails does not hold up the others. Tables that the last build left out, waiting for a source, stay
    as they are served.

    Args:
        on_event: Told of each table when it is staged, and of each result.
        on_start: Told of each table before it is staged.

    Returns:
        One result per warehouse and table, by name. Empty where no model is published here.

    Raises:
        ConfigError: the manifest is of another environment, a column cannot be published, credentials are missing.
        BusyError: a warehouse is in use by another process.
        OpsError: the last dbt run is not green, a table is missing, an audit failed. Where it failed, nothing changed.
    """
    tell = on_event or (lambda event: None)
    staging, fetched = lake.state / "publish" / "stage", lake.workspace / "state" / "publish" / "fetched"
    clear(staging)  # what a killed run left
    clear(fetched)
    manifest = lake.manifest()
    wanted = {name: models for name, models in published_models(manifest, lake).items() if models}
    if not wanted:
        return []
    last_run = lake.run_results()
    without = manifest.readers_of(left_out(lake, last_run.invocation_id))
    wanted = {name: [m for m in models if m.unique_id not in without] for name, models in wanted.items()}
    models = _distinct(wanted.values())
    then = "Nothing was published; what was served before is still served. Correct it, run `dbt build`, then publish."
    refuse_red(manifest, last_run, models, then)
    versions = {model.table: current_version(model, _log(model, lake)) for model in models}
    failures: dict[str, OpsError] = {}
    plans = []
    for name in wanted:
        with _kept(failures, name):
            plans.append(_plan(lake, name, wanted[name], versions))
    waiting = [plan for plan in plans if plan.changed]
    refuse_untested(manifest, last_run, _distinct(plan.changed for plan in waiting), without)
    ready = []
    for plan in waiting:
        with _kept(failures, plan.name):
            plan.target.prepare()
            ready.append(plan)
    results = [result for plan in plans for result in plan.unchanged]
    try:
        staged: dict[str, StagedTable] = {}
        for model in _distinct(plan.changed for plan in ready):
            folder = staging / model.schema / model.alias
            if on_start:
                on_start(model.table)
            table = stage(lake.spark, model, _path(model, lake), versions[model.table], folder)
            if on_bucket(folder):  # Spark may be on another machine
                table = replace(table, folder=fetch(folder, fetched / model.schema / model.alias))
            tell(_result("", table, Action.STAGED, table.seconds, 0))
            staged[model.table] = table
        for plan in ready:
            with _kept(failures, plan.name):
                tables = [plan.treatment.applied(staged[model.table]) for model in plan.changed]
                results += _replace(lake, plan, tables, plan is ready[0])
    finally:
        clear(staging)
        clear(fetched)
    results.sort(key=lambda result: (lake.settings.publish.index(result.target), result.table))
    for result in results:
        tell(result)
    if failures:
        raise _failed(failures, [name for name in wanted if name not in failures])
    return results


def status(lake: Lake) -> list[PublishStatus]:
    """How what is served compares with the lake, by warehouse and table. Starts no JVM.

    If a warehouse does not answer, each of its tables has the reason.

    Raises:
        OpsError: there is no manifest.
    """
    found = []
    for name, chosen in published_models(lake.manifest(), lake).items():
        models = {model.table: model for model in chosen}
        built: dict[str, Version] = {}
        for model in chosen:
            with contextlib.suppress(OpsError):
                built[model.table] = current_version(model, _log(model, lake))
        error, ledger, current = None, {}, set()
        try:
            ledger, treatment = warehouse(lake, name).served(), Treatment(lake, name)
            current = {
                model.table for model in chosen
                if model.table in built
                and _is_served(ledger.get(model.table), built[model.table], _log(model, lake), treatment.note(model))
            }  # fmt: skip
        except OpsError as exc:
            error = str(exc)
        schemas = {lake.schema_name(layer) for layer in ("gold", *(model.layer for model in chosen))}
        dropped = {table for table in ledger if table not in models and table.split(".")[0] in schemas}
        for table in sorted({*models, *dropped}):
            if error:
                state = Publication.UNREACHABLE
            elif table not in models:
                state = Publication.DROPPED
            elif table not in built:
                state = Publication.NOT_BUILT
            elif table not in ledger:
                state = Publication.NEVER
            else:
                state = Publication.CURRENT if table in current else Publication.BEHIND
            made, has = built.get(table), ledger.get(table)
            found.append(PublishStatus(
                name, table, state, made.number if made else None, has.version.number if has else None,
                has.rows if has else None, has.published_at if has else None, error, has.personal if has else "",
            ))  # fmt: skip
    return found


def refuse_untested(manifest: Manifest, last_run: RunResults, changed: Sequence[Model], without: Set[str]) -> None:
    """Raises OpsError when a changed table has a test that the last run did not run.

    Tests that are among the nodes that the run went `without`, waiting for a source, wait with them.
    """
    missing = manifest.tests_of(model.unique_id for model in changed) - last_run.green_tests() - without
    if missing:
        raise OpsError(
            f"The last `dbt {last_run.command}` did not run {len(missing)} tests of tables that changed: "
            f"{listed(sorted(missing))}. Nothing was published. Run `dbt test`, or `dbt build`, then publish."
        )


def _plan(lake: Lake, name: str, models: Sequence[Model], versions: Mapping[str, Version]) -> _Plan:
    target, treatment = warehouse(lake, name), Treatment(lake, name)
    notes = {model.table: treatment.note(model) for model in models}
    ledger = target.served()
    changed = [
        m for m in models if not _is_served(ledger.get(m.table), versions[m.table], _log(m, lake), notes[m.table])
    ]
    unchanged = [
        PublishResult(name, m.table, versions[m.table].number, ledger[m.table].rows, Action.UNCHANGED, 0.0)
        for m in models
        if m not in changed
    ]
    return _Plan(name, target, treatment, ledger, changed, unchanged)


def _replace(lake: Lake, plan: _Plan, staged: Sequence[StagedTable], first: bool) -> list[PublishResult]:
    inputs = [Dataset(table.model.table, _path(table.model, lake).as_uri()) for table in staged]
    with job_run(lake, f"publish.{plan.name}", inputs) as run:
        loaded = plan.target.replace(staged, plan.ledger)
        run.outputs = [
            Dataset(f"{plan.name}/{t.model.table}", columns=tuple((f.name, f.type) for f in t.fields), rows=t.rows)
            for t in staged
        ]
    return [
        _result(plan.name, t, Action.PUBLISHED, took.seconds + (t.seconds if first else 0.0), took.sent)
        for t in staged
        for took in [loaded[t.model.table]]
    ]


@contextlib.contextmanager
def _kept(failures: dict[str, OpsError], name: str) -> Iterator[None]:
    """Keeps a warehouse's failure for later."""
    try:
        yield
    except OpsError as exc:
        failures[name] = exc


def _failed(failures: Mapping[str, OpsError], others: Sequence[str]) -> OpsError:
    """One error for all warehouses that failed."""
    if len(failures) == 1 and not others:
        return next(iter(failures.values()))
    told = " ".join(f"{name}: {error}" for name, error in failures.items())
    done = f" Up to date: {', '.join(others)}." if others else ""
    return together(list(failures.values()), told + done)


def _distinct(lists: Iterable[Sequence[Model]]) -> list[Model]:
    found = {model.table: model for models in lists for model in models}
    return [found[table] for table in sorted(found)]


def _path(model: Model, lake: Lake) -> Path:
    return lake.table_path(model.layer, model.alias)


def _log(model: Model, lake: Lake) -> TableLog:
    return lake.log(_path(model, lake))


def _result(target: str, table: StagedTable, action: Action, seconds: float, sent: int) -> PublishResult:
    number, rows = table.version.number, table.rows
    return PublishResult(target, table.model.table, number, rows, action, round(seconds, 3), sent)


def _is_served(served: Served | None, built: Version, log: TableLog, personal: str) -> bool:
    """Whether what is served has the table's rows and columns, treated alike. (An OPTIMIZE changes the version only.)

    Args:
        personal: What the warehouse is to get of personal columns.
    """
    if served is None or served.version.table_id != built.table_id or served.personal != personal:
        return False
    return served.version == built or not log.rows_changed_since(served.version.number, or_columns=True)
