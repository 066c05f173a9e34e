"""The record of the last run: `state/last_run.json`, written as the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake


def last_run(lake: Lake) -> dict[str, Any] | None:
    """The record, or None: command, started_at, steps (name, outcome, seconds, summary), waiting, left_out,
    unchanged_since.

    Where there was nothing to do also `last_done`: the record of the last run that did something.
    """
    with suppress(OSError, ValueError):
        record: dict[str, Any] = json.loads((lake.state / "last_run.json").read_text(encoding="utf-8"))
        return record
    return None


def left_out(lake: Lake, invocation: str) -> tuple[str, ...]:
    """Sources whose readers `lakeops run` left out of a dbt command; none where it was not the one that ran it.

    Args:
        invocation: dbt's identifier of the command, as run_results.json has it.
    """
    told = (last_run(lake) or {}).get("left_out", {})
    return tuple(told["sources"]) if told.get("invocation") == invocation else ()


def waits(waiting: Mapping[str, Sequence[str]]) -> str:
    """Models that wait, by the source that stopped them."""
    return "; ".join(f"{', '.join(models)} wait for {source}" for source, models in waiting.items() if models)


def save_run(lake: Lake, record: dict[str, Any]) -> None:
    """Replaces the record, whole or not at all."""
    write_whole(lake.state / "last_run.json", json.dumps(record, indent=1))
