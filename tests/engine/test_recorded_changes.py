"""The recorded batches through the project's own silver models on DuckDB, against PostgreSQL's own contents.

What a change is to a row of bronze is read here by hand, as the recording's README says it; ingestion's reading and
Spark's own MERGE are compared with the same truth in tests/e2e.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

import jinja2
import pytest
from cdc_duck import Duck, transpile
from recorded_truth import (
    BATCHES,
    ENTITIES,
    LANDING,
    Entity,
    differences,
    truth_after,
    truth_history,
)

from python_ops.lake.config import PROJECT_ROOT

METADATA = (
    "_op string, _source_generation bigint, _source_lsn bigint, _source_position bigint, _source_ts timestamp, "
    "_unsent array<string>, _arrived_at timestamp, _batch_id bigint"
)
EPOCH = dt.datetime(1970, 1, 1)
UNSENT = "__debezium_unavailable_value"
Parcels = list[list[tuple[Any, ...]]]


@cache
def recorded(entity: Entity, batch: int) -> list[tuple[Any, ...]]:
    """One batch as rows of bronze but for their last column, `_batch_id`, in the order of their delivery."""
    rows = []
    for line in gzip.decompress((LANDING / entity.source / f"batch_{batch}.jsonl.gz").read_bytes()).split(b"\n")[:-1]:
        event = json.loads(line)
        if (value := event["value"]) is None:  # a tombstone
            continue
        told = event["key"] if value["op"] == "d" else value["after"] or {}
        unsent = [name for name, given in told.items() if given == UNSENT]
        cells = [_cell(None if c.name in unsent else told.get(c.name), c.type) for c in entity.contract.columns]
        at = EPOCH + dt.timedelta(microseconds=value["source"]["ts_us"])
        rows.append((*cells, value["op"], 1, value["source"]["lsn"], 0, at, unsent or None, dt.datetime(2025, 12, 31)))
    return rows


def _cell(value: Any, type_: str) -> Any:
    if value is None:
        return None
    if type_.startswith("decimal"):
        return Decimal(value)
    if type_ == "timestamp":
        return dt.datetime.fromisoformat(value).replace(tzinfo=None)
    return EPOCH.date() + dt.timedelta(days=value) if type_ == "date" else value


def model(entity: Entity) -> tuple[str, dict[str, Any]]:
    """The query of the entity's CDC model, and its configuration, from the project's file."""
    (path,) = (PROJECT_ROOT / "dbt_project" / "models" / "silver").rglob(f"{entity.history or entity.current}.sql")
    config: dict[str, Any] = {}
    template = jinja2.Template(path.read_text(encoding="utf-8"))
    query = template.render(config=lambda **given: config.update(given) or "", source=lambda _, name: f"lab.{name}")
    return query.strip(), config


def lake(entity: Entity) -> Duck:
    """An empty bronze table and the entity's model on it."""
    lab = Duck()
    columns = ", ".join(f"{column.name} {column.type}" for column in entity.contract.columns)
    lab.warehouse.connection.execute(transpile(f"create table lab.{entity.source} ({columns}, {METADATA})"))
    query, config = model(entity)
    lab.sql("model", entity.source, query, **config)
    return lab


def in_order(entity: Entity) -> Parcels:
    return [recorded(entity, batch) for batch in BATCHES]


def shuffled(entity: Entity) -> Parcels:
    """Each batch in two halves, the later first, the last batch before all others; then everything once more."""
    halves: Parcels = []
    for batch in reversed(BATCHES):
        rows = recorded(entity, batch)
        halves += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return [*halves, [row for half in halves for row in half]]


def build(lab: Duck, entity: Entity, parcels: Parcels) -> Iterator[int]:
    """Delivers and builds one parcel after the other."""
    for number, parcel in enumerate(parcels):
        lab.deliver(entity.source, [(*row, number + 1) for row in parcel])
        lab.build()
        yield number


def travelled(lab: Duck, macro: str, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
    """Rows of the model as a macro that reads it at another time gives them."""
    sql = lab.travelled(macro, "model", *arguments, **named)
    return [row.dict() for row in lab.warehouse.select(transpile(f"select * from {sql} as travelled")).rows]


def shown(lab: Duck, entity: Entity, is_current: bool) -> Iterable[dict[str, Any]]:
    """Rows of the model with their values in the truth's form."""
    return texts(entity, (row for row in lab.rows("model") if not is_current or row.get("is_current", True)))


def texts(entity: Entity, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of an entity's model with their values in the truth's form."""
    types = {c.name: c.type for c in entity.contract.columns}
    times = ["valid_from", "valid_to"] if entity.history else []
    for row in rows:
        yield {name: _text(row[name], types.get(name, "timestamp")) for name in [*types, *times]}


def _text(value: Any, type_: str) -> Any:
    if value is None or not isinstance(value, dt.date):
        return value
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if type_ == "timestamp" else value.isoformat()


@cache
def applied_in_order(entity: Entity) -> tuple[Duck, dict[int, tuple[int, list[str]]]]:
    """The entity's lake after all batches; by batch, what `wrong_rows` said after it."""
    lab = lake(entity)
    return lab, {batch: wrong_rows(lab, entity, batch) for batch in build(lab, entity, in_order(entity))}


def wrong_rows(lab: Duck, entity: Entity, batch: int) -> tuple[int, list[str]]:
    """Rows compared with PostgreSQL's after a batch, and what differs."""
    expected = truth_after(entity, batch)
    return len(expected), differences(expected, entity.by_key(shown(lab, entity, is_current=True)))


def wrong_versions(lab: Duck, entity: Entity) -> list[str]:
    snapshot = max(row[-3] for row in recorded(entity, 0)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return differences(truth_history(entity, snapshot), entity.versions_by_key(shown(lab, entity, is_current=False)))


by_entity = pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.table)


def test_after_every_batch_silver_is_what_postgresql_held_and_history_the_fold_of_the_audit() -> None:
    """Its dumps, row for row and value for value: 102 110 rows, 0 wrong."""
    compared = 0
    for entity in ENTITIES:
        lab, found = applied_in_order(entity)
        for batch, (rows, wrong) in found.items():
            assert not wrong, f"{entity.table} after batch {batch}: {len(wrong)} wrong, the first: {wrong[:3]}"
            compared += rows
        assert not entity.history or not wrong_versions(lab, entity)
    assert compared == 102_110


@by_entity
def test_other_orders_batchings_and_replays_give_the_same(entity: Entity) -> None:
    """Now and then on the way, the last state as known equals the view, version for version."""
    lab = lake(entity)
    for number in build(lab, entity, shuffled(entity)):
        if number % 4 == 3:
            known, shown = travelled(lab, "as_known_at", timestamp="2026-01-01"), lab.rows("model")
            assert known[0].keys() == shown[0].keys() - {"_batch_id"}
            assert sorted(map(repr, known)) == sorted(repr({name: row[name] for name in known[0]}) for row in shown)
    wrong = wrong_rows(lab, entity, BATCHES[-1])[1]
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"
    assert not entity.history or not wrong_versions(lab, entity)
