"""What a run looks like: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from python_ops.cli.extract import line as extract_line
from python_ops.cli.ingest import line as ingest_line
from python_ops.jobs.publish import Action
from python_ops.run.daily import Step


class Progress:
    """Prints what a `Job` reports. Bad nodes and changed models get a line each; the rest is counted.

    Args:
        quiet: Print nothing (for `--json`).
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self.status: Status | None = None
        self.started = time.monotonic()
        self.done = 0

    def __enter__(self) -> Progress:
        if self.live:
            self.status = self.console.status("starting")
            self.status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status:
            self.status.stop()

    def __call__(self, what: str, value: Any) -> None:
        """Takes one report of a `Job`."""
        getattr(self, f"_{what}")(value)

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(escape(text), style=style, soft_wrap=True)

    def _now(self, text: str) -> None:
        if self.status:
            self.status.update(escape(f"{text}  ({time.monotonic() - self.started:.0f} s)"))

    def _step(self, step: Step) -> None:
        if step.outcome == "running":
            self.done = 0
            self._now(step.name)
            return
        counts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in step.summary.items())
        style = "green" if step.outcome == "ok" else "red"
        self._say(f"{step.outcome:<7} {step.name}: {counts or 'done'} ({step.seconds:.1f} s)", style)

    def _reason(self, text: str) -> None:
        self._say(f"run     because: {text}")

    def _waiting(self, text: str) -> None:
        self._say(f"waits   {text}", "red")

    def _delivery(self, delivered: tuple[int, int]) -> None:
        batch, files = delivered
        self._say(f"deliver batch {batch}: {files} files" + ("" if files else " (all there already)"), "bold")

    def _extract(self, result: Any) -> None:
        self._now(f"extract {result.source}")
        if result.files or result.error or result.warnings:
            self._say(extract_line(result), "red" if result.error else None)

    def _ingest(self, result: Any) -> None:
        self._now(f"ingest {result.source}")
        if result.batch_id is not None or result.error or result.warnings:
            self._say(ingest_line(result), "red" if result.error else None)

    def _node(self, event: Any) -> None:
        info = event.data.node_info
        if event.info.name == "NodeStart":
            self._now(f"dbt build: {self.done} done, now {info.resource_type} {info.node_name}")
            return
        self.done += 1
        result = event.data.run_result
        bad = info.node_status in ("error", "fail", "runtime error", "warn")
        if bad:
            self._say(f"{info.node_status:<7} {info.resource_type} {info.node_name}: {result.message.strip()}", "red")
        elif info.resource_type == "model" and info.materialized == "incremental":
            message = result.message.split(" [", 1)[0]
            self._say(f"model   {info.node_name:<27} {message} ({result.execution_time:.1f} s)")

    def _publish(self, result: Any) -> None:
        self._now(f"publish {result.table}")
        if result.action is not Action.STAGED:
            self._say(
                f"publish {result.table:<27} {result.target} {result.action}: {result.rows} rows, "
                f"{result.sent} sent, Delta version {result.version}"
            )
