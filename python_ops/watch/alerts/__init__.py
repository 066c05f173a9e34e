"""Service levels: what is checked, against which limits, and what a breach says.

Limits are in dbt's `meta`: of each model (`sla_minutes`, `sla_min_rows`, `sla_max_shrink`, `sla_max_seconds`), of each
source (`sla_minutes`, `sla_min_records`, `sla_max_rejected`, `sla_max_mistyped`), and of the daily run in the exposure
`daily_run` (`sla_minutes`, `sla_max_seconds`; `sla_max_seconds_<step>`, such as `sla_max_seconds_dbt_build`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from python_ops.jobs.build.mistakes import explained
from python_ops.lake.artifacts import Manifest, Model, NodeResult, RunResults
from python_ops.lake.delta import TableLog
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch
from python_ops.lake.metrics import history, rows_before
from python_ops.lake.rejections import MISTYPED
from python_ops.lake.run_record import last_run, waits
from python_ops.watch.alerts.acknowledged import acknowledged

RUNBOOK = "docs/runbooks/sla_breach.md"

_LEAST_SAMPLE = 8  # runs before the volume of the next is judged
_DEVIATIONS = 6.0  # of the median absolute deviation, scaled to a standard deviation
_FLOOR_SHARE, _FLOOR_ROWS = 0.05, 10  # a steady history must not make a small change an alarm

_COLUMNS_SHOWN = 3


class Cause(StrEnum):
    """Kinds of breaches, causes first: an earlier one may explain a later one."""

    LAST_RUN = "last run failed"
    MISSED_RUN = "run missing"
    TESTS = "tests failed"
    TYPES = "type changed"
    QUARANTINE = "too many rejected"
    SERVING = "not served"
    FRESHNESS = "stale"
    ROWS = "too few rows"
    SHRINK = "shrank"
    VOLUME = "unusual volume"
    RUNTIME = "too slow"


# A breach as a colleague would say it.
_SENTENCES = {
    Cause.LAST_RUN: "The last run did not finish: {got}.",
    Cause.MISSED_RUN: "No run came: {got}; {expected} is due.",
    Cause.TESTS: "{subject} failed in the last build: {got}.",
    Cause.TYPES: "{subject} delivers other types than its contract says, {got}; {expected} is allowed.",
    Cause.QUARANTINE: "Too much of {subject} was rejected: {got}; {expected} is allowed.",
    Cause.SERVING: "Warehouses serve what they had: {got}.",
    Cause.FRESHNESS: "{subject} is stale: {got}; {expected} is promised.",
    Cause.ROWS: "{subject} has too few rows: {got}; {expected} is expected.",
    Cause.SHRINK: "{subject} shrank: {got}; {expected} is allowed.",
    Cause.VOLUME: "{subject} is unlike before: {got}; {expected} is usual.",
    Cause.RUNTIME: "{subject} took {got}; {expected} is allowed.",
}


@dataclass(frozen=True)
class Breach:
    """One limit that does not hold. `expected` and `got` are counts, times and names: never a row's values.

    Attributes:
        acknowledged_until: Somebody knows of it: until then it sends no alert and causes no exit 3.
        affects: Tables that are made from what is broken, gold first.
        readers: Exposures that read one of them.
    """

    kind: Cause
    subject: str
    expected: str
    got: str
    owner: str
    next_action: str
    acknowledged_until: str | None = None
    affects: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What is wrong, with what was agreed."""
        return _SENTENCES[self.kind].format(subject=self.subject, got=self.got, expected=self.expected)

    @property
    def severity(self) -> str:
        """`error` if a run failed or is missing, a test failed or publishing did, else `warning`."""
        return "error" if self.kind in (Cause.LAST_RUN, Cause.MISSED_RUN, Cause.TESTS, Cause.SERVING) else "warning"

    @property
    def runbook(self) -> str:
        """Path of the runbook and heading about it."""
        return f"{RUNBOOK}#{self.kind.value.replace(' ', '-')}"

    @property
    def identity(self) -> str:
        """The same for the same fault in every run."""
        return f"{self.kind.value}: {self.subject}"


def check(lake: Lake, now: datetime | None = None) -> list[Breach]:
    """All breaches, causes first. Starts no JVM.

    Raises:
        ConfigError: a limit is not a number.
        OpsError: there is no manifest.
    """
    now = now or datetime.now(UTC)
    manifest = lake.manifest()
    try:
        results = lake.run_results()
    except OpsError:
        results = None
    found = [
        *_run(lake, manifest, results, now),
        *_tests(manifest, results),
        *(breach for source in lake.contracts.sources for breach in _source(lake, manifest, source, now)),
        *_models(lake, manifest, results, now),
    ]
    from python_ops.watch.alerts.affected import with_affected  # it needs Breach

    known, waiting = (
        acknowledged(lake, now),
        {name for names in (last_run(lake) or {}).get("waiting", {}).values() for name in names},
    )
    found = [
        replace(with_affected(manifest, results, waiting, breach), acknowledged_until=known.get(breach.identity))
        for breach in found
    ]
    order = list(Cause)
    return sorted(found, key=lambda breach: (order.index(breach.kind), breach.subject))


def pressing(breaches: Iterable[Breach]) -> list[Breach]:
    """Breaches that nobody has acknowledged."""
    return [breach for breach in breaches if breach.acknowledged_until is None]


def _run(lake: Lake, manifest: Manifest, results: RunResults | None, now: datetime) -> Iterator[Breach]:
    daily = manifest.exposures.get("daily_run")
    meta, owner = (daily.meta, daily.owner) if daily else ({}, "nobody")
    limit = _limit(meta, "sla_minutes", "exposure daily_run")
    record = last_run(lake)
    # A stream that applies what it takes builds without a daily run, and so may a person.
    began = [record["started_at"]] if record else []
    began += [results.generated_at] if results and results.command in ("build", "run") else []
    if not began:
        yield Breach(Cause.MISSED_RUN, "run", "a run", "none was ever recorded", owner, "`lakeops run`")
        return
    latest = max(datetime.fromisoformat(moment) for moment in began)
    if limit is not None and (now - latest).total_seconds() / 60 > limit:
        got = f"the last was {span((now - latest).total_seconds() / 60)} ago, at {latest.isoformat(timespec='seconds')}"
        yield Breach(
            Cause.MISSED_RUN, "run", f"a run every {span(limit)}", got, owner, "look at the scheduler, `lakeops run`"
        )
    if record is None:
        return
    broken = [step for step in record["steps"] if step["outcome"] != "ok"]
    # A dead warehouse is not a broken lake: the tables are built, and readers still have what was served before.
    dead = [step for step in broken if step["name"] == "publish" and step["outcome"] == "failed"]
    if dead:
        action = f"`lakeops publish status`, then `{dead[0]['resume']}`"
        yield Breach(Cause.SERVING, "publish", "all that was built is served", "publishing failed", owner, action)
    if broken := [step for step in broken if step not in dead]:
        step, waiting = broken[0], waits(record.get("waiting", {}))
        waiting = f"; {waiting}" if waiting else ""
        yield Breach(
            Cause.LAST_RUN, step["name"], "every step ok", f"{step['name']} {step['outcome']}{waiting}", owner,
            f"`{step['resume']}`, then `lakeops run`",
        )  # fmt: skip
    seconds = sum(step["seconds"] for step in record["steps"])
    most = _limit(meta, "sla_max_seconds", "exposure daily_run")
    if most is not None and seconds > most:
        yield Breach(
            Cause.RUNTIME, "run", f"at most {most:.0f} s", f"{seconds:.0f} s", owner, "`lakeops maintain plan`"
        )
    for name in dict.fromkeys(step["name"] for step in record["steps"]):
        most = _limit(meta, f"sla_max_seconds_{name.replace(' ', '_')}", "exposure daily_run")
        spent = sum(step["seconds"] for step in record["steps"] if step["name"] == name)
        if most is not None and spent > most:
            yield Breach(
                Cause.RUNTIME, name, f"at most {most:.0f} s", f"{spent:.0f} s", owner, "`lakeops maintain plan`"
            )


def _tests(manifest: Manifest, results: RunResults | None) -> Iterator[Breach]:
    for result in results.failed() if results else ():
        if result.status != "skipped":  # what was skipped follows from what failed
            parents = [manifest.models[p] for p in manifest.parents.get(result.unique_id, ()) if p in manifest.models]
            model = manifest.models.get(result.unique_id) or (parents[0] if parents else None)
            name = result.unique_id.split(".")[2]
            owner = manifest.owner_of(model) if model else "nobody"
            cause = explained(result.message, names_only=True)
            got = f"{result.status}; {cause.rstrip('.')}" if cause else result.status
            yield Breach(Cause.TESTS, name, "success", got, owner, f"`dbt build --select {name}`")


def _source(lake: Lake, manifest: Manifest, source: str, now: datetime) -> Iterator[Breach]:
    meta, where = manifest.source_meta.get(source, {}), f"source {source}"
    owner = lake.contracts.load(source).owner
    done = lake.ledger(source).committed
    if not done:
        return  # a source that never delivered anything has not begun
    limit = _limit(meta, "sla_minutes", where)
    age = (now - datetime.fromisoformat(done[-1].arrived_at)).total_seconds() / 60
    if limit is not None and age > limit:
        yield Breach(
            Cause.FRESHNESS, source, f"a delivery every {span(limit)}", f"the last came {span(age)} ago", owner,
            f"look for files in the landing folder of {source}, then at its system",
        )  # fmt: skip
    counts = done[-1].counts
    least = _limit(meta, "sla_min_records", where)
    records = counts["read"] - counts["ignored"]
    if least is not None and records < least:
        yield Breach(
            Cause.ROWS, source, f"at least {least:.0f} records in a batch", f"{records} in batch {done[-1].batch_id}",
            owner, f"look at the last file in the landing folder of {source}, then at its system",
        )  # fmt: skip
    yield from _types(done[-1], _limit(meta, "sla_max_mistyped", where), owner)
    most = _limit(meta, "sla_max_rejected", where)
    if most is not None and counts["read"] and counts["quarantined"] / counts["read"] > most:
        yield Breach(
            Cause.QUARANTINE, source, f"at most {most:.1%} of a batch",
            f"{counts['quarantined']} of {counts['read']} records in batch {done[-1].batch_id}", owner,
            f"`lakeops dlq list {source}`",
        )  # fmt: skip
    yield from _volume(
        source, [m.counts["read"] for m in done], "records read", owner, f"`lakeops ingest status`; {source}"
    )


def _types(batch: Batch, most: float | None, owner: str) -> Iterator[Breach]:
    """Columns whose values arrive in another type than the contract's: one breach per source."""
    found = [each for each in batch.rejected if each.kind in MISTYPED and each.column]
    if most is None or not found or sum(each.records for each in found) <= most * batch.counts["read"]:
        return
    worst = sorted(found, key=lambda each: -each.records)
    told = [f"{each.column} is {each.reason} in {each.records}" for each in worst[:_COLUMNS_SHOWN]]
    if len(worst) > _COLUMNS_SHOWN:
        told.append(f"and {len(worst) - _COLUMNS_SHOWN} more columns")
    yield Breach(
        Cause.TYPES, batch.source, f"at most {most:.1%} of a batch of another type than the contract's",
        f"in batch {batch.batch_id}: {', '.join(told)}", owner,
        f"`lakeops dlq list {batch.source}`, then ask its system what has changed",
    )  # fmt: skip


def _models(lake: Lake, manifest: Manifest, results: RunResults | None, now: datetime) -> Iterator[Breach]:
    figures = lake.figures()
    recorded = history(figures, "rows", "table")
    built_at = datetime.fromisoformat(results.generated_at) if results else None
    before = rows_before(figures, results.began(manifest) if results else {})
    for model in manifest.models.values():
        if model.storage is None or not (limits := _limits(model)):
            continue
        owner, build = manifest.owner_of(model), f"`dbt build --select {model.name}`"
        result = results.nodes.get(model.unique_id) if results else None
        log = lake.log(lake.table_path(model.layer, model.storage))
        if not log.exists:
            if limits.keys() != {"sla_max_shrink"}:  # what never was did not shrink
                yield Breach(Cause.ROWS, model.name, "a table", "none", owner, build)
            continue
        if "sla_minutes" in limits and built_at and result and result.green:
            age = (now - built_at).total_seconds() / 60
            if age > limits["sla_minutes"]:
                expected = f"a green build every {span(limits['sla_minutes'])}"
                yield Breach(
                    Cause.FRESHNESS, model.name, expected, f"the last was {span(age)} ago", owner, "`lakeops run`"
                )
        if "sla_max_seconds" in limits and result and result.seconds > limits["sla_max_seconds"]:
            expected = f"at most {limits['sla_max_seconds']:.0f} s"
            action = f"`lakeops maintain plan {model.table}`"
            yield Breach(Cause.RUNTIME, model.name, expected, f"{result.seconds:.0f} s", owner, action)
        most, shrank = limits.get("sla_max_shrink"), ""
        if most is not None:
            shrank = _shrank(model, log, result, before.get(model.stored_table, 0), most)
        if shrank:
            expected = f"at most {most:.0%} of the rows gone in one build"
            action = f"`lakeops table history {model.schema}.{model.storage}`"
            yield Breach(Cause.SHRINK, model.name, expected, shrank, owner, action)
        if "sla_min_rows" not in limits:
            continue
        rows = log.live_rows
        if rows < limits["sla_min_rows"]:
            expected = f"at least {limits['sla_min_rows']:.0f} rows"
            yield Breach(Cause.ROWS, model.name, expected, str(rows), owner, build)
        if not shrank:
            past = [int(value) for value in recorded.get(model.stored_table, [])]
            yield from _volume(model.name, [*past, rows], "rows", owner, build)


def _shrank(model: Model, log: TableLog, result: NodeResult | None, before: int, most: float) -> str:
    """How far the rows that readers see became fewer in the last build, where it is further than `most`; else empty.

    A CDC model's table never shrinks, and its rows are counted by its build: what it closed beyond what it opened. How
    many are left is asked of the table where enough are gone to matter.
    """
    if not model.is_cdc:
        left = log.live_rows
        lost = before - left
    else:
        counts = result.counts if result and result.green else {}
        lost = counts.get("closed", 0) - counts.get("opened", 0)
    if lost < _FLOOR_ROWS:
        return ""
    if model.is_cdc:
        try:
            left = log.current_rows
        except OpsError:
            return f"{lost} gone; only Spark can count what is left: `select count(*) from {model.table}`"
    return f"{lost / (left + lost):.0%} gone: {left} of {left + lost} are left" if lost > most * (left + lost) else ""


def _volume(subject: str, counts: list[int], unit: str, owner: str, action: str) -> Iterator[Breach]:
    """A breach if the newest count is far from the median of those before it."""
    past, newest = counts[-31:-1], counts[-1]
    if len(past) < _LEAST_SAMPLE:
        return
    middle = statistics.median(past)
    spread = 1.4826 * statistics.median(abs(count - middle) for count in past)
    allowed = max(_DEVIATIONS * spread, _FLOOR_SHARE * middle, _FLOOR_ROWS)
    if abs(newest - middle) > allowed:
        expected = f"{max(0, middle - allowed):.0f} to {middle + allowed:.0f} {unit}, as in the last {len(past)} runs"
        yield Breach(Cause.VOLUME, subject, expected, str(newest), owner, action)


def _limits(model: Model) -> dict[str, float]:
    names = ("sla_minutes", "sla_min_rows", "sla_max_shrink", "sla_max_seconds")
    found = {name: _limit(model.meta, name, model.path) for name in names}
    return {name: limit for name, limit in found.items() if limit is not None}


def _limit(meta: Mapping[str, Any], name: str, where: str) -> float | None:
    value = meta.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ConfigError(f"{where}: meta {name} must be a number from 0, not {value!r}.")
    return float(value)


def span(minutes: float) -> str:
    """A length of time as text."""
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"
