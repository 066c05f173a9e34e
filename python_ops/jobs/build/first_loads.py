"""First loads that were killed: what they leave under the warehouse, in the way of the next.

A first load makes a table's folder, then its log's first commit, then the metastore's entry. Killed in between, the
folder stays, and Delta makes no table in a folder that is not empty.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from python_ops.lake.files import names
from python_ops.lake.home import tables
from python_ops.lake.lake import Lake
from python_ops.lake.storage import move


def set_aside(lake: Lake) -> list[str]:
    """Moves the folders out of the warehouse that such loads left, and says of each what was done.

    Nothing is removed, and nothing is moved that holds a row of a table: a folder counts that the metastore does not
    know, and whose log has no commit, or one that adds no file.
    """
    told = []
    own = {lake.schema_name(layer) for layer in ("silver", "gold")}
    for schema, _, folder in tables(lake.settings):
        if schema not in own or not _holds_nothing(folder / "_delta_log"):
            continue
        if lake.spark.catalog.tableExists(f"{schema}.{folder.name}"):
            continue
        place = lake.state / "unfinished" / f"{schema}.{folder.name}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        move(folder, place)
        told.append(
            f"{schema}.{folder.name}: a first load was killed before the table was there. What it left was moved to "
            f"{place}, which may be removed; the table is made anew."
        )
    return told


def _holds_nothing(log: Path) -> bool:
    """Whether no version of the table has a row. Any checkpoint or later commit says that it may."""
    entries = names(log)
    commits = [name for name in entries if name[:20].isdigit() and not name.endswith(".crc")]
    if not commits:
        return "_last_checkpoint" not in entries
    if commits != [f"{0:020}.json"]:
        return False
    return not any(line.startswith('{"add":') for line in (log / commits[0]).read_text(encoding="utf-8").split("\n"))
