"""What an alert says, as plain text and in Slack's Block Kit: the cause first, what it affects, owner, next action."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import accumulate, compress
from typing import Any

from python_ops.watch.alerts import Breach

_SHOWN = 8  # breaches that a message names
_NAMED = 5  # tables that one breach names
# Of Block Kit (https://docs.slack.dev/reference/block-kit/blocks): characters of a header and of a section.
_HEADER, _SECTION = 150, 3000
_PART = 600  # characters of a sentence, of an owner and so on, as Slack counts them
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Message:
    """The message about one run: first what is new, with its cause; the rest by name.

    Args:
        environment: Its name.
        breaches: Open ones, causes first; none: everything is well again.
        recovered: Identities of breaches that are gone since the last message.
        opens: Nothing was open before it, so it begins a conversation.
        runbooks: Base address of the runbooks; their paths are shown where there is none.
        new: Identities of breaches that were not told before; all of them when None.
        at: When it is said; not shown when None.
        report: Address of the report; not shown when empty.
    """

    def __init__(
        self,
        environment: str,
        breaches: Sequence[Breach],
        recovered: Sequence[str] = (),
        opens: bool = True,
        runbooks: str = "",
        new: Collection[str] | None = None,
        at: datetime | None = None,
        report: str = "",
    ) -> None:
        is_new = [new is None or breach.identity in new for breach in breaches]
        self.is_news = any(is_new)
        # What is new comes first, and within it the cause of the others, as `breaches` has them.
        self.breaches = [*compress(breaches, is_new), *compress(breaches, (not n for n in is_new))]
        self.environment, self.recovered = environment, list(recovered)
        self.opens, self.runbooks, self.at, self.report = opens, runbooks.rstrip("/"), at, report

    @property
    def title(self) -> str:
        """One line: what is new, its cause first."""
        if not self.breaches:
            return f"Lakehouse {self.environment}: recovered"
        first, more = self.breaches[0], len(self.breaches) - 1
        still = "" if self.is_news else "still open: "
        return f"Lakehouse {self.environment}: {still}{_cut(first.subject, 80)} {first.kind.value}" + (
            f", and {more} more" if more else ""
        )

    @property
    def severity(self) -> str:
        """The worst of what is open; `recovered` where nothing is."""
        return min((breach.severity for breach in self.breaches), default="recovered")  # error before warning

    def text(self) -> str:
        """The message in plain text."""
        lines = [self.title, *([self._circumstances()] if self.at else [])]
        for breach in self.breaches[:_SHOWN]:
            lines.append(f"- {breach.sentence}")
            lines += [f"  {affects(breach)}"] if breach.affects or breach.readers else []
            lines.append(f"  Owner: {breach.owner}. Next: {breach.next_action}. Runbook: {self._runbook(breach)}")
        if len(self.breaches) > _SHOWN:
            lines.append(f"- and {len(self.breaches) - _SHOWN} more: `lakeops sla check` lists them")
        lines += [f"- recovered: {identity}" for identity in self.recovered[:_SHOWN]]
        if len(self.recovered) > _SHOWN:
            lines.append(f"- recovered: and {len(self.recovered) - _SHOWN} more")
        return "\n".join(lines)

    def blocks(self) -> list[dict[str, Any]]:
        """The message in Slack's Block Kit: a header, the first cause in full, the others by name, recoveries apart."""
        title = {"type": "plain_text", "text": _cut(self.title, _HEADER), "emoji": False}
        shown: list[dict[str, Any]] = [{"type": "header", "text": title}]
        for breach in self.breaches[:1]:
            told = [escaped(breach.sentence)]
            told += [escaped(affects(breach))] if breach.affects or breach.readers else []
            told.append(f"Owner: {escaped(breach.owner)} · Next: {escaped(breach.next_action)} · {self._link(breach)}")
            shown.append(_section("\n".join(told)))
        if others := self.breaches[1:]:
            names = [f"• {escaped(b.subject)}: {b.kind.value} ({escaped(b.owner)})" for b in others]
            shown.append(_section(_fitting("Also open:", names, _SHOWN - 1, ": `lakeops sla check` lists them")))
        if self.recovered:
            names = [f"• {escaped(identity)}" for identity in self.recovered]
            shown.append(_section(_fitting("Recovered:", names, _SHOWN)))
        told = [self._circumstances(with_report=False)]
        told += [f"<{self.report}|report>"] if self.report else []
        return [*shown, {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(filter(None, told))}]}]

    def _circumstances(self, with_report: bool = True) -> str:
        parts = [self.severity, f"{self.at:%Y-%m-%d %H:%M} UTC" if self.at else "", self.report if with_report else ""]
        return " · ".join(part for part in parts if part)

    def _runbook(self, breach: Breach) -> str:
        return f"{self.runbooks}/{breach.runbook}" if self.runbooks else breach.runbook

    def _link(self, breach: Breach) -> str:
        return f"<{self._runbook(breach)}|runbook>" if self.runbooks else escaped(breach.runbook)


def affects(breach: Breach) -> str:
    """What a breach reaches, in a sentence or two; empty where it reaches nothing."""
    told = f"Affects {_listed(breach.affects)}." if breach.affects else ""
    return (
        f"{told} {'Read' if told else 'It is read'} by {_listed(breach.readers)}.".strip() if breach.readers else told
    )


def escaped(text: str) -> str:
    """Text for Slack, cut: `<!channel>` in a name must not call anybody (Slack's formatting rules: &, <, > alone)."""
    told = [_ESCAPES.get(letter, letter) for letter in text]
    ends = list(accumulate(map(len, told)))
    return "".join(told) if not ends or ends[-1] <= _PART else "".join(told[: bisect(ends, _PART - 1)]) + "…"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _fitting(head: str, lines: Sequence[str], most: int, where: str = "") -> str:
    """The lines below a head, as many as a section takes and at most so many; the rest is counted."""
    told, length = [head], len(head) + 80  # the last line's own length
    for line in lines[:most]:
        length += len(line) + 1
        if length > _SECTION:
            break
        told.append(line)
    more = len(lines) - len(told) + 1
    return "\n".join([*told, f"and {more} more{where}"] if more else told)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}
