"""Complete snapshots: files that hold every living row of a source, so that the keys they lack are deleted.

A file is one when the contract says `complete: true`, or when `<file>.snapshot` lies beside it: an empty file, or JSON
with `files`, all parts of one snapshot (they are taken together, once all are there), and `taken_at`, the time at which
the source was as they say (ISO 8601 with zone; the arrival of the batch where it is not given).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.lake.contracts import Contract
from python_ops.lake.errors import OpsError
from python_ops.lake.landing import SNAPSHOT

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ORDER = (
    "struct(_source_generation, coalesce(_source_lsn, -1), coalesce(_source_position, -1), _batch_id, _file, _line)"
)


@dataclass(frozen=True)
class Delivery:
    """Files that make one batch.

    Attributes:
        names: In the order of reading.
        is_snapshot: They are a complete snapshot.
        taken_at: The time of the snapshot, if it is given.
    """

    names: tuple[str, ...]
    is_snapshot: bool = False
    taken_at: str | None = None


def deliveries(folder: Path, names: Sequence[str], contract: Contract) -> tuple[list[Delivery], list[str]]:
    """New files as batches: each snapshot is one, and all files between two snapshots are one.

    Returns:
        Deliveries in name order, and warnings about snapshots whose parts are not all there.

    Raises:
        OpsError: a `.snapshot` file is not what it should be.
    """
    marks = {name: _mark(folder / f"{name}{SNAPSHOT}", name) for name in names}
    parts = {part for mark in marks.values() if mark for part in mark.names}
    found: list[Delivery] = []
    warnings = []
    plain: list[str] = []
    for name in names:
        mark = marks[name] or (Delivery((name,), True) if contract.complete and name not in parts else None)
        if mark is None:
            if name not in parts:
                plain.append(name)
            continue
        if missing := sorted(set(mark.names) - set(names)):
            warnings.append(f"{folder / name} waits for the other parts of its snapshot: {', '.join(missing)}.")
            continue
        if plain:
            found.append(Delivery(tuple(plain)))
            plain = []
        found.append(mark)
    return ([*found, Delivery(tuple(plain))] if plain else found), warnings


def _mark(path: Path, name: str) -> Delivery | None:
    if not path.exists():
        return None
    try:
        if path.is_symlink():
            raise ValueError("it is a link, and links are not followed")
        data: Any = json.loads(path.read_text(encoding="utf-8").strip() or "{}")
        taken_at = data.get("taken_at")
        if taken_at is not None:
            moment = datetime.fromisoformat(taken_at)
            if moment.tzinfo is None:
                raise ValueError("taken_at has no time zone")
            taken_at = moment.astimezone(UTC).isoformat(timespec="microseconds")
        return Delivery(tuple(sorted({name, *map(str, data.get("files", ()))})), True, taken_at)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as exc:
        raise OpsError(
            f"{path} is not a snapshot's mark ({exc}). Leave it empty, or give JSON with `files` and `taken_at`."
        ) from exc


def living_keys(spark: SparkSession, bronze: str, contract: Contract, before: int) -> DataFrame:
    """Keys whose latest change in the batches before one is not a delete and lies after the latest truncate."""
    keys = ", ".join(f"`{name}`" for name in contract.key)
    return spark.sql(
        f"with known as (select {keys}, _op, {_ORDER} as _at from {bronze} where _batch_id < {before}),"
        " emptied as (select max(_at) as _at from known where _op = 't'),"
        f" latest as (select {keys}, max(_at) as _at, max_by(_op, _at) as _last from known where _op <> 't'"
        f" group by {keys}) select {keys} from latest cross join emptied"
        " where _last <> 'd' and (emptied._at is null or latest._at > emptied._at)"
    )


def missing_keys(living: DataFrame, contract: Contract, rows: DataFrame) -> DataFrame:
    """Living keys that a snapshot's accepted rows lack."""
    held = rows.where("_kind = 'event' and _op not in ('d', 't')").select(*contract.key).distinct()
    return living.join(held, list(contract.key), "left_anti")


def deleted_keys(living: DataFrame, contract: Contract, rows: DataFrame) -> DataFrame:
    """Living keys whose last change in a batch is a delete, or all when it truncates."""
    events = rows.where("_kind = 'event'")
    if not events.where("_op = 't'").isEmpty():
        return living
    from pyspark.sql.functions import expr

    last = expr("max_by(_op, struct(_source_lsn, _source_position, _file, _line))").alias("_last")
    gone = events.groupBy(*contract.key).agg(last).where("_last = 'd'").select(*contract.key)
    return living.join(gone, list(contract.key), "left_semi")
