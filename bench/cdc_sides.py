"""What bench/cdc.py compares: a model's run with each of its statements, the recipe, and `dbt snapshot`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdc_lab import Lab
from figures import jvm_seconds

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VALUES = ("name", "email", "city", "status", "note")
COLUMNS = (*VALUES, "amount")
LISTED = ", ".join(("id", *COLUMNS, "seq", "ts"))


def bronze(lab: Lab) -> None:
    """The source and the model on it; `strategy` is set by `model`."""
    lab.bronze("events", "id bigint, " + ", ".join(f"{name} string" for name in VALUES) + ", amount decimal(18,2)")


def model(lab: Lab, strategy: str) -> None:
    """The engine's side."""
    lab.model(
        "slv_events", "events", f"{LISTED}, _op, _arrived_at, _batch_id",
        incremental_strategy=strategy, unique_key="id", sequence_by="seq", effective_at="ts",
        delete_when="_op = 'd'", except_columns=["_op", "_arrived_at"],
    )  # fmt: skip


def deliver(lab: Lab, batch: int, keys: str) -> None:
    """Appends one batch: one event for each key."""
    texts = ", ".join(f"concat('{name} ', id % 9973, ' ', {batch}) as {name}" for name in VALUES)
    at = f"timestamp '2026-01-01' + make_dt_interval({batch})"
    lab.spark.sql(
        f"insert into {lab.schema}.events select id, {texts}, cast(id % 1000 + {batch} as decimal(18,2)) as amount,"
        f" '{'c' if batch == 1 else 'u'}' as _op, {batch} as seq, {at} as ts, cast(null as array<string>) as _unsent,"
        f" cast(null as bigint) as move, {at} as _arrived_at, {batch} as _batch_id from {keys}"
    )


@dataclass(frozen=True)
class Statement:
    """A statement of the model, and until the next one: seconds, Spark jobs, the JVM's processor seconds."""

    text: str
    seconds: float
    jobs: int
    processor_seconds: float


@dataclass(frozen=True)
class Run:
    """One run of the model: seconds as dbt tells them, its message, its statements."""

    seconds: float
    message: str
    statements: list[Statement]

    @property
    def jobs(self) -> int:
        return sum(one.jobs for one in self.statements)

    @property
    def processor_seconds(self) -> float:
        return sum(one.processor_seconds for one in self.statements)


class Meter:
    """What this process's Spark has done so far."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark, self._scheduler = spark, spark._jsc.sc().dagScheduler()

    def read(self) -> tuple[float, int, float]:
        """Clock, jobs, processor seconds of the JVM, which is driver and executor."""
        return time.monotonic(), int(self._scheduler.numTotalJobs()), jvm_seconds(self._spark)


def run_model(lab: Lab, full_refresh: bool = False) -> Run:
    """A `dbt run`."""
    meter = Meter(lab.spark)
    sent: list[tuple[str, tuple[float, int, float]]] = []

    def listen(event: Any) -> None:
        if event.info.name == "SQLQuery" and event.data.conn_name.startswith("model."):
            sent.append((" ".join(event.data.sql.split("*/", 1)[-1].split()), meter.read()))

    [done] = lab.build("slv_events", full_refresh=full_refresh, callbacks=[listen])
    ends = [read for _, read in sent[1:]] + [meter.read()]
    return Run(
        float(done.execution_time),
        lab.messages["slv_events"],
        [
            Statement(text, *(after - before for before, after in zip(start, end, strict=True)))
            for (text, start), end in zip(sent, ends, strict=True)
        ],
    )


class Recipe:
    """The other side: https://docs.delta.io/delta-update/, section on SCD type 2, and its upsert."""

    def __init__(self, lab: Lab, strategy: str) -> None:
        self.spark, self.history = lab.spark, strategy == "cdc_scd2"
        self.target, self.events, self.view = (f"{lab.schema}.{name}" for name in ("recipe", "events", "slv_events"))

    def load(self, rows: int) -> None:
        """A plain clustered CTAS of the first batch."""
        versions = ", ts as valid_from, cast(null as timestamp) as valid_to, true as is_current" if self.history else ""
        self.spark.sql(
            f"create or replace table {self.target} using delta cluster by (id) as"
            f" select /*+ repartition_by_range({max(1, rows // 500_000)}, id) */ {LISTED}{versions}"
            f" from {self.events} where _batch_id = 1 sort by id"
        )

    def apply(self, batch: int) -> None:
        """One batch."""
        updates = f"(select {LISTED} from {self.events} where _batch_id = {batch})"
        if not self.history:
            self.spark.sql(
                f"merge into {self.target} as target using {updates} as changed on target.id = changed.id"
                " when matched and changed.seq > target.seq then update set * when not matched then insert *"
            ).collect()
            return
        differs = "(" + " or ".join(f"changed.{name} <> target.{name}" for name in COLUMNS) + ")"
        self.spark.sql(
            f"merge into {self.target} as target using ("
            f" select changed.id as merge_key, changed.* from {updates} as changed"
            f" union all select null as merge_key, changed.* from {updates} as changed"
            f"  join {self.target} as target on changed.id = target.id where target.is_current and {differs}"
            ") as changed on target.id = changed.merge_key"
            f" when matched and target.is_current and {differs}"
            " then update set is_current = false, valid_to = changed.ts"
            f" when not matched then insert ({LISTED}, valid_from, valid_to, is_current)"
            f" values ({', '.join(f'changed.{name}' for name in LISTED.split(', '))}, changed.ts, null, true)"
        ).collect()

    def difference(self) -> int:
        """Rows that only one side shows, counted where sums of their hashes differ."""
        shown = LISTED + (", valid_from, valid_to, is_current" if self.history else "")
        hashed = f"xxhash64({shown}{', valid_to is null' if self.history else ''})"
        summed = "select count(*), sum(cast({} as decimal(38,0))) from {}"
        one, other = (self.spark.sql(summed.format(hashed, name)).collect() for name in (self.view, self.target))
        return (
            0
            if one == other
            else _difference(self.spark, *(f"select {shown} from {t}" for t in (self.view, self.target)))
        )


def _difference(spark: SparkSession, one: str, other: str) -> int:
    """How many rows only one of two queries has."""
    found = spark.sql(
        f"select (select count(*) from ({one} except all {other}))"
        f" + (select count(*) from ({other} except all {one})) as n"
    ).collect()
    return int(found[0]["n"])


SNAPSHOT = """
snapshots:
  - name: snapshot_of_events
    relation: source('bronze', 'current_events')
    config: {strategy: check, unique_key: id, check_cols: [CHECKED], hard_deletes: invalidate, file_format: delta,
      schema: SCHEMA}
"""


class Snapshot:
    """`dbt snapshot` of the source's current rows, which are kept apart; keeping them is not counted."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.current, self.events = lab, f"{lab.schema}.current_events", f"{lab.schema}.events"
        lab.bronze("current_events", "id bigint")
        lab.spark.sql(
            f"create or replace table {self.current} using delta as select {LISTED} from {self.events}"
            " where _batch_id = 1"
        )
        (lab.folder / "snapshots").mkdir()
        (lab.folder / "snapshots" / "snapshots.yml").write_text(
            SNAPSHOT.replace("CHECKED", ", ".join(COLUMNS)).replace("SCHEMA", lab.schema)
        )
        self._run()

    def apply(self, batch: int) -> float:
        """One batch: its seconds as dbt tells them."""
        self.lab.spark.sql(
            f"merge into {self.current} as t using (select {LISTED} from {self.events} where _batch_id = {batch}) as s"
            " on t.id = s.id when matched then update set * when not matched then insert *"
        ).collect()
        return self._run()

    def _run(self) -> float:
        return float(self.lab.build(command="snapshot")[0].execution_time)

    def difference(self) -> int:
        """Rows that only one side shows, and versions that it has more or less."""
        values = ", ".join(("id", *COLUMNS))
        view, taken = f"{self.lab.schema}.slv_events", f"{self.lab.schema}.snapshot_of_events"
        differing = _difference(
            self.lab.spark,
            f"select {values} from {view} where is_current",
            f"select {values} from {taken} where dbt_valid_to is null",
        )
        found = self.lab.spark.sql(f"select abs((select count(*) from {view}) - (select count(*) from {taken})) as n")
        return differing + int(found.collect()[0]["n"])
