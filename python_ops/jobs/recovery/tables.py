"""Which tables are copied: every bronze and dead-letter table, and every model's storage table, by `meta` `dr_tier`.

Tiers say what a loss would cost: 1 cannot be had again, 2 is derived and slow to derive again, 3 is derived. `snapshot
create --tier 1` copies the first alone; without it, all are copied. 0 is never copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from python_ops.lake.artifacts import Manifest
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset
from python_ops.lake.storage import Folder, folder_at

TIERS = (1, 2, 3)


@dataclass(frozen=True)
class Table:
    """A Delta table of the environment.

    Attributes:
        layer: Schema without its prefix.
    """

    layer: str
    table: str
    folder: Folder

    @property
    def name(self) -> str:
        """Layer and table."""
        return f"{self.layer}.{self.table}"


def dataset(lake: Lake, layer: str, table: str, rows: int | None, size: int | None = None) -> Dataset:
    """A table in the lineage."""
    uri = lake.table_path(layer, table).as_uri()
    return Dataset(f"{lake.schema_name(layer)}.{table}", uri, rows=rows, bytes=size)


def tables_to_copy(lake: Lake, manifest: Manifest, tier: int = TIERS[-1]) -> list[Table]:
    """Tables of the environment up to a tier, by name, whether they exist or not.

    Raises:
        ConfigError: a `dr_tier` is not one.
    """
    found = [(layer, table, _tier(meta, where)) for layer, table, meta, where in lake.delta_tables(manifest)]
    return [
        Table(layer, table, folder_at(lake.table_path(layer, table)))
        for layer, table, rank in sorted(found)
        if 0 < rank <= tier
    ]


def _tier(meta: Mapping[str, Any], where: str) -> int:
    tier = meta.get("dr_tier", 1)
    if isinstance(tier, bool) or tier not in (0, *TIERS):
        raise ConfigError(f"{where}: meta dr_tier must be 0, 1, 2 or 3, not {tier!r}.")
    return int(tier)
