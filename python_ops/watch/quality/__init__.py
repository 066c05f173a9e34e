"""Verdicts on batches: what a batch as a whole should look like, judged by Great Expectations from the contract.

Ingestion has checked every record already. This looks at the batch afterwards and never holds data back: how
many rows, how many NULLs, how values are spread against the batches before it, how old they are. The verdict is kept
with the run's state; the Data Docs pages are for people.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch
from python_ops.watch.quality.pages import write_index
from python_ops.watch.quality.rows import recent_values, with_pandas, with_spark
from python_ops.watch.quality.rules import Rule, rules
from python_ops.watch.quality.validation import DOCS, validate
from python_ops.watch.quality.verdicts import Finding, Verdict, read, read_all, save

SMALL_BATCH = 200_000
"""Rows up to which a batch is judged with pandas, in this process and without a JVM."""


class Engine(StrEnum):
    """What judges a batch: `auto` is pandas up to SMALL_BATCH rows, Spark beyond."""

    AUTO = "auto"
    PANDAS = "pandas"
    SPARK = "spark"


def judge(
    lake: Lake,
    source: str,
    batch: int | None = None,
    engine: Engine = Engine.AUTO,
) -> Verdict:
    """Judges one committed batch and keeps the verdict.

    Args:
        source: Name.
        batch: Its number; the last committed one when None.
        engine: What judges.

    Raises:
        ConfigError: there is no such source or batch, or Great Expectations is not installed.
        OpsError: the batch cannot be read.
    """
    contract = lake.contracts.load(source)
    done = _committed(lake, source)
    manifest = _chosen(source, done, batch)
    rows = manifest.rows
    began = datetime.now(UTC)
    if engine is Engine.AUTO:
        engine = Engine.PANDAS if rows <= SMALL_BATCH else Engine.SPARK
    findings: tuple[Finding, ...] = ()
    judged: list[Rule] = []
    not_judged: tuple[str, ...] = ("the batch has no rows",)
    page: Path | None = None
    if rows:
        before = [m for m in done if m.batch_id < manifest.batch_id and m.counts["accepted"]]
        before = before[-contract.expectations.recent_batches :]
        numbers = [m.batch_id for m in before]
        judged, not_judged = rules(
            contract, manifest, before, lambda names: recent_values(lake, contract, numbers, names)
        )
        frame: Any = (
            with_pandas(lake, contract, manifest) if engine is Engine.PANDAS else with_spark(lake, contract, manifest)
        )
        findings, page = validate(folder(lake), source, manifest.batch_id, frame, judged, engine.value)
    verdict = Verdict(
        source=source,
        batch_id=manifest.batch_id,
        contract_version=manifest.contract_version,
        engine=engine.value if rows else "none",
        rows=rows,
        expectations=len(judged),
        findings=findings,
        not_judged=not_judged,
        seconds=round((datetime.now(UTC) - began).total_seconds(), 1),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        page=str(page) if page else None,
    )
    save(lake, verdict)
    write_index(folder(lake) / DOCS, list(read_all(lake)))
    return verdict


def judgeable(lake: Lake, new: bool = False) -> list[str]:
    """Sources that have a committed batch; with `new`, those whose last one has no verdict yet."""
    found = []
    for source in lake.contracts.sources:
        done = _committed(lake, source)
        if done and not (new and read(lake, source, done[-1].batch_id)):
            found.append(source)
    return found


def folder(lake: Lake) -> Path:
    """Where Great Expectations keeps its files and the Data Docs are, on this machine; verdicts are in the home."""
    return lake.workspace / "quality" / lake.settings.schema_prefix


def _committed(lake: Lake, source: str) -> list[Batch]:
    return lake.ledger(source).committed


def _chosen(source: str, done: list[Batch], batch: int | None) -> Batch:
    found = [m for m in done if batch in (None, m.batch_id)]
    if not found:
        known = ", ".join(str(m.batch_id) for m in done[-10:]) or "none yet; `lakeops ingest run` takes the first"
        what = "committed batch" if batch is None else f"committed batch {batch}"
        raise ConfigError(f"{source} has no {what}. Committed: {known}.")
    return found[-1]
