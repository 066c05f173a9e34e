"""The recorded batches through ingestion, silver and gold, one by one, against PostgreSQL's own contents.

`make test` has the same truth at less cost: tests/engine/test_recorded_changes.py takes every batch through the silver
models on DuckDB, and test_demo.py compares what the two commands leave.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from recorded_truth import BATCHES, ENTITIES, HISTORIES, LANDING, differences, truth_after, truth_history
from recording import snapshot_time, stored_history, stored_rows

from python_ops.jobs.build import arguments, invoke
from python_ops.jobs.ingest import ingest
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.lake.spark import export_environment
from python_ops.run.demo import deliver

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.campaign]


class RecordedLake(Lake):
    """Ingestion, silver and gold in schemas of their own, on the shared session."""

    def ingest(self) -> dict[str, int]:
        results = ingest(self)
        assert not [result for result in results if result.error or result.quarantined or result.rejected_files]
        assert all(r.read == r.accepted + r.quarantined + r.ignored for r in results)
        return {result.source: result.accepted for result in results}

    def build(self, *select: str, full_refresh: bool = False) -> None:
        listed = arguments(["run"], self, select, full_refresh=full_refresh)
        result = invoke(self, ["--quiet", *listed])
        assert result.success, [f"{r.node.name}: {r.message}" for r in result.result if r.status != "success"]

    def silver(self, model: str) -> str:
        return f"{self.schema_name('silver')}.{model}"

    def wrong_rows(self, batch: int) -> tuple[int, list[str]]:
        """Rows compared with PostgreSQL's after a batch, and what differs."""
        compared, wrong = 0, []
        for entity in ENTITIES:
            expected = truth_after(entity, batch)
            compared += len(expected)
            wrong += differences(expected, stored_rows(self.spark, entity, self.silver(entity.current)))
        return compared, wrong

    def wrong_versions(self) -> list[str]:
        """Keys whose history after the last batch differs from the audit's."""
        wrong = []
        for entity in HISTORIES:
            bronze = self.spark.table(f"{self.schema_name('bronze')}.{entity.source}")
            expected = truth_history(entity, snapshot_time(bronze))
            wrong += differences(expected, stored_history(self.spark, entity, self.silver(str(entity.history))))
        return wrong

    def gold_tables(self) -> list[str]:
        schema = self.schema_name("gold")
        listed = self.spark.sql(f"show tables in {schema}").collect()
        return [f"{schema}.{row['tableName']}" for row in listed if row["namespace"]]

    def gold(self) -> dict[str, list[str]]:
        """Every gold table's rows, as sorted text."""
        rows = {name: self.spark.table(name).selectExpr("to_json(struct(*)) as row") for name in self.gold_tables()}
        return {name.split(".")[1]: sorted(row["row"] for row in found.collect()) for name, found in rows.items()}

    def versions(self) -> dict[str, int]:
        """Delta version of every bronze and storage table."""
        tables = [f"{self.schema_name('bronze')}.{folder.name}" for folder in LANDING.iterdir() if folder.is_dir()]
        tables += [self.silver(f"{entity.history or entity.current}__cdc") for entity in ENTITIES]
        tables += self.gold_tables()
        return {
            table: int(self.spark.sql(f"describe history {table} limit 1").collect()[0]["version"]) for table in tables
        }


@pytest.fixture(scope="module")
def in_order(
    spark: SparkSession, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecordedLake]:
    """A lake that takes the batches as recorded, built after each."""
    shutil.rmtree(settings.place / "landing", ignore_errors=True)
    own = settings.model_copy(update={"schema_prefix": "inorder"})
    yield RecordedLake(own, artifacts=tmp_path_factory.mktemp("target"), start=lambda: spark)
    export_environment(settings)


def test_after_every_batch_silver_is_what_postgresql_held(in_order: RecordedLake) -> None:
    """Its dumps, row for row and value for value: 102 110 rows, 0 wrong."""
    compared = 0
    for batch in BATCHES:
        deliver(in_order, batch)
        in_order.ingest()
        in_order.build()
        rows, wrong = in_order.wrong_rows(batch)
        assert not wrong, f"after batch {batch}: {len(wrong)} wrong, the first: {wrong[:3]}"
        compared += rows
    assert compared == 102_110


def test_histories_are_the_fold_of_the_audit(in_order: RecordedLake) -> None:
    wrong = in_order.wrong_versions()
    assert not wrong, f"{len(wrong)} keys differ, the first: {wrong[:3]}"


def test_a_run_with_nothing_new_commits_nothing(in_order: RecordedLake) -> None:
    before = in_order.versions()
    assert not any(in_order.ingest().values())
    in_order.build()
    assert in_order.versions() == before


def test_a_full_refresh_gives_the_same(in_order: RecordedLake) -> None:
    """Silver is what PostgreSQL held, and gold, merged batch by batch, what it is when built at once."""
    merged = in_order.gold()
    assert len(merged) == 13 and all(merged.values())
    in_order.build(full_refresh=True)
    assert not in_order.wrong_rows(BATCHES[-1])[1]
    assert not in_order.wrong_versions()
    assert in_order.gold() == merged


def test_other_orders_batchings_and_replays_give_the_same(
    spark: SparkSession, settings: Settings, tmp_path: Path, in_order: RecordedLake
) -> None:
    """Given each batch split in two and delivered in reverse order, the newest first in a run of its own,
    When the rest follows at once and everything is delivered a second time,
    Then every table is what PostgreSQL held, and every history the fold of the audit.
    """
    shutil.rmtree(settings.place / "landing")
    own = settings.model_copy(update={"schema_prefix": "shuffled"})
    lake = RecordedLake(own, artifacts=tmp_path / "target", start=lambda: spark)
    deliver_halves(lake, [4], "first")
    lake.ingest()
    lake.build()
    deliver_halves(lake, [0, 1, 2, 3], "second")
    lake.ingest()
    for batch in BATCHES:
        deliver(lake, batch)
    lake.ingest()
    lake.build()

    wrong = lake.wrong_rows(BATCHES[-1])[1]
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"
    assert not lake.wrong_versions()
    assert lake.gold() == in_order.gold()


def deliver_halves(lake: Lake, batches: list[int], prefix: str) -> None:
    """Delivers batches under names that sort in reverse order, each as two files, its end before its beginning."""
    for folder in sorted(path for path in LANDING.iterdir() if path.is_dir()):
        (lake.landing / folder.name).mkdir(parents=True, exist_ok=True)
        for batch in batches:
            for file in folder.glob(f"batch_{batch}.*"):
                header, rows = header_and_lines(file)
                middle = len(rows) // 2
                ending = file.name.split(".")[1]
                for name, part in (("a", rows[middle:]), ("b", rows[:middle])):
                    target = lake.landing / folder.name / f"{prefix}_{9 - batch}{name}.{ending}"
                    if ending == "parquet":
                        pq.write_table(pq.read_table(file).take(part), target)
                    else:
                        target.write_bytes(b"\n".join([*header, *part]) + b"\n")


def header_and_lines(file: Path) -> tuple[list[bytes], list[Any]]:
    """The lines of a bundled batch; of a parquet file the numbers of its rows."""
    if file.suffix == ".parquet":
        return [], list(range(pq.read_metadata(file).num_rows))
    lines = (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).split(b"\n")[:-1]
    return (lines[:1], lines[1:]) if file.suffix == ".csv" else ([], lines)
