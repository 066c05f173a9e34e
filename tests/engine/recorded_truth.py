"""The recording's truth: what PostgreSQL held after each batch, and every version that its rows went through."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.contracts import Contract, load

TRUTH = PROJECT_ROOT / "tests" / "fixtures" / "cdc_recording" / "truth"
LANDING = PROJECT_ROOT / "seeds" / "landing"
BATCHES = range(5)
Row = tuple[Any, ...]


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

    def by_key(self, rows: Iterable[Mapping[str, Any]]) -> dict[Row, Row]:
        """Current rows of a lake by key."""
        contract, found = self.contract, dict[Row, Row]()
        names = [column.name for column in contract.columns]
        for row in rows:
            key = _values(contract, row, contract.key)
            assert key not in found, f"{self.table}: {key} is there twice"
            found[key] = _values(contract, row, names)
        return found

    def versions_by_key(self, rows: Iterable[Mapping[str, Any]]) -> dict[Row, list[Row]]:
        """Versions of a lake by key, in order of time: (from, to, tracked values…)."""
        contract, found = self.contract, dict[Row, list[Row]]()
        for row in rows:
            version = (row["valid_from"], row["valid_to"], *_values(contract, row, self.tracked))
            found.setdefault(_values(contract, row, contract.key), []).append(version)
        return {key: sorted(versions, key=lambda version: version[0]) for key, versions in found.items()}


ENTITIES = (
    Entity("accounts", "crm_accounts", "slv_accounts", "slv_accounts_history"),
    Entity("contacts", "crm_contacts", "slv_contacts", "slv_contacts_history"),
    Entity("opportunities", "crm_opportunities", "slv_opportunities", "slv_opportunities_history"),
    Entity("products", "shop_products", "slv_products", "slv_products_history"),
    Entity("orders", "shop_orders", "slv_shop_orders"),
    Entity("order_items", "shop_order_items", "slv_shop_order_items"),
)

HISTORIES = [entity for entity in ENTITIES if entity.history]


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


def _values(contract: Contract, row: Mapping[str, Any], names: Iterable[str]) -> Row:
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
