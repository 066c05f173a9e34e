"""What changed between two versions of a contract, and which part of the version number it must raise.

major: a reader that relied on the old contract may fail. minor: it sees something new. patch: only words changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import IntEnum
from typing import Any

from python_ops.lake.contracts import Column, Contract


class Level(IntEnum):
    """Part of a version number, by weight."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        level: What it must raise.
        where: `column <name>` or a field of the contract.
        text: What changed, old before new.
    """

    level: Level
    where: str
    text: str


# What a changed field raises; one that is not named here raises the minor number, so that none goes unseen.
_LEVELS = {
    "format": Level.MAJOR, "table": Level.MAJOR, "timestamp_column": Level.MAJOR, "complete": Level.MAJOR,
    "source_name": Level.MAJOR,
    "csv_no_sup_value": Level.MAJOR, "before_image_prefix": Level.MAJOR,
    "description": Level.PATCH, "owner": Level.PATCH,
}  # fmt: skip


def changes(old: Contract, new: Contract) -> list[Change]:
    """Differences between two versions, the heaviest first; the version number itself is none."""
    found = [*_fields(old, new), *_columns(old, new)]
    return sorted(found, key=lambda change: (-change.level, change.where, change.text))


def raised(old: str, new: str) -> Level:
    """The part of the version number that was raised; NONE when `new` is not higher."""
    before, after = _numbers(old), _numbers(new)
    if after <= before:
        return Level.NONE
    first = next(place for place in range(3) if before[place] != after[place])
    return (Level.MAJOR, Level.MINOR, Level.PATCH)[first]


def next_version(version: str, level: Level) -> str:
    """The lowest version number that raises this part."""
    major, minor, patch = _numbers(version)
    return {
        Level.NONE: version,
        Level.PATCH: f"{major}.{minor}.{patch + 1}",
        Level.MINOR: f"{major}.{minor + 1}.0",
        Level.MAJOR: f"{major + 1}.0.0",
    }[level]


def version_order(version: str) -> tuple[int, ...]:
    """Sorts versions by number, not by text."""
    return _numbers(version)


def widens(old: Column, new: Column) -> bool:
    """Whether every value of the old type is one of the new type: int to bigint, or a decimal that grows on both sides
    of its point.
    """
    if (old.type, new.type) == ("int", "bigint"):
        return True
    before, after = old.precision_and_scale, new.precision_and_scale
    if before is None or after is None or before == after:
        return False
    return after[1] >= before[1] and after[0] - after[1] >= before[0] - before[1]


def _fields(old: Contract, new: Contract) -> Iterator[Change]:
    if old.key != new.key:
        yield Change(Level.MAJOR, "key", f"{', '.join(old.key)} → {', '.join(new.key)}")
    for name in (field.name for field in fields(Contract)):
        if name not in ("source", "version", "key", "columns"):
            # Naming the one schema that was taken so far changes nothing for a reader.
            level = Level.MAJOR if name == "schema" and old.schema else _LEVELS.get(name, Level.MINOR)
            yield from _compared(level, name, name, getattr(old, name), getattr(new, name))


def _columns(old: Contract, new: Contract) -> Iterator[Change]:
    before = {column.name: column for column in old.columns}
    after = {column.name: column for column in new.columns}
    added = [column for column in new.columns if column.name not in before]
    for column in old.columns:
        if column.name not in after:
            heir = next((c for c in added if (c.type, c.description) == (column.type, column.description)), None)
            renamed = f" (renamed to {heir.name}?)" if heir else ""
            yield Change(Level.MAJOR, f"column {column.name}", f"removed{renamed}")
        else:
            yield from _column(column, after[column.name])
    for column in added:
        level = Level.MAJOR if column.required else Level.MINOR
        kind = "required" if column.required else "optional"
        yield Change(level, f"column {column.name}", f"added, {kind} {column.type}")
    kept = [name for name in before if name in after]
    if old.format == new.format == "csv" and kept != [name for name in after if name in before]:
        yield Change(Level.MAJOR, "columns", "in another order, which is the order of the csv header")


def _column(old: Column, new: Column) -> Iterator[Change]:
    where = f"column {old.name}"
    if old.type != new.type:
        wider = widens(old, new)
        level, kind = (Level.MINOR, "widened") if wider else (Level.MAJOR, "not a widening")
        yield Change(level, where, f"type {old.type} → {new.type}, {kind}")
    if old.required != new.required:
        level, text = (Level.MAJOR, "optional → required") if new.required else (Level.MINOR, "required → optional")
        yield Change(level, where, text)
    if not set(old.accepts) <= set(new.accepts):
        yield Change(Level.MAJOR, where, f"accepts {_listed(old.accepts)} → {_listed(new.accepts)}")
    elif old.accepts != new.accepts:
        yield Change(Level.MINOR, where, f"accepts {_listed(old.accepts)} → {_listed(new.accepts)}")
    for name, tightens in (("earliest", (new.earliest or "") > (old.earliest or "")),
                           ("latest", (new.latest or "9999-12-31") < (old.latest or "9999-12-31"))):  # fmt: skip
        level = Level.MAJOR if tightens else Level.MINOR
        yield from _compared(level, where, name, getattr(old, name), getattr(new, name))
    for name in (field.name for field in fields(Column)):
        if name not in ("name", "type", "required", "accepts", "earliest", "latest"):
            yield from _compared(_LEVELS.get(name, Level.MINOR), where, name, getattr(old, name), getattr(new, name))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing more"


def _compared(level: Level, where: str, name: str, old: Any, new: Any) -> Iterator[Change]:
    if old != new:
        text = f"{_shown(old)} → {_shown(new)}"
        yield Change(level, where, text if where == name else f"{name} {text}")


def _shown(value: Any) -> str:
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    if isinstance(plain, dict):
        plain = {name: item for name, item in plain.items() if item not in (None, {}, ())}
    return repr(plain)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
