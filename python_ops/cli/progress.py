"""What a run looks like: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.markup import escape

from python_ops.cli.extract import line as extract_line
from python_ops.cli.ingest import line as ingest_line
from python_ops.cli.live import Live, row
from python_ops.cli.publish import line as publish_line
from python_ops.jobs.build import in_short
from python_ops.jobs.publish import Action
from python_ops.run.daily import Step


class Progress(Live):
    """Prints what a `Job` reports. Bad nodes and changed models get a line each; the rest is counted."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet)
        self.warned: set[tuple[str, str]] = set()

    def __call__(self, what: str, value: Any) -> None:
        """Takes one report of a `Job`."""
        getattr(self, f"_{what}")(value)

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(escape(text), style=style, soft_wrap=True)

    def _step(self, step: Step) -> None:
        if step.outcome == "running":
            self.begin(step.name)
            return
        counts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in step.summary.items())
        style = "green" if step.outcome == "ok" else "red"
        self._say(row(step.outcome, step.name, f"{counts or 'done'} ({step.seconds:.1f} s)"), style)

    def _reason(self, text: str) -> None:
        self._say(f"run     because: {text}")

    def _waiting(self, text: str) -> None:
        self._say(f"waits   {text}", "red")

    def _delivery(self, delivered: tuple[int, int]) -> None:
        batch, files = delivered
        self._say(f"deliver batch {batch}: {files} files" + ("" if files else " (all there already)"), "bold")

    def _starts(self, name: str) -> None:
        self.start(name)

    def _unsaid(self, result: Any) -> Any:
        """The result without the warnings that this command has printed of its source."""
        new = [warning for warning in result.warnings if (result.source, warning) not in self.warned]
        self.warned |= {(result.source, warning) for warning in new}
        return replace(result, warnings=tuple(new))

    def _extract(self, result: Any) -> None:
        self.end(result.source)
        result = self._unsaid(result)
        if result.files or result.error or result.warnings:
            self._say(extract_line(result), "red" if result.error else None)

    def _ingest(self, result: Any) -> None:
        self.end(result.source)
        result = self._unsaid(result)
        if result.batch_id is not None or result.error or result.warnings:
            self._say(ingest_line(result), "red" if result.error else None)

    def _node(self, event: Any) -> None:
        info = event.data.node_info
        if event.info.name == "NodeStart":
            self.start(info.node_name)
            return
        self.end(info.node_name)
        result = event.data.run_result
        bad = info.node_status in ("error", "fail", "runtime error", "warn")
        if bad:
            self._say(row(info.node_status.split()[-1], info.node_name, in_short(result.message)), "red")
        elif info.resource_type == "model" and info.materialized == "incremental":
            message = result.message.split(" [", 1)[0]
            self._say(row("model", info.node_name, f"{message} ({result.execution_time:.1f} s)"))

    def _nodes(self, total: int) -> None:
        self.of(total)

    def _publish(self, result: Any) -> None:
        if result.action is Action.STAGED:
            self.end(result.table)
        else:
            self._say(publish_line(result))
