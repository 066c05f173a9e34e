"""A small lake of Delta tables, written without a JVM, with ledgers and artifacts: what snapshots are tried on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import artifact_files as files
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.recovery.create import create
from python_ops.jobs.recovery.manifest import Snapshot, store_of
from python_ops.lake.config import Settings
from python_ops.lake.contracts import load
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch, BatchState


class FilledLake(Lake):
    """A home with the tables `bronze.fx_rates` and `gold.fct_orders`, which is partitioned by a text with a blank."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(Settings(home=folder / "lake", **settings))
        node = files.model("fct_orders")
        node["config"]["meta"] = {"dr_tier": 3}
        files.write_manifest(self.artifacts, node)
        self.copies = store_of(self)

    def path(self, name: str) -> Path:
        layer, _, table = name.partition(".")
        return self.table_path(layer, table)

    def write(self, name: str, first: int, last: int, mode: Any = "append") -> None:
        """One commit with the rows `first` to `last`."""
        ids = list(range(first, last))
        rows = pa.table({"id": ids, "batch": [f"b {i % 2}" for i in ids], "text": [f"row {i}" * 20 for i in ids]})
        parts = ["batch"] if name == "gold.fct_orders" else None
        write_deltalake(str(self.path(name)), rows, mode=mode, partition_by=parts)

    def batch(self, number: int, state: BatchState = BatchState.COMMITTED, rows: int = 3) -> Batch:
        """A delivered file of fx_rates, its batch in the ledger and, when committed, in bronze."""
        folder = self.landing / "fx_rates"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"rates_{number}.csv").write_text(
            "rate_date,currency,units_per_eur\n" + f"2025-01-{number:02},USD,1.0{number}\n" * rows
        )
        ledger = self.ledger("fx_rates")
        frozen = ledger.freeze(number, "1", [inspect(folder, f"rates_{number}.csv", load("fx_rates"))])
        if state is BatchState.FROZEN:
            return frozen
        self.write("bronze.fx_rates", number * 100, number * 100 + rows)
        counts = {"read": rows, "accepted": rows, "quarantined": 0, "ignored": 0}
        return ledger.set_state(frozen, state, counts=counts)

    def fill(self) -> FilledLake:
        """Three batches, three commits of sales with a checkpoint between."""
        for number in (1, 2, 3):
            self.batch(number)
            self.write("gold.fct_orders", number * 10, number * 10 + 5)
            if number == 2:
                DeltaTable(str(self.path("gold.fct_orders"))).create_checkpoint()
        return self

    def ids(self, name: str, version: int | None = None) -> list[int]:
        return ids(self.path(name), version)

    def create(self, **options: Any) -> Snapshot:
        return create(self, **options)

    def states(self) -> dict[int, str]:
        return {m.batch_id: m.state.value for m in self.ledger("fx_rates").manifests}

    def everything(self) -> dict[str, bytes]:
        """All files of the tables and ledgers, to see that nothing was changed."""
        roots = (self.home / "warehouse", self.state / "ingest")
        return {str(p.relative_to(self.home)): p.read_bytes() for r in roots for p in r.rglob("*.*")
                if p.is_file()}  # fmt: skip


def ids(path: Path | str, version: int | None = None, **options: Any) -> list[int]:
    """The table's rows."""
    table = DeltaTable(str(path), version=version, **options)
    return sorted(table.to_pyarrow_table().column("id").to_pylist())


def flip(path: Path) -> None:
    """Turns one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def actions(path: Path) -> list[Any]:
    """Actions of a commit."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]
