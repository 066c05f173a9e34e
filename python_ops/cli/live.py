"""What a command that takes long shows: on a terminal one moving line, elsewhere a plain line for each event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_NAMED = 4  # of what runs side by side


def row(verb: str, subject: str, text: str) -> str:
    """A line for one event: what was done, to what, and the rest, each below the one of the line before."""
    return f"{verb:<7} {subject:<29} {text}"


class Live:
    """The moving line: the step, how many of its parts are done, what runs now, and for how long.

    Args:
        quiet: Show nothing (for `--json`).
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self.started = time.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        hidden = quiet or not self.console.is_terminal
        self._bar = Progress(*columns, console=self.console, transient=True, disable=hidden)
        self._running: dict[str, None] = {}
        self.begin("starting")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self.started

    def begin(self, step: str, total: int | None = None) -> None:
        """A step begins, of so many parts where that is known."""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._now, self._total, self._done = step, total, 0
        self._running.clear()
        self._task = self._bar.add_task(step)

    def of(self, total: int) -> None:
        """The step's parts are counted now."""
        self._total = total

    def start(self, part: str) -> None:
        """A part begins; several may run side by side."""
        self._running[part] = None
        self._show()

    def end(self, part: str) -> None:
        """A part is done."""
        self._running.pop(part, None)
        self._done += 1
        self._show()

    def count(self, done: int, total: int, told: str) -> None:
        """So many parts are done, without names."""
        self._done, self._total = done, total
        self._show(told)

    def _show(self, told: str = "") -> None:
        counted = f"{self._done} of {self._total} done" if self._total else f"{self._done} done"
        now = f"now {_listed(list(self._running))}" if self._running else ""
        self._bar.update(self._task, description=", ".join(filter(None, (f"{self._now}: {counted}", told, now))))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
