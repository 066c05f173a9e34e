"""The rows of one batch: projected, counted in one pass, and shaped for bronze and for the dead-letter table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from python_ops.jobs.ingest.batch_checks import Findings
from python_ops.jobs.ingest.formats import format_of
from python_ops.jobs.ingest.formats.values import NORMALISATIONS
from python_ops.jobs.ingest.projection import project
from python_ops.jobs.ingest.reading import Records
from python_ops.jobs.ingest.suppression import Suppression
from python_ops.lake.contracts import Contract
from python_ops.lake.contracts.metadata import METADATA
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import Batch
from python_ops.lake.rejections import Kind, Rejection
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def rows_of(
    records: Sequence[Records], contract: Contract, manifest: Batch, kept_out: Suppression | None = None
) -> DataFrame | None:
    """Records of a batch as `project` gives them; None when there are none. `stamped` adds the batch's own columns."""
    frames = [_rows(part, contract, manifest) for part in records]
    rows = reduce(lambda one, other: one.unionByName(other), frames) if frames else None
    return rows if rows is None or kept_out is None else kept_out.apply(rows)


def _rows(records: Records, contract: Contract, manifest: Batch) -> DataFrame:
    projected = project(records.lines, contract, records.layout, records.is_wrapped, records.delimiter)
    is_plain_snapshot = manifest.snapshot_at is not None and not format_of(contract).has_changes
    special = {
        "_source_generation": f"{records.generation} as _source_generation",
        # The rows are cached: what was delivered is of use of the rejected ones alone.
        "_raw": "case when _kind in ('rejected', 'unknown') then _raw end as _raw",
    }
    if is_plain_snapshot:
        special["_op"] = "'r' as _op"
    if manifest.snapshot_at is not None:
        special["_source_ts"] = f"coalesce(_source_ts, timestamp '{manifest.snapshot_at}') as _source_ts"
    return projected.selectExpr(
        *[special.get(name, f"`{name}`") for name in projected.columns], f"{str(records.again).lower()} as _again"
    )


def stamped(rows: DataFrame, manifest: Batch) -> DataFrame:
    """Rows with what is one value for the whole batch, which a cache would keep for each of them."""
    return rows.selectExpr(
        "*",
        f"'{manifest.contract_version}' as _contract_version",
        f"timestamp '{manifest.arrived_at}' as _arrived_at",
        f"cast({manifest.batch_id} as bigint) as _batch_id",
    )


def compute(rows: DataFrame | None) -> None:
    """Computes every value and keeps none, to see whether the rows can be read. `find` is for cached rows: of others,
    Spark would put its conditions into the projection, which then takes minutes to plan (Spark 4.1).
    """
    if rows is not None:
        rows.write.format("noop").mode("overwrite").save()


def find(rows: DataFrame | None) -> Findings:
    """Counts a batch of cached rows. Dead letters that are rejected again stay where they are and count as ignored.
    So do records of people who were erased, which are counted by themselves too.
    """
    counts = {"read": 0, "accepted": 0, "quarantined": 0, "ignored": 0, "generated": 0}
    if rows is None:
        return Findings(counts)
    bad = "_kind in ('rejected', 'unknown')"
    total = rows.selectExpr(
        "count(*) as read",
        "count_if(_kind = 'event') as accepted",
        f"count_if({bad} and not _again) as quarantined",
        f"count_if(_kind in ('ignored', 'suppressed') or {bad} and _again) as ignored",
        "count_if(_kind = 'suppressed') as suppressed",
        "array_sort(array_distinct(flatten(collect_set("
        "case when _kind = 'event' then json_object_keys(_extra) end)))) as extra",
        "array_sort(collect_set(case when _kind = 'unknown' then _unknown_version end)) as unknown",
        "array_sort(collect_set(case when _kind = 'event' then _origin end)) as origins",
        "min(case when _kind = 'event' then _source_lsn end) as low",
        "max(case when _kind = 'event' then _source_lsn end) as high",
        "count_if(_kind = 'event' and size(_changes) > 0) as changed",
    ).collect()[0]
    counts |= {name: int(total[name]) for name in ("read", "accepted", "quarantined", "ignored")}
    counts |= {"suppressed": int(total["suppressed"])} if total["suppressed"] else {}
    rejected: tuple[Rejection, ...] = ()
    if counts["quarantined"]:
        told = rows.where(f"{bad} and not _again").groupBy("_reason_kind", "_reason", "_column").count().collect()
        rejected = tuple(Rejection(Kind(kind), reason, column, int(count)) for kind, reason, column, count in told)
    changes: dict[str, int] = {}
    if total["changed"]:
        names = rows.where("_kind = 'event'").selectExpr("explode(array_distinct(_changes)) as name")
        changes = {row["name"]: int(row["count"]) for row in names.groupBy("name").count().collect()}
    return Findings(
        counts,
        rejected,
        {name: changes[name] for name in NORMALISATIONS if name in changes},
        tuple(total["extra"]),
        tuple(total["unknown"]),
        None if total["low"] is None else (int(total["low"]), int(total["high"])),
        origins=tuple(total["origins"]),
    )


def dead_letters(
    spark: SparkSession, manifest: Batch, rows: DataFrame | None, files: Sequence[LandingFile]
) -> DataFrame | None:
    """Rejected records and files, as the dead-letter table has them."""
    dead = None
    if rows is not None:
        bad = rows.where("_kind in ('rejected', 'unknown') and not _again")
        dead = stamped(bad, manifest).selectExpr(
            "_batch_id", "_file as file", "_line as line", "_raw as raw", "_reason_kind as kind", "_reason as reason",
            "_column as column", "_contract_version as contract_version", "_arrived_at as arrived_at",
        )  # fmt: skip
    if files:
        faults: list[dict[str, Any]] = [{"file": file.name, "reason": file.fault} for file in files]
        whole = spark.createDataFrame(faults, "file string, reason string").selectExpr(
            f"cast({manifest.batch_id} as bigint) as _batch_id", "file", "cast(null as bigint) as line",
            "cast(null as string) as raw", f"'{Kind.FILE}' as kind", "reason", "cast(null as string) as column",
            f"'{manifest.contract_version}' as contract_version",
            f"timestamp '{manifest.arrived_at}' as arrived_at",
        )  # fmt: skip
        dead = whole if dead is None else dead.unionByName(whole)
    return dead


def implied_deletes(
    missing: DataFrame, contract: Contract, manifest: Batch, positions: tuple[int, int] | None
) -> DataFrame:
    """Deletes of the keys that a complete snapshot lacks, at the snapshot's own position."""
    given = {
        "_op": "'d'",
        "_source_generation": str(manifest.generation),
        "_source_lsn": str(positions[1]) if positions else "null",
        "_source_position": "0" if positions else "null",
        "_source_ts": f"timestamp '{manifest.snapshot_at}'",
        "_file": f"'{escaped(manifest.files[0].name)}'",
        "_line": "0",
        "_contract_version": f"'{manifest.contract_version}'",
        "_arrived_at": f"timestamp '{manifest.arrived_at}'",
        "_batch_id": str(manifest.batch_id),
    }
    columns = [
        f"`{c.name}`" if c.name in contract.key else f"cast(null as {c.type}) as `{c.name}`" for c in contract.columns
    ]
    columns += [f"cast({given.get(c.name, 'null')} as {c.type}) as `{c.name}`" for c in METADATA]
    return missing.selectExpr(*columns)
