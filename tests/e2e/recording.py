"""The recording's truth: what PostgreSQL held after each batch, and every version that its rows went through."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.contracts import Contract, load
from python_ops.lake.lake import Lake

TRUTH = PROJECT_ROOT / "tests" / "fixtures" / "cdc_recording" / "truth"
LANDING = PROJECT_ROOT / "seeds" / "landing"
BATCHES = range(5)


@dataclass(frozen=True)
class Entity:
    """A recorded table: its bronze source, its current model and its history, if one is kept."""

    table: str
    source: str
    current: str
    history: str | None = None

    @property
    def contract(self) -> Contract:
        return load(self.source)

    @property
    def tracked(self) -> list[str]:
        names = [column.name for column in self.contract.columns]
        return [name for name in names if name not in self.contract.key and name != "updated_at"]


ENTITIES = (
    Entity("accounts", "crm_accounts", "slv_accounts", "slv_accounts_history"),
    Entity("contacts", "crm_contacts", "slv_contacts", "slv_contacts_history"),
    Entity("opportunities", "crm_opportunities", "slv_opportunities", "slv_opportunities_history"),
    Entity("products", "shop_products", "slv_products", "slv_products_history"),
    Entity("orders", "shop_orders", "slv_shop_orders"),
    Entity("order_items", "shop_order_items", "slv_shop_order_items"),
)

HISTORIES = [entity for entity in ENTITIES if entity.history]

Row = tuple[Any, ...]


def deliver(lake: Lake, batch: int) -> None:
    """Puts one bundled batch of every source into the landing folder."""
    for folder in sorted(path for path in LANDING.iterdir() if path.is_dir()):
        (lake.landing / folder.name).mkdir(parents=True, exist_ok=True)
        for file in folder.glob(f"batch_{batch}.*"):
            shutil.copyfile(file, lake.landing / folder.name / file.name)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a gzip-compressed JSON lines file; lines end with LF alone."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def truth_after(entity: Entity, batch: int) -> dict[Row, Row]:
    """PostgreSQL's rows by key after a batch."""
    contract = entity.contract
    return {
        _values(contract, row, contract.key): _values(contract, row, [c.name for c in contract.columns])
        for row in lines(TRUTH / f"batch_{batch}" / f"{entity.table}.jsonl.gz")
    }


def stored_rows(spark: SparkSession, entity: Entity, relation: str) -> dict[Row, Row]:
    """A relation's rows by key."""
    contract = entity.contract
    names = [column.name for column in contract.columns]
    found = {}
    for row in _collect(spark, contract, relation, []):
        key = _values(contract, row, contract.key)
        assert key not in found, f"{relation}: {key} is there twice"
        found[key] = _values(contract, row, names)
    return found


def truth_history(entity: Entity, snapshot_at: str) -> dict[Row, list[Row]]:
    """Versions by key after the last batch: (from, to, tracked values…), folded from PostgreSQL's audit.

    Batch 0 counts as its end state at the snapshot's time, because that is all the snapshot shows. Changes of one
    transaction share their commit time and collapse to the last.
    """
    contract = entity.contract
    states: dict[Row, list[tuple[str, Row | None]]] = {}
    for event in sorted((e for e in lines(TRUTH / "history.jsonl.gz") if e["table"] == entity.table), key=_seq):
        at = snapshot_at if event["batch"] == 0 else event["commit_ts"]
        changes: list[tuple[Row, Row | None]] = []
        if event["op"] == "T":
            changes += [(key, None) for key in states]
        if event["old_key"] and event["old_key"] != event["key"]:
            changes.append((_values(contract, event["old_key"], contract.key), None))
        if event["row"]:
            changes.append(
                (_values(contract, event["row"], contract.key), _values(contract, event["row"], entity.tracked))
            )
        for key, state in changes:
            timeline = states.setdefault(key, [])
            if timeline and timeline[-1][0] == at:
                timeline.pop()
            timeline.append((at, state))
    return {key: versions for key, timeline in states.items() if (versions := list(_versions(timeline)))}


def snapshot_time(bronze: DataFrame) -> str:
    """When the snapshot of a source was taken, by its bronze rows."""
    shown = "date_format(max(_source_ts), \"yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'\") as at"
    return str(bronze.where("_op = 'r'").selectExpr(shown).collect()[0]["at"])


def visible(storage: DataFrame) -> DataFrame:
    """What a CDC model's view shows of its storage table, for a table that this session's catalog does not know."""
    names = storage.schema["_cdc_filled"].dataType.names if "_cdc_filled" in storage.columns else []
    filled = {name: f"case when _cdc_filled is null then `{name}` else _cdc_filled.`{name}` end" for name in names}
    times = {"_cdc_valid_from": "valid_from", "_cdc_valid_to": "valid_to"}
    return storage.where("_cdc_visible").selectExpr(
        *(f"{filled.get(name, f'`{name}`')} as `{times.get(name, name)}`" for name in storage.columns)
    )


def stored_history(spark: SparkSession, entity: Entity, relation: str) -> dict[Row, list[Row]]:
    """Versions by key of a history model, in order of time: (from, to, tracked values…)."""
    contract = entity.contract
    found: dict[Row, list[Row]] = {}
    for row in _collect(spark, contract, relation, ["valid_from", "valid_to"]):
        version = (row["valid_from"], row["valid_to"], *_values(contract, row, entity.tracked))
        found.setdefault(_values(contract, row, contract.key), []).append(version)
    return {key: sorted(versions, key=lambda version: version[0]) for key, versions in found.items()}


def differences(expected: dict[Row, Any], found: dict[Row, Any]) -> list[str]:
    """Keys that are missing, extra or different, as text."""
    return [
        f"{key}: expected {expected.get(key)}, got {found.get(key)}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]


def _versions(timeline: Iterable[tuple[str, Row | None]]) -> Iterator[Row]:
    open_from, shown = "", None
    for at, state in timeline:
        if state == shown:
            continue
        if shown is not None:
            yield (open_from, at, *shown)
        open_from, shown = at, state
    if shown is not None:
        yield (open_from, None, *shown)


def _seq(event: dict[str, Any]) -> int:
    return int(event["seq"])


def _collect(spark: SparkSession, contract: Contract, relation: str, times: list[str]) -> list[dict[str, Any]]:
    types = {column.name: column.type for column in contract.columns} | dict.fromkeys(times, "timestamp")
    shown = [
        f"date_format(`{name}`, \"yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'\") as `{name}`"
        if type_ == "timestamp"
        else f"cast(`{name}` as string) as `{name}`"
        for name, type_ in types.items()
    ]
    return [row.asDict() for row in spark.table(relation).selectExpr(*shown).collect()]


def _values(contract: Contract, row: dict[str, Any], names: Iterable[str]) -> Row:
    types = {column.name: column.type for column in contract.columns}
    return tuple(_value(row.get(name), types[name]) for name in names)


def _value(value: Any, type_: str) -> Any:
    if value is None:
        return None
    if type_.startswith("decimal"):
        return Decimal(str(value))
    if type_ in ("int", "bigint"):
        return int(value)
    if type_ == "boolean":
        return str(value).lower() == "true"
    return str(value)
