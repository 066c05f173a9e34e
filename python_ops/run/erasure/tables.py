"""Rows of people in Delta tables: counted without a JVM; removed, or keyed anew, by Spark.

A MERGE with a view of the values does it: a DELETE by value would leave the value in the table's log. Deletion vectors
are purged in the same run. Why the engine's marks stay right: docs/decisions.md, 2026-11-29.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.jobs.ingest.dead_letters import rows_in
from python_ops.lake.artifacts import Manifest, Model
from python_ops.lake.delta import exists, open_log, query
from python_ops.lake.erasure import Hashing, Subject
from python_ops.lake.lake import Lake
from python_ops.lake.lock import check_held
from python_ops.lake.spark import run
from python_ops.lake.sql import literal
from python_ops.run.erasure.people import Seeker

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FILLED = "_cdc_filled"
"""Of a CDC model's table, the struct of values that the engine carried forward (packages/delta_cdc)."""

_VIEW = "lakeops_erased"


@dataclass(frozen=True)
class Place:
    """A Delta table that has a column by which people are found.

    Attributes:
        table: Schema and name.
        layer: Schema without its prefix.
        columns: Those columns, as SQL: a field of a struct has its path.
        kind: Of its subjects.
        is_rekeyed: The columns are keyed anew, and the rows stay.
        model: Of silver and gold.
    """

    table: str
    layer: str
    path: Path
    columns: tuple[str, ...]
    kind: str
    is_rekeyed: bool
    model: Model | None = None


def places(lake: Lake, manifest: Manifest, people: Sequence[Subject]) -> list[Place]:
    """The tables of bronze, silver and gold that there are, in the order in which they are written."""
    asked = {person.kind for person in people}
    found = []
    rekeyed: dict[str, set[str]] = {}
    for source in lake.contracts.sources:
        for column in lake.contracts.load(source).columns:
            if column.subject in asked:
                is_rekeyed = column.on_erasure == "rekey"
                path = lake.table_path("bronze", source)
                name = f"{lake.schema_name('bronze')}.{source}"
                found.append(Place(name, "bronze", path, (f"`{column.name}`",), column.subject, is_rekeyed))
                rekeyed.setdefault(source, set()).update({column.subject} if is_rekeyed else ())
    for model in sorted(manifest.models.values(), key=lambda m: (m.layer != "silver", m.table)):
        for told in model.columns if model.storage else ():
            if (kind := told.meta.get("subject")) in asked:
                path = lake.table_path(model.layer, str(model.storage))
                read = {
                    p.rsplit(".", 1)[1] for p in manifest.parents.get(model.unique_id, ()) if p.startswith("source.")
                }
                # Models of merged keys are derived again, from rows that are keyed anew.
                stays = model.is_cdc and any(kind in rekeyed.get(source, ()) for source in read)
                columns = (f"`{told.name}`", *_filled(path, told.name))
                found.append(Place(model.stored_table, model.layer, path, columns, str(kind), stays, model))
    return [place for place in found if exists(place.path)]


def _filled(path: Path, column: str) -> list[str]:
    """The same column among the values that were carried forward."""
    if not exists(path):
        return []
    for field in open_log(path).schema().fields:
        if field.name == _FILLED and column in {inner.name for inner in field.type.fields}:  # type: ignore[union-attr]
            return [f"{_FILLED}.`{column}`"]
    return []


def count(place: Place, people: Sequence[Subject]) -> Counter[Subject]:
    """Rows by subject, hidden ones of a CDC model among them. Starts no JVM.

    Raises:
        OpsError: only Spark reads the table.
    """
    asked = {person.value: person for person in people if person.kind == place.kind}
    listed = ", ".join(map(literal, asked))
    named = [f"cast({_of_datafusion(column)} as varchar)" for column in place.columns]
    who = (
        named[0]
        if len(named) == 1
        else f"coalesce({', '.join(f'case when {n} in ({listed}) then {n} end' for n in named)})"
    )
    found = query(place.path, f"select {who} as who, count(*) as n from t where {who} in ({listed}) group by 1")
    return Counter({asked[row["who"]]: int(row["n"]) for row in found.to_pylist()})


def _of_datafusion(column: str) -> str:
    name, _, field = column.replace("`", "").partition(".")
    return f"\"{name}\"['{field}']" if field else f'"{name}"'


def erase_rows(spark: SparkSession, place: Place, people: Sequence[Subject], hashing: Hashing, mark: str) -> None:
    """Removes the rows of people from a table, or keys them anew, and purges what deletion vectors hide.

    Args:
        mark: Of this erasure; readers that keep a mark of a CDC model take all its keys as changed.

    Raises:
        OpsError: Spark failed; the table is as it was before the statement.
    """
    values = [(p.value, hashing.pseudonym(p)) for p in people if p.kind == place.kind]
    spark.createDataFrame(values, "value string, pseudonym string").createOrReplaceTempView(_VIEW)
    statements = []
    for column in place.columns:
        then = f"update set target.{column} = people.pseudonym" if place.is_rekeyed else "delete"
        statements.append(
            f"merge into {place.table} as target using {_VIEW} as people"
            f" on cast(target.{column} as string) = people.value when matched then {then}"
        )
    if place.model and place.model.is_cdc:
        # The mark is what the rows say: a property that is ahead of bronze would be refused.
        statements.append(f"alter table {place.table} unset tblproperties if exists ('lakehouse.cdc.watermark')")
        statements.append(f"alter table {place.table} set tblproperties ('lakehouse.cdc.derived_by' = '{mark}')")
    elif place.model:
        statements.append(f"alter table {place.table} unset tblproperties if exists ('lakehouse.upstreams')")
    statements.append(f"reorg table {place.table} apply (purge)")
    _run(spark, place.table, statements)


def erase_letters(spark: SparkSession, table: str, letters: Sequence[tuple[int, str, int]]) -> None:
    """Removes dead letters, by batch, file and line.

    Raises:
        OpsError: Spark failed; the table is as it was.
    """
    spark.createDataFrame(list(letters), "batch bigint, file string, line bigint").createOrReplaceTempView(_VIEW)
    merge = (
        f"merge into {table} as letters using (select distinct * from {_VIEW}) as gone"
        " on letters._batch_id = gone.batch and letters.file = gone.file and letters.line = gone.line"
        " when matched then delete"
    )
    _run(spark, table, [merge, f"reorg table {table} apply (purge)"])


def _run(spark: SparkSession, table: str, statements: Sequence[str]) -> None:
    for statement in statements:
        check_held(table)
        then = "What was done before stays done; run the command again."
        run(spark, statement, f"{table} was not erased", then)


def letters_of(lake: Lake, seeker: Seeker) -> Iterator[tuple[int, str, int]]:
    """Dead letters of people, by batch, file and line; `seeker.found` counts them. Starts no JVM."""
    source = seeker.contract.source
    layouts = {file.name: (file.layout, file.delimiter) for m in lake.ledger(source).manifests for file in m.files}
    for row in rows_in(lake, source, ["_batch_id", "file", "line", "raw"]):
        if row["raw"] is None:
            continue
        text = bytes(row["raw"]).decode("utf-8", "surrogateescape")
        layout, delimiter = layouts.get(row["file"], ((), ","))
        before = seeker.found.total()
        if layout:
            seeker.csv_record(text, layout, delimiter)
        else:
            seeker.json_line(text)
        if seeker.found.total() > before:
            yield int(row["_batch_id"]), row["file"], int(row["line"])


def recount(lake: Lake, source: str) -> None:
    """Makes the ledger say how many rows of each batch are left; what is gone counts as ignored."""
    path, ledger = lake.table_path("bronze", source), lake.ledger(source)
    implied = "sum(case when _op = 'd' and _line = 0 then 1 else 0 end)"
    rows = query(path, f"select _batch_id, count(*) as n, {implied} as implied from t group by _batch_id").to_pylist()
    left = {int(row["_batch_id"]): (int(row["n"]), int(row["implied"])) for row in rows}
    dead = Counter(
        int(row["_batch_id"]) for row in rows_in(lake, source, ["_batch_id", "line"]) if row["line"] is not None
    )
    for manifest in ledger.committed:
        total, implied_rows = left.get(manifest.batch_id, (0, 0))
        counts = dict(manifest.counts)
        now = {"accepted": total - implied_rows, "quarantined": dead[manifest.batch_id]}
        if any(now[name] < counts.get(name, 0) for name in now):
            gone = sum(counts.get(name, 0) - number for name, number in now.items())
            counts |= {**now, "ignored": counts.get("ignored", 0) + gone}
            if "generated" in counts:
                counts["generated"] = implied_rows
            ledger.set_state(manifest, manifest.state, counts=counts)
