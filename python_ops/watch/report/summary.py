"""What the page says first: how things stand, what the last run did, and how far its rows came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from python_ops.jobs.publish import PublishStatus
from python_ops.lake.artifacts import Manifest, NodeResult, RunResults, is_test
from python_ops.lake.errors import listed
from python_ops.lake.run_record import waits
from python_ops.watch.alerts import Breach
from python_ops.watch.status import SourceStatus


@dataclass(frozen=True)
class Headline:
    """What the page says first. `level` is `good`, `warn` or `bad`."""

    level: str
    text: str


@dataclass(frozen=True)
class Stage:
    """One place on the way of the rows.

    Attributes:
        figure: The number to look at, with its unit.
        told: What else is to be known of it.
        level: `good`, `warn` or `bad`; empty where nothing is judged.
    """

    name: str
    figure: str
    told: str
    level: str


def verdict(
    record: Mapping[str, Any] | None,
    failed: Sequence[NodeResult],
    published: Sequence[PublishStatus],
    breaches: Sequence[Breach],
) -> Headline:
    """The worst fault in a sentence; where there is none, that all is well."""
    if record is None:
        return Headline("bad", "No run has been recorded.")
    if broken := [step for step in record["steps"] if step["outcome"] != "ok"]:
        waiting = waits(record.get("waiting", {}))
        told = f"The last run did not finish: {broken[0]['name']} {broken[0]['outcome']}."
        return Headline("bad", f"{told} {waiting}." if waiting else told)
    if failed:
        names = listed([result.unique_id.split(".")[2] for result in failed], 3)
        return Headline("bad", f"{len(failed)} nodes of the last build are not green: {names}.")
    if breaches:
        more = f", and {len(breaches) - 1} more" if len(breaches) > 1 else ""
        return Headline("warn", f"A service level is breached: {breaches[0].subject} {breaches[0].kind.value}{more}.")
    if silent := sorted({table.target for table in published if table.error}):
        return Headline("warn", f"Not answering: {', '.join(silent)}.")
    if behind := [table.table for table in published if table.state not in ("current", "dropped")]:
        return Headline("warn", f"Not published yet: {listed(behind)}.")
    return Headline("good", "The last run is green, and what it built is served.")


def happened(record: Mapping[str, Any] | None, results: RunResults, manifest: Manifest) -> str:
    """What the last run that did something took, built and sent, and what of it was slowest."""
    record = (record or {}).get("last_done") or record
    if record is None:
        return ""
    began = datetime.fromisoformat(record["started_at"]).astimezone(UTC)
    taken = sum(step["seconds"] for step in record["steps"])
    read, rejected = _summed(record, "read"), _summed(record, "quarantined")
    told = f"lakeops {record['command']} of {began:%Y-%m-%d %H:%M} UTC took {_span(taken)}: "
    told += f"{read} records read, {rejected} rejected, {_summed(record, 'published')} tables published."
    models = [result for node, result in results.nodes.items() if node in manifest.models and result.seconds]
    steps = [step for step in record["steps"] if step["seconds"]]
    if steps and models:
        step = max(steps, key=lambda step: float(step["seconds"]))
        model = max(models, key=lambda result: result.seconds)
        told += f" Slowest step: {step['name']}, {_span(step['seconds'])}. "
        told += f"Slowest model of the last build: {manifest.models[model.unique_id].name}, {model.seconds:.1f} s."
    return told


def stages(
    record: Mapping[str, Any] | None,
    sources: Sequence[SourceStatus],
    rejected: int,
    results: RunResults,
    manifest: Manifest,
    published: Sequence[PublishStatus],
) -> list[Stage]:
    """The way of the rows through the last run that did something: delivered, bronze, silver, gold, served."""
    record = (record or {}).get("last_done") or record or {"steps": []}
    waiting = sum(source.waiting_files for source in sources)
    halted = [source.source for source in sources if source.halted]
    told = f"{rejected} rejected, open" + (f"; halted: {', '.join(halted)}" if halted else "")
    found = [
        Stage("Delivered", f"{_summed(record, 'read')} records", f"{waiting} files waiting", "warn" if waiting else ""),
        Stage(
            "Bronze", f"{_summed(record, 'accepted')} rows", told, "bad" if halted else "warn" if rejected else "good"
        ),
    ]
    for layer in ("silver", "gold"):
        built = [result for node, result in results.nodes.items()
                 if node in manifest.models and manifest.models[node].layer == layer]  # fmt: skip
        green = sum(result.green for result in built)
        tests = [r for n, r in results.nodes.items() if is_test(n) and manifest.layer_of(n) == layer]
        passed = f"{sum(test.green for test in tests)} of {len(tests)} tests passed"
        level = "good" if green == len(built) and all(test.green for test in tests) else "bad"
        if not built and not tests:  # a build of one model leaves the other layers as they were
            level, passed = "", "as it was"
        found.append(
            Stage(layer.capitalize(), f"{green} of {len(built)} models" if built else "not built", passed, level)
        )
    served = [table for table in published if table.state != "dropped"]
    current = sum(table.state == "current" for table in served)
    told = ", ".join(sorted({table.target for table in served})) or "no warehouse"
    found.append(
        Stage("Served", f"{current} of {len(served)} tables", told, "good" if current == len(served) else "warn")
    )
    return found


def _summed(record: Mapping[str, Any], name: str) -> int:
    return sum(int(step["summary"].get(name, 0)) for step in record["steps"])


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
