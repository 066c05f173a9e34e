"""What a check of `lakeops doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """`fail`: the lakehouse does not work like this. `warn`: it works, but look at this."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was found, and what to do about it (empty if all is well)."""

    name: str
    outcome: Outcome
    found: str
    fix: str = ""
