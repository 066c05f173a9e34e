"""Why records were rejected: a kind for programs beside the words for people, in ledgers and dead-letter tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of reasons.

    `record`: it is not one whole record of this source. `event`: what the source says of the change is missing or
    wrong. `missing`: a required value is not there. `type`: a value is not of the contract's type. `base64`: likewise,
    and it looks like a decimal as Debezium writes it by default. `range`: a day outside of what the contract takes.
    `layout`: the contract does not know the record's version. `file`: the file as a whole was rejected.
    """

    RECORD = "record"
    EVENT = "event"
    MISSING = "missing"
    TYPE = "type"
    BASE64 = "base64"
    RANGE = "range"
    LAYOUT = "layout"
    FILE = "file"


MISTYPED = (Kind.TYPE, Kind.BASE64)


@dataclass(frozen=True)
class Rejection:
    """Rejected records of a batch that have one reason.

    Attributes:
        reason: In words.
        column: That it is about, if one.
    """

    kind: Kind
    reason: str
    column: str | None
    records: int

    @property
    def text(self) -> str:
        """Reason and column, for people."""
        return f"{self.reason} ({self.column})" if self.column else self.reason


def by_text(rejections: Iterable[Rejection]) -> dict[str, int]:
    """Records by reason and column in words."""
    found: dict[str, int] = {}
    for each in rejections:
        found[each.text] = found.get(each.text, 0) + each.records
    return found


def from_texts(reasons: Mapping[str, int]) -> tuple[Rejection, ...]:
    """Rejections of a ledger from before 2026-11-28, which has the words alone."""
    found = []
    for text, records in reasons.items():
        parts = re.fullmatch(r"(?P<reason>.+) \((?P<column>\w+)\)", text)
        reason, column = (parts["reason"], parts["column"]) if parts else (text, None)
        found.append(Rejection(kind_of(reason), reason, column, records))
    return tuple(found)


def kind_of(reason: str) -> Kind:
    """The kind of a reason that was written without it: into a ledger or a dead letter, before 2026-11-28."""
    return next((kind for pattern, kind in _WORDS if re.match(pattern, reason)), Kind.RECORD)


_WORDS = (
    ("not a .*base64", Kind.BASE64),
    ("not a commit time|no commit time|unknown operation|event of another table|no log position|no row |no value ",
     Kind.EVENT),
    ("not a ", Kind.TYPE),
    ("a required |the key ", Kind.MISSING),
    ("(before|after) [0-9]", Kind.RANGE),
    ("unknown layout version", Kind.LAYOUT),
)  # fmt: skip
