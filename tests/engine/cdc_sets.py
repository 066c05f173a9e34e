"""The option sets that the engine is tried with against the fold, by DuckDB (tests/engine) and by Spark (tests/e2e)."""

from __future__ import annotations

import datetime as dt
from typing import Any, Protocol

from cdc_fold import Event, Options, fold, instant
from cdc_histories import COLUMNS

# Columns of a bronze table after its key and values.
METADATA = (
    "_op string, seq bigint, ts timestamp, _unsent array<string>, move bigint, _arrived_at timestamp, _batch_id bigint"
)
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


class Tables(Protocol):
    """A laboratory on DuckDB or on Spark."""

    def bronze(self, name: str, columns: str) -> None: ...
    def model(self, name: str, source: str, select: str, **config: Any) -> None: ...
    def rows(self, name: str, columns: str) -> list[dict[str, Any]]: ...


def add_models(lab: Tables, *names: str) -> None:
    """The named models and their bronze tables."""
    for source in sorted({MODELS[name][0] for name in names}):
        lab.bronze(source, "k string, a string, b string, c string")
    for name in names:
        source, select, config, _ = MODELS[name]
        lab.model(name, source, select, **config)


def bronze_row(event: Event, batch: int) -> tuple[Any, ...]:
    """An event as a row of the bronze table."""
    return (
        event.key, *(event.values or (None,) * len(COLUMNS)), event.op, event.sequence,
        dt.datetime.fromisoformat(instant(event.time)), sorted(event.unsent) or None, event.move,
        dt.datetime(2025, 12, 31), batch,
    )  # fmt: skip


def result(lab: Tables, name: str) -> dict[str, list[tuple[Any, ...]]]:
    """Visible rows of a model in the fold's form."""
    times = ["valid_from", "valid_to"] if MODELS[name][3].scd2 else []
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in lab.rows(name, ", ".join(["k", *COLUMNS, *times])):
        ends = [None if row[time] is None else row[time].isoformat() for time in times]
        found.setdefault(row["k"], []).append((*(row[column] for column in COLUMNS), *ends))
    return {key: sorted(rows, key=lambda r: r[len(COLUMNS) :][:1]) for key, rows in found.items()}


def expected(events: list[Event], name: str) -> dict[str, list[tuple[Any, ...]]]:
    """The fold's rows with times as the engine gives them."""
    options = MODELS[name][3]
    if not options.scd2:
        return fold(events, options)
    as_text = lambda t: None if t is None else dt.datetime.fromisoformat(instant(t)).isoformat()  # noqa: E731
    return {
        key: [(*row[:-2], as_text(row[-2]), as_text(row[-1])) for row in rows]
        for key, rows in fold(events, options).items()
    }


def differences(got: dict[str, Any], want: dict[str, Any]) -> list[str]:
    """The first few keys that differ, readable."""
    keys = sorted((key for key in got.keys() | want.keys() if got.get(key) != want.get(key)), key=str)
    return [f"{len(keys)} keys differ"] * bool(keys) + [
        f"{key}: got {got.get(key)}, want {want.get(key)}" for key in keys[:5]
    ]


def stored_twice(lab: Tables, name: str) -> list[tuple[Any, Any]]:
    """Keys and sequences with more than one stored row (a truncate's key is NULL)."""
    seen = [(row["k"], row["seq"]) for row in lab.rows(f"{name}__cdc", "k, seq")]
    return sorted(set(seen), key=str) if len(seen) != len(set(seen)) else []
