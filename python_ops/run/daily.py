"""The daily job: extract, ingest, `dbt build`, publish, register, in one process and one Spark session.

Each step is recorded in `state/last_run.json` as it happens, so that even a run that died says how far it came.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from python_ops.jobs.build import arguments, failure, invoke, readers_of
from python_ops.jobs.catalog import refuse_incomplete, register
from python_ops.jobs.extract import extract
from python_ops.jobs.ingest import ingest, replaced
from python_ops.jobs.publish import Action, publish
from python_ops.lake import interrupts, refused
from python_ops.lake.errors import BusyError, ConfigError, Interrupted, OpsError, together
from python_ops.lake.lake import Lake
from python_ops.lake.lineage.sink import waiting
from python_ops.lake.lock import PUBLISH, fence, leased
from python_ops.lake.metrics import record
from python_ops.lake.run_record import last_run, save_run, waits
from python_ops.run.pending import green_since, reason_to_run, remember
from python_ops.watch.alerts import Breach, check, pressing
from python_ops.watch.alerts.notify import notify
from python_ops.watch.lineage.dbt import NodeEvents
from python_ops.watch.metrics import collect
from python_ops.watch.metrics.cloudwatch import push
from python_ops.watch.report import gather, write

Report = Callable[[str, Any], None]
"""Called with the name of what happened and its result: see `Job`."""


@dataclass
class Step:
    """One step. `outcome` is `ok`, `failed`, `interrupted` or `running`; `summary` has counts only, never values."""

    name: str
    outcome: str = "running"
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)
    resume: str = ""


class Job:
    """Steps that share one Spark session, each recorded.

    Args:
        report: Called as ("step", Step) when a step begins and ends, ("node", dbt's event) when a node does,
            ("nodes", how many there are), ("starts", name of a source or table), and with each result ("extract",
            ExtractResult), ("ingest", IngestResult), ("publish", PublishResult);
            ("reason", text) with why it runs, ("waiting", text) with what a build left out.
        command: What is being run, for the record.

    Attributes:
        broken: Sources that failed or were halted in the last `ingest`.
        waiting: Models that the last `build` left out, by the broken source that they read.
        left_out: Of which sources, and of which dbt command: `python_ops.lake.run_record.left_out`.
    """

    def __init__(self, lake: Lake, report: Report, command: str = "run") -> None:
        self.lake, self.report = lake, report
        self.started_at = datetime.now(UTC)
        self.command = command
        self.steps: list[Step] = []
        self.broken: tuple[str, ...] = ()
        self.waiting: dict[str, list[str]] = {}
        self.unchanged_since: str | None = None
        self.before = last_run(lake)
        self.left_out: dict[str, Any] = (self.before or {}).get("left_out", {})
        self.lineage = NodeEvents(lake)

    def extract(self) -> None:
        """Pulls what changed in the sources that the environment extracts.

        Raises:
            OpsError: a source failed; the others have landed.
        """
        with _Recorded(self, "extract", "lakeops extract run") as step:
            results = extract(
                self.lake, on_event=partial(self.report, "extract"), on_start=partial(self.report, "starts")
            )
            failed = [result for result in results if result.error]
            step.summary = {
                "sources": len(results),
                "rows": sum(result.rows for result in results),
                "bytes": sum(result.bytes for result in results),
                "failed": len(failed),
            }
            if failed:
                raise _all_of(result.error for result in failed)

    def ingest(self) -> None:
        """Takes new landing files.

        Raises:
            OpsError: a source failed or is halted: `broken` names them. The others are taken.
        """
        self.broken = ()
        with _Recorded(self, "ingest", "lakeops ingest run") as step:
            results = ingest(
                self.lake, on_event=partial(self.report, "ingest"), on_start=partial(self.report, "starts")
            )
            taken = [result for result in results if result.batch_id is not None]
            step.summary = {
                "sources": len(results),
                "batches": len(taken),
                "read": sum(result.read for result in taken),
                "accepted": sum(result.accepted for result in taken),
                "quarantined": sum(result.quarantined for result in taken),
                "rejected_files": sum(len(result.rejected_files) for result in taken),
            }
            if failed := [result for result in results if result.error]:
                self.broken = tuple(result.source for result in failed)
                raise _all_of(result.error for result in failed)

    def build(self) -> None:
        """Runs `dbt build` without what reads a broken source, until the source works again.

        Raises:
            OpsError: a model or a test failed; those that depend on it were skipped, the others are done.
            BusyError: another process holds the lease of a table.
        """
        with (
            _Recorded(self, "dbt build", "dbt build") as step,
            leased(self.lake, self._tables(), "lakeops run") as leases,
        ):
            fence(self.lake.spark, leases)
            self.lineage = NodeEvents(self.lake)
            self.left_out = {"sources": list(self.broken)}
            listed = arguments(["build"], self.lake, exclude=readers_of(self.broken))
            result = invoke(self.lake, ["--quiet", *listed], self._on_dbt_event)
            nodes = result.result.results if result.result is not None else []
            nodes = [node for node in nodes if node.node.resource_type in ("model", "test", "unit_test", "seed")]
            statuses = [str(node.status) for node in nodes]
            step.summary = {
                "nodes": len(nodes),
                "succeeded": sum(status in ("success", "pass") for status in statuses),
                "warned": statuses.count("warn"),
                "failed": sum(status in ("error", "fail", "runtime error") for status in statuses),
                "skipped": statuses.count("skipped"),
            }
            self._note_waiting(step)
            if not result.success:
                raise OpsError(failure(result))

    def _note_waiting(self, step: Step) -> None:
        """Notes which models were left out, by the manifest that this build wrote."""
        self.waiting = {}
        if not self.broken:
            return
        with suppress(OpsError):  # dbt did not come as far as a manifest, and its own error says why
            manifest = self.lake.manifest()
            for source in self.broken:
                readers = manifest.readers_of([source])
                self.waiting[source] = sorted(manifest.models[node].name for node in readers & manifest.models.keys())
            step.summary["waiting"] = len({name for names in self.waiting.values() for name in names})
            self.report("waiting", waits(self.waiting))

    def publish(self) -> None:
        """Sends changed gold tables to the serving database.

        Raises:
            OpsError: the build was not green, or an audit failed; what was served is still served.
        """
        with _Recorded(self, "publish", "lakeops publish run") as step, leased(self.lake, [PUBLISH], "lakeops run"):
            results = publish(self.lake, partial(self.report, "publish"), partial(self.report, "starts"))
            sent = [result for result in results if result.action is Action.PUBLISHED]
            step.summary = {"tables": len(results), "published": len(sent), "rows": sum(result.sent for result in sent)}

    def catalog(self) -> None:
        """Registers tables and views where other engines look for them.

        Raises:
            OpsError: the catalog does not admit this, or an entry is somebody else's; all others are registered.
        """
        with _Recorded(self, "catalog", "lakeops catalog register --execute") as step:
            changes = register(self.lake, execute=True)
            step.summary = dict(Counter(change.action.value for change in changes))
            refuse_incomplete(changes)

    def docs(self) -> Path:
        """Writes the dbt docs site as one static file.

        Raises:
            OpsError: dbt could not write it.
        """
        with _Recorded(self, "dbt docs", "dbt docs generate --static"):
            _ = self.lake.spark  # dbt takes the process's session
            listed = arguments(["docs", "generate", "--static", "--no-compile"], self.lake)
            result = invoke(self.lake, ["--quiet", *listed])
            if not result.success:
                raise OpsError(failure(result))
        return self.lake.artifacts / "static_index.html"

    def _tables(self) -> list[str]:
        """Tables that a build may write: those of the last manifest; none before the first."""
        try:
            models = self.lake.manifest().models.values()
        except OpsError:
            return []
        return [f"{model.schema}.{model.storage}" for model in models if model.storage]

    def _on_dbt_event(self, event: Any) -> None:
        self.left_out["invocation"] = event.info.invocation_id
        self.lineage(event)
        if event.info.name in ("NodeStart", "NodeFinished") and not interrupts.seen():
            self.report("node", event)
        elif event.info.name == "LogStartLine":  # of each node that dbt prints
            self.report("nodes", event.data.total)

    def save(self) -> None:
        """Writes the record of the run so far."""
        record = {
            "command": self.command,
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "steps": [asdict(step) for step in self.steps],
            "waiting": self.waiting,
            "left_out": self.left_out,
            "unchanged_since": self.unchanged_since,
        }
        if self.unchanged_since and self.before:  # what was last done stays known however often there is nothing new
            record["last_done"] = self.before.get("last_done") or self.before
        save_run(self.lake, record)


class _Recorded:
    """Times a step and records how it ended."""

    def __init__(self, job: Job, name: str, resume: str) -> None:
        self.job, self.step = job, Step(name, resume=resume)

    def __enter__(self) -> Step:
        self.started = time.monotonic()
        self.job.steps.append(self.step)
        self.job.save()
        self.job.report("step", self.step)
        return self.step

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.step.seconds = round(time.monotonic() - self.started, 1)
        stopped = isinstance(error, KeyboardInterrupt)
        self.step.outcome = "interrupted" if stopped else "failed" if error else "ok"
        self.job.save()
        self.job.report("step", self.step)
        done = ", ".join(step.name for step in self.job.steps if step.outcome == "ok") or "nothing"
        after = f"Done before it: {done}. To go on: `{self.step.resume}`, then `lakeops run`."
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"{self.step.name} was interrupted; what it committed is kept. {after}", error) from error
        if isinstance(error, OpsError):
            raise type(error)(f"{self.step.name} failed: {error} {after}") from error


def run(lake: Lake, report: Report, always: bool = False) -> Job:
    """Extracts, ingests, builds, publishes, registers. With nothing to do, it starts no JVM and writes only its record.

    Whether there is something to do is decided after extraction. A source that fails does not stop the others. If its
    extraction failed, everything is built and published with the data that was delivered. If its ingestion failed or a
    batch is halted, the models that read it are left out, and everything else is built and published. In both cases the
    run fails at its end.

    Args:
        report: As in `Job`.
        always: Run although nothing has changed.

    Raises:
        OpsError: a step failed. The text says which, what was done before it, how to go on, and what was left out.
    """
    job = Job(lake, report)
    failures: list[OpsError] = []
    if lake.settings.extract:
        with _kept(failures):
            job.extract()
    if not always and (reason := reason_to_run(lake)) is None:
        for result in replaced(lake):
            report("ingest", result)
        job.unchanged_since = green_since(lake)
        job.save()
    else:
        report("reason", "--always" if always else reason)
        before = len(failures)
        with _kept(failures):
            job.ingest()
        if job.broken or len(failures) == before:
            with _kept(failures):
                job.build()
                job.publish()
                if lake.settings.catalog == "glue":
                    job.catalog()
                if not job.broken:
                    remember(lake)
    if failures:
        raise _together(failures, waits(job.waiting))
    return job


@contextmanager
def _kept(failures: list[OpsError]) -> Iterator[None]:
    """Keeps a failure for the run's end. Wrong configuration or an interruption ends the run at once."""
    try:
        yield
    except (ConfigError, Interrupted):
        raise
    except OpsError as exc:
        failures.append(exc)


def _all_of(errors: Iterable[OpsError | None]) -> OpsError:
    """What failed side by side in one step; busy where all are. Wrong configuration of a source ends no run."""
    failures = [error for error in errors if error]
    is_busy = all(isinstance(failure, BusyError) for failure in failures)
    return (BusyError if is_busy else OpsError)("; ".join(map(str, failures)))


def _together(failures: Sequence[OpsError], waiting: str) -> OpsError:
    """All failures as one error; a BusyError if all of them are."""
    told = [str(failure) for failure in failures]
    if waiting:
        told.append(f"Left out of the build and served as before: {waiting}. All else was built.")
    return together(failures, " ".join(told))


def aftermath(lake: Lake, say: Callable[[str], None], unchanged: bool = False) -> list[Breach]:
    """What follows a run, whether it failed or not: figures, service levels, alerts, verdicts on batches if the
    environment has them, the report.

    It never raises. A part that fails is printed as a warning, and the next ones go on.

    Args:
        say: Prints a line.
        unchanged: The run had nothing to do. Only service levels are checked, alerts sent, and what no receiver takes
            told, which starts no JVM.

    Returns:
        Service levels that are breached and that nobody has acknowledged.
    """
    breaches: list[Breach] = []

    def figures() -> None:
        record(lake, collect(lake))
        if lake.settings.metrics == "cloudwatch":
            push(lake)

    def levels() -> None:
        breaches.extend(check(lake))
        for warning in notify(lake, breaches, say):
            say(f"warning: {warning}")

    def verdicts() -> None:
        from python_ops.watch.quality import judge, judgeable

        for source in judgeable(lake, new=True) if lake.settings.quality else ():
            verdict = judge(lake, source)
            for finding in verdict.findings:
                say(f"warning: {source}, batch {verdict.batch_id}: {finding.expected} Found: {finding.found}.")

    def page() -> None:
        say(f"report  {write(gather(lake), lake.home / 'report.html')}")

    def undelivered() -> None:
        for text in (*refused.told(lake), waiting(lake)):
            if text:
                say(f"warning: {text}")

    parts = {
        "metrics push": figures, "sla check": levels, "ingest report": verdicts, "report": page, "doctor": undelivered,
    }  # fmt: skip
    for command in ["sla check", "doctor"] if unchanged else parts:
        try:
            parts[command]()
        except OpsError as exc:
            say(f"warning: {exc}")
        except Exception as exc:  # a client or a driver may raise anything, and the run is over
            say(f"warning: unexpected {type(exc).__name__}; `LAKEHOUSE_DEBUG=1 lakeops {command}` shows where.")
    return pressing(breaches)
