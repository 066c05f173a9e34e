"""The engine against an independent fold: every order, batching and replay of the same changes, one result."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest
from cdc_fold import Event, Options, fold, instant
from cdc_histories import COLUMNS, deliveries, histories
from cdc_lab import Lab

pytestmark = pytest.mark.spark

SEED = int(os.environ.get("LAKEHOUSE_TEST_SEED", "20250303"))
KEYS = 2000
BATCHES = 4
BASE = {
    "unique_key": "k",
    "sequence_by": ["seq"],
    "delete_when": "_op = 'd'",
    "truncate_when": "_op = 't'",
}
SCD2 = {"incremental_strategy": "cdc_scd2", "effective_at": "ts", **BASE}
SCD1 = {"incremental_strategy": "cdc_scd1", **BASE}
SELECT = "k, a, b, c, _op, seq, ts, _arrived_at, _batch_id"
SELECT_UNSENT = "k, a, b, c, _op, seq, ts, move as _move, _unsent, _arrived_at, _batch_id"

# Model: bronze table, SELECT, dbt configuration, the fold's options.
MODELS: dict[str, tuple[str, str, dict[str, Any], Options]] = {
    "versions": ("clean", SELECT, SCD2, Options(COLUMNS, tracked=COLUMNS)),
    "versions_untracked": (
        "clean", SELECT, {**SCD2, "track_history_except": ["c"]}, Options(COLUMNS, tracked=("a", "b")),
    ),
    "versions_ignoring_null": (
        "clean", SELECT, {**SCD2, "ignore_null_updates": ["a", "c"], "track_history": ["a", "b"]},
        Options(COLUMNS, tracked=("a", "b"), ignore_null=("a", "c")),
    ),
    "versions_moved": (
        "clean", SELECT_UNSENT, {**SCD2, "moved_from": ["_move"]},
        Options(COLUMNS, tracked=COLUMNS, unsent=True, moved_from=True),
    ),
    "states": ("clean", SELECT.replace(" ts,", ""), SCD1, Options(COLUMNS, scd2=False)),
    "states_moved": (
        "clean", SELECT_UNSENT.replace(" ts,", ""), {**SCD1, "moved_from": ["_move"]},
        Options(COLUMNS, scd2=False, unsent=True, moved_from=True),
    ),
    "versions_tied": (
        "tied", SELECT_UNSENT, {**SCD2, "on_tie": "warn"},
        Options(COLUMNS, tracked=COLUMNS, unsent=True, warn_on_tie=True),
    ),
    "states_tied": (
        "tied", SELECT.replace(" ts,", ""), {**SCD1, "on_tie": "warn", "ignore_null_updates": True},
        Options(COLUMNS, scd2=False, ignore_null=COLUMNS, warn_on_tie=True),
    ),
}  # fmt: skip


def bronze_row(event: Event, batch: int) -> tuple[Any, ...]:
    """An event as a row of the laboratory's bronze table."""
    return (
        event.key, *(event.values or (None,) * len(COLUMNS)), event.op, event.sequence,
        dt.datetime.fromisoformat(instant(event.time)), sorted(event.unsent) or None, event.move,
        dt.datetime(2025, 12, 31), batch,
    )  # fmt: skip


def result(lab: Lab, name: str, options: Options) -> dict[str, list[tuple[Any, ...]]]:
    """Visible rows of a model in the fold's form."""
    times = ["valid_from", "valid_to"] if options.scd2 else []
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in lab.spark.table(f"{lab.schema}.{name}").select("k", *COLUMNS, *times).collect():
        ends = [None if row[time] is None else row[time].isoformat() for time in times]
        found.setdefault(row["k"], []).append((*(row[column] for column in COLUMNS), *ends))
    return {key: sorted(rows, key=lambda r: r[len(COLUMNS) :][:1]) for key, rows in found.items()}


def expected(events: list[Event], options: Options) -> dict[str, list[tuple[Any, ...]]]:
    """The fold's rows with times as the engine gives them."""
    if not options.scd2:
        return fold(events, options)
    as_text = lambda t: None if t is None else dt.datetime.fromisoformat(instant(t)).isoformat()  # noqa: E731
    return {
        key: [(*row[:-2], as_text(row[-2]), as_text(row[-1])) for row in rows]
        for key, rows in fold(events, options).items()
    }


def differences(got: dict[str, Any], want: dict[str, Any]) -> list[str]:
    """The first few keys that differ, readable."""
    keys = sorted(key for key in got.keys() | want.keys() if got.get(key) != want.get(key))
    return [f"{len(keys)} keys differ"] * bool(keys) + [
        f"{key}: got {got.get(key)}, want {want.get(key)}" for key in keys[:5]
    ]


def make_lab(spark: Any, folder: Path, schema: str, names: list[str]) -> Lab:
    """A laboratory with the named models and their bronze tables."""
    lab = Lab(spark, folder, schema)
    for source in ("clean", "tied"):
        lab.bronze(source, "k string, a string, b string, c string")
    for name in names:
        source, select, config, _ = MODELS[name]
        lab.model(name, source, select, **config)
    return lab


def assert_sound(lab: Lab, name: str) -> None:
    """No key and sequence is stored twice (a truncate's key is NULL)."""
    twice = lab.spark.sql(
        f"select k, seq, count(*) from {lab.schema}.{name}__cdc group by k, seq having count(*) > 1"
    ).collect()
    assert twice == [], f"{name}: stored twice: {twice[:3]}"


@pytest.fixture(scope="module")
def applied(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, dict[str, list[Event]]]:
    """All models after random deliveries, one dbt run per batch."""
    lab = make_lab(spark, tmp_path_factory.mktemp("lab"), "properties", list(MODELS))
    events = {
        "clean": histories(SEED, KEYS),
        "tied": histories(SEED + 1, KEYS, ties=True),
    }
    parcels = {name: deliveries(SEED, found, BATCHES) for name, found in events.items()}
    for batch in range(BATCHES):
        for source in parcels:
            lab.deliver(source, [bronze_row(event, batch + 1) for event in parcels[source][batch]])
        lab.build()
    return lab, events


@pytest.mark.parametrize("name", MODELS)
def test_random_deliveries_equal_the_fold(applied: Any, name: str) -> None:
    lab, events = applied
    source, _, _, options = MODELS[name]
    assert differences(result(lab, name, options), expected(events[source], options)) == []
    assert_sound(lab, name)


def test_a_replay_of_everything_changes_nothing(applied: Any) -> None:
    lab, events = applied
    before = {name: result(lab, name, MODELS[name][3]) for name in MODELS}
    commits = {name: len(lab.data_commits(f"{name}__cdc")) for name in MODELS}
    for source, found in events.items():
        lab.deliver(source, [bronze_row(event, BATCHES + 1) for event in reversed(found)])
    lab.build()
    versions = {name: lab.version(f"{name}__cdc") for name in MODELS}
    assert {name: result(lab, name, MODELS[name][3]) for name in MODELS} == before
    assert {name: len(lab.data_commits(f"{name}__cdc")) for name in MODELS} == commits
    lab.build()
    assert {name: lab.version(f"{name}__cdc") for name in MODELS} == versions
    assert all(message.startswith("nothing new") for message in lab.messages.values()), lab.messages


def test_a_full_refresh_gives_the_same(applied: Any) -> None:
    lab, events = applied
    lab.build(full_refresh=True)
    for name, (source, _, _, options) in MODELS.items():
        assert differences(result(lab, name, options), expected(events[source], options)) == [], name
        assert_sound(lab, name)
