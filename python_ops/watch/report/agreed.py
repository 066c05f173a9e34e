"""What was agreed with whom: contracts with their changes, owners, and what readers are given."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from python_ops.lake import marks
from python_ops.lake.artifacts import BusinessMetric, Manifest
from python_ops.lake.contracts.compatibility import Change, changes
from python_ops.lake.contracts.releases import check, registered, released, versions
from python_ops.lake.errors import ContractError
from python_ops.lake.lake import Lake


@dataclass(frozen=True)
class Agreed:
    """One source's contract.

    Attributes:
        released: Last released version; None when there is none.
        state: `released`, `in work` or why it is refused.
        changes: Each with the version that it came with, the newest first.
    """

    source: str
    version: str
    released: str | None
    owner: str
    columns: int
    personal: int
    state: str
    changes: list[tuple[str, Change]]


@dataclass(frozen=True)
class Offered:
    """One gold table, as its readers see it.

    Attributes:
        marks: Its domain and sensitivity.
        personal: Columns about persons.
        readers: Engines that read the lake's own table.
        served: Warehouses that it is published to, if the environment publishes to them.
        metrics: Business metrics that are computed from it.
    """

    table: str
    owner: str
    marks: marks.Marks
    personal: tuple[str, ...]
    readers: tuple[str, ...]
    served: tuple[str, ...]
    metrics: tuple[BusinessMetric, ...]


def offered(manifest: Manifest) -> list[Offered]:
    """The gold tables, by name."""
    return [
        Offered(
            model.table, manifest.owner_of(model), marks.of_model(model), marks.personal_columns(model),
            tuple(model.meta.get("readers", ())), tuple(model.meta.get("publish_to", ())),
            tuple(metric for metric in manifest.metrics.values() if model.unique_id in metric.models),
        )
        for model in sorted(manifest.models.values(), key=lambda model: model.table)
        if model.layer == "gold"
    ]  # fmt: skip


def agreed(lake: Lake) -> list[Agreed]:
    """The contracts of all sources, and what each version changed."""
    found = []
    for source in sorted({*registered()} & {*lake.contracts.sources}):
        verdict = check(source)
        if verdict.version is None:
            continue
        contract = lake.contracts.load(source)
        history = [(verdict.version, change) for change in verdict.changes]
        try:
            known = [released(source, version) for version in versions(source)]
        except ContractError:  # `check` has said so
            known = []
        for old, new in reversed(list(pairwise(known))):
            history += [(new.version, change) for change in changes(old, new)]
        state = "; ".join(verdict.faults) or ("in work" if verdict.waits else "released")
        found.append(
            Agreed(
                source, verdict.version, verdict.released, contract.owner, len(contract.columns),
                sum(column.pii for column in contract.columns), state, history,
            )
        )  # fmt: skip
    return found


def owners(manifest: Manifest, contracts: list[Agreed]) -> dict[str, dict[str, list[str]]]:
    """What each owner owns, by kind: sources, models, and what reads them from outside."""
    found: dict[str, dict[str, list[str]]] = {}
    for contract in contracts:
        found.setdefault(contract.owner, {}).setdefault("sources", []).append(contract.source)
    for model in sorted(manifest.models.values(), key=lambda model: model.name):
        found.setdefault(manifest.owner_of(model), {}).setdefault("models", []).append(model.name)
    for exposure in manifest.exposures.values():
        found.setdefault(exposure.owner, {}).setdefault("exposures", []).append(exposure.name)
    return dict(sorted(found.items()))
