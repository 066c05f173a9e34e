"""Tags: named sets of table versions, one of each table at one moment, which maintenance keeps readable.

`jobs/maintenance/tagging.py` makes them and lets them go. Here is what every reader of a tag needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from python_ops.lake.deltalog import UnreadableLog, damage, read_version
from python_ops.lake.errors import ConfigError, OpsError, listed
from python_ops.lake.lake import Lake
from python_ops.lake.records import made
from python_ops.lake.storage import folder_at

KIND = "tag"
"""Kind of the records in the state store."""


@dataclass(frozen=True)
class Pin:
    """One table of a tag.

    Attributes:
        version: Version of the Delta table.
        table_id: Delta's identifier of the table at that version: another table of this name has another.
        layer: Schema without its prefix.
        name: Name of the table that holds the rows; `<model>__cdc` of a CDC model.
        rows: Rows of the version, hidden ones included; None where the log does not say.
    """

    version: int
    table_id: str
    layer: str
    name: str
    rows: int | None


@dataclass(frozen=True)
class Tag:
    """A named set of versions.

    Attributes:
        at: When they were pinned, ISO 8601, UTC.
        tables: By `schema.table`.
    """

    name: str
    at: str
    tables: Mapping[str, Pin]


def tags(lake: Lake) -> list[Tag]:
    """All tags, by name."""
    records = [(name, lake.store.get(KIND, name)) for name in lake.store.names(KIND)]
    return [made(Tag, {"name": name, **record.value}) for name, record in records if record]


def tag_named(lake: Lake, name: str) -> Tag:
    """One tag.

    Raises:
        ConfigError: there is no such tag.
    """
    known = {tag.name: tag for tag in tags(lake)}
    if name not in known:
        raise ConfigError(
            f"No such tag: {name}. Tags: {', '.join(known) or 'none yet'}. `lakeops table tag NAME` makes one."
        )
    return known[name]


def tagged_versions(lake: Lake, name: str) -> dict[str, int]:
    """The versions of a tag, by `schema.table`; all can be read.

    Raises:
        ConfigError: there is no such tag.
        OpsError: a version is gone.
    """
    tag = tag_named(lake, name)
    if gone := [f"version {tag.tables[t].version} of {t} is gone ({why})" for t, why in lost(lake, tag).items()]:
        raise OpsError(
            f"Tag {name}: {listed(gone, 1)}. A snapshot from before may have it (docs/runbooks/dr_restore.md); "
            f"`lakeops table untag {name}` lets the rest go."
        )
    return {table: pin.version for table, pin in tag.tables.items()}


def lost(lake: Lake, tag: Tag) -> dict[str, str]:
    """Tables of a tag whose version cannot be read any more, and why. Starts no JVM."""
    found = {}
    for table, pin in tag.tables.items():
        folder = folder_at(lake.table_path(pin.layer, pin.name))
        try:
            told = read_version(folder, pin.version)
            lacking = damage(folder, told, content=False)
            if told.table_id != pin.table_id:
                lacking = ["another table has its name"]
        except UnreadableLog as exc:
            lacking = [str(exc).split(". ", 1)[0]]
        if lacking:
            found[table] = lacking[0]
    return found
