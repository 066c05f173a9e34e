"""What was agreed with whom: contracts with their changes, and owners."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from python_ops.lake.artifacts import Manifest
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
