"""Bronze and dead-letter tables: made from the contract, appended to once per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from python_ops.lake.contracts import Column, Contract
from python_ops.lake.contracts.compatibility import widens
from python_ops.lake.contracts.metadata import DLQ_COLUMNS, DLQ_STATE, METADATA
from python_ops.lake.delta import exists, open_log
from python_ops.lake.errors import OpsError
from python_ops.lake.files import files_under
from python_ops.lake.home import is_at, located, register_table
from python_ops.lake.lake import Lake
from python_ops.lake.sql import escaped

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# So many rows keep a core busy for a second; fewer are not worth another file.
_ROWS_OF_A_FILE = 100_000


class AppendOnlyTable:
    """A Delta table that one batch number is appended to at most once.

    Args:
        layer: `bronze` or `dlq`.
        contract: The source's contract.
    """

    def __init__(self, lake: Lake, layer: str, contract: Contract) -> None:
        self.name = f"{lake.schema_name(layer)}.{contract.source}"
        self.schema = lake.schema_name(layer)
        self.path = lake.table_path(layer, contract.source)
        self.columns: tuple[Column, ...] = (*contract.columns, *METADATA) if layer == "bronze" else DLQ_COLUMNS
        # What is not appended: the dead letters' later state.
        self.later: tuple[Column, ...] = DLQ_STATE if layer == "dlq" else ()
        # Dead letters are few and read without a JVM, which deletion vectors would prevent.
        self.properties = "'delta.enableDeletionVectors' = 'false'" if layer == "dlq" else ""
        self.comment = contract.description if layer == "bronze" else f"Rejected records of {contract.source}."
        self.writer_id = f"ingest:{self.name}"

    def exists(self) -> bool:
        """Whether the table has a Delta log. Starts no JVM.

        Raises:
            OpsError: the log cannot be listed, or is gone while data is there. Taken for absent, its files would be
                new again.
        """
        if exists(self.path):
            return True
        if any(name.endswith(".parquet") for name in files_under(self.path)):
            raise OpsError(
                f"{self.name} has data in {self.path} and no Delta log. Restore the table from a snapshot "
                "(docs/runbooks/dr_restore.md); to load it anew, drop the table and remove its folder."
            )
        return False

    def create(self, spark: SparkSession) -> None:
        """Creates the table; or adds the columns and widens the types that a newer contract brought.

        Type widening: https://docs.delta.io/delta-type-widening/.

        Raises:
            OpsError: something else has the table's name or is in its folder; or a column of the table has a
                type that does not fit into the contract's. Nothing was changed.
        """
        wanted = (*self.columns, *self.later)
        has_log, is_registered = self.exists(), self._is_registered(spark)
        if not has_log:
            self._create(spark, wanted, is_registered)
            return
        if not is_registered:  # a run died between Delta's first commit and the metastore's entry
            register_table(spark, self.schema, self.path.name, self.path)
        given = {field.name: field.dataType.simpleString() for field in spark.table(self.name).schema.fields}
        changed = [column for column in wanted if given.get(column.name, column.type) != column.type]
        if refused := [c for c in changed if not widens(replace(c, type=given[c.name]), c)]:
            listed = ", ".join(f"{column.name} ({given[column.name]} → {column.type})" for column in refused)
            raise OpsError(
                f"{self.name}: the contract changes the type of {listed}. In place a type can only widen: int to "
                "bigint, or a decimal that grows on both sides of its point. Add a column under a new name instead."
            )
        if changed:
            spark.sql(f"alter table {self.name} set tblproperties ('delta.enableTypeWidening' = 'true')")
        for column in changed:
            spark.sql(f"alter table {self.name} alter column `{column.name}` type {column.type}")
        if added := [column for column in wanted if column.name not in given]:
            spark.sql(f"alter table {self.name} add columns ({', '.join(_definition(column) for column in added)})")
            if self.properties:
                spark.sql(f"alter table {self.name} set tblproperties ({self.properties})")

    def _is_registered(self, spark: SparkSession) -> bool:
        """Whether the metastore has the table, asked directly.

        Raises:
            OpsError: a view, or a table of another folder, has its name.
        """
        if not spark.catalog.tableExists(self.name):
            return False
        told = {row["col_name"]: row["data_type"] for row in spark.sql(f"describe extended {self.name}").collect()}
        place = told.get("Location", "")
        if told.get("Type") != "VIEW" and is_at(located(place), self.path):
            return True
        found = "a view" if told.get("Type") == "VIEW" else f"a table in {place}"
        raise OpsError(
            f"{self.name}: the metastore has {found} under this name; expected the table in {self.path}. Rows would be "
            "written to one and read from the other. Drop or rename what is there, or run with the home that it "
            "belongs to."
        )

    def _create(self, spark: SparkSession, wanted: Sequence[Column], is_registered: bool) -> None:
        """Makes the table, and never one over another."""
        if is_registered:
            raise OpsError(
                f"{self.name}: the metastore has the table, and {self.path} holds none. Restore it from a snapshot "
                "(docs/runbooks/dr_restore.md); to load it anew, drop the table."
            )
        spark.sql(f"create schema if not exists {self.schema}")
        columns = ", ".join(_definition(column) for column in wanted)
        properties = f" tblproperties ({self.properties})" if self.properties else ""
        spark.sql(f"create table {self.name} ({columns}) using delta comment '{escaped(self.comment)}'{properties}")

    def append(self, rows: DataFrame, batch_id: int, count: int = 0) -> None:
        """Appends a batch in one commit. Delta skips it when this number was appended before.

        Args:
            rows: Its rows.
            batch_id: Its number.
            count: How many rows, where there may be many: they are then written to several files, side by side.
        """
        names = [f"`{column.name}`" for column in self.columns]
        writer = rows.selectExpr(*names).coalesce(1 + count // _ROWS_OF_A_FILE).write.format("delta").mode("append")
        writer.option("txnAppId", self.writer_id).option("txnVersion", batch_id).save(str(self.path))

    def holds(self, spark: SparkSession, batch_id: int, rows: int) -> bool:
        """Whether exactly `rows` rows of the batch are there. This proves a commit; a transaction identifier does not,
        it survives RESTORE. The log's statistics answer where the batch fills whole files, as after its append; else
        the rows are counted.
        """
        if self._rows_in_files_of(batch_id) == rows:
            return True
        found = spark.sql(f"select count(*) as n from {self.name} where _batch_id = {batch_id}").collect()[0]["n"]
        return bool(found == rows)

    def _rows_in_files_of(self, batch_id: int) -> int | None:
        """Rows of the files that hold only this batch; None if a file holds others too, or if it is not known."""
        files = open_log(self.path).get_add_actions(flatten=True)
        if not {"min._batch_id", "max._batch_id"} <= set(files.column_names):
            return None
        found = 0
        for low, high, rows in zip(
            *(files.column(name).to_pylist() for name in ("min._batch_id", "max._batch_id", "num_records")), strict=True
        ):
            if low == high == batch_id:
                found += int(rows)
            elif low is None or high is None or low <= batch_id <= high:
                return None
        return found

    def row_count(self) -> int:
        """Rows of the current version, from the Delta log. Starts no JVM."""
        if not self.exists():
            return 0
        counts = open_log(self.path).get_add_actions(flatten=True).column("num_records").to_pylist()
        return sum(int(count) for count in counts)

    def last_number(self) -> int:
        """Highest batch number that Delta remembers for this writer: lower ones would be skipped. Starts no JVM."""
        if not self.exists():
            return 0
        return int(open_log(self.path).transaction_version(self.writer_id) or 0)

    def batches(self, spark: SparkSession) -> dict[int, int]:
        """Rows per batch number."""
        if not self.exists():
            return {}
        rows = spark.sql(f"select _batch_id, count(*) as n from {self.name} group by _batch_id").collect()
        return {int(row["_batch_id"]): int(row["n"]) for row in rows}


def tables_of(lake: Lake, contract: Contract) -> list[str]:
    """Names of a source's two tables, as they are leased."""
    return [f"{lake.schema_name(layer)}.{contract.source}" for layer in ("bronze", "dlq")]


def _definition(column: Column) -> str:
    return f"`{column.name}` {column.type} comment '{escaped(column.description)}'"
