"""What halts a batch before any of it is visible, and what is only a warning."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from python_ops.jobs.ingest.formats import format_of
from python_ops.lake.contracts import ANY_SCHEMA, Contract
from python_ops.lake.ledger import Batch, Ledger
from python_ops.lake.rejections import MISTYPED, Kind, Rejection, by_text

# Without a limit of its own a batch halts when all of it would be rejected. One poison record that came alone does not
# stop a table.
FEWEST_TO_HALT = 5

_DIGITS = re.compile("([0-9]+)")

# A complete snapshot that lacks more of the living keys is more likely cut off than true.
SNAPSHOT_DELETE_SHARE = 0.5


@dataclass(frozen=True)
class Findings:
    """What the one pass over a batch found.

    Attributes:
        counts: Records by outcome, as in Batch.
        rejected: Rejected records by reason and column.
        changes: Accepted records by what was changed to take them.
        extra: Delivered columns that the contract lacks.
        unknown: Versions of the layout that the contract does not know.
        positions: Lowest and highest source position.
        living: Keys of bronze that are not deleted; None if not asked for.
        deleted: Keys that the batch deletes, or that a complete snapshot lacks; None if not asked for.
        origins: Schemas of the tables whose events it holds.
    """

    counts: dict[str, int]
    rejected: tuple[Rejection, ...] = ()
    changes: dict[str, int] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    positions: tuple[int, int] | None = None
    living: int | None = None
    deleted: int | None = None
    origins: tuple[str, ...] = ()


def fingerprint(contract: Contract, generation: int) -> str:
    """Changes when a halted batch has to be judged again."""
    return hashlib.sha256(f"{contract!r} {generation}".encode()).hexdigest()[:16]


def positions_taken(ledger: Ledger, generation: int) -> tuple[int, int] | None:
    """Lowest and highest source position of a generation's committed batches."""
    taken = [m.positions for m in ledger.committed if m.generation == generation and m.positions]
    return (min(low for low, _ in taken), max(high for _, high in taken)) if taken else None


def reasons_to_halt(contract: Contract, ledger: Ledger, manifest: Batch, found: Findings) -> list[str]:
    """Why the batch is halted, each reason with what to do; empty if it is not."""
    counts, limits = found.counts, contract.thresholds
    reasons = []
    if found.unknown:
        reasons.append(
            f"{counts['quarantined']} records have layout version {', '.join(found.unknown)}, which the contract "
            f"{contract.version} does not know. Add it to schema_version.known; the next run takes the batch again."
        )
    judged = counts["accepted"] + counts["quarantined"]
    share = counts["quarantined"] / judged if judged else 0.0
    most = limits.max_rejected_share
    all_bad = most is None and share == 1 and judged >= FEWEST_TO_HALT
    if all_bad or (most is not None and share > most):
        allowed = "all" if most is None else f"the contract allows {most:.2%}"
        reasons.append(
            f"{counts['quarantined']} of {judged} records would be rejected ({allowed}): {_most_often(found.rejected)}."
        )
    base64 = sum(each.records for each in found.rejected if each.kind is Kind.BASE64)
    if base64 >= FEWEST_TO_HALT and base64 * 2 > judged:
        reasons.append(f"{base64} of {judged} records have decimals in base64: set decimal.handling.mode=string.")
    reasons += _strange_schema(contract, ledger, found)
    reasons += _new_generation(contract, ledger, manifest, found)
    if limits.position_backwards == "halt" and (behind := lies_behind(ledger, manifest, found)):
        reasons.append(behind)
    if manifest.snapshot_at and counts["quarantined"]:
        reasons.append(
            f"the complete snapshot has {counts['quarantined']} records that would be rejected, and their keys would "
            f"count as deleted: {_most_often(found.rejected)}."
        )
    broken = [f"{file.name} ({file.fault})" for file in manifest.files if file.fault]
    if manifest.snapshot_at and broken and found.deleted:
        reasons.append(
            f"a part of the complete snapshot is rejected, and its keys would count as deleted: {', '.join(broken)}."
        )
    share_limit = limits.max_delete_share
    if share_limit is None and manifest.snapshot_at:
        share_limit = SNAPSHOT_DELETE_SHARE
    if share_limit is not None and found.living and (found.deleted or 0) / found.living > share_limit:
        reasons.append(
            f"it deletes {found.deleted} of {found.living} keys; at most {share_limit:.2%} may go in one batch."
        )
    return reasons


def lies_behind(ledger: Ledger, manifest: Batch, found: Findings) -> str | None:
    """A reason if all of the batch lies before positions already taken: late, repeated, or a source set back."""
    taken = positions_taken(ledger, manifest.generation)
    if taken is None or found.positions is None or found.positions[1] >= taken[1]:
        return None
    return (
        f"its positions end at {found.positions[1]}, behind {taken[1]}, which was already taken: late or repeated "
        "events, or a source that was set back."
    )


def _has_lain_behind(ledger: Ledger, generation: int) -> bool:
    """Whether an earlier batch lay behind what had been taken before it."""
    ends = [m.positions[1] for m in ledger.committed if m.positions and m.generation == generation]
    return any(end < highest for end, highest in zip(ends[1:], accumulate(ends, max), strict=False))


def warnings(contract: Contract, ledger: Ledger, manifest: Batch, found: Findings) -> list[str]:
    """What an operator should look at."""
    told, counts = [], found.counts
    if not _has_lain_behind(ledger, manifest.generation) and (behind := lies_behind(ledger, manifest, found)):
        told.append(
            f"batch {manifest.batch_id}: {behind} Late events are put where they belong; if the source was set back, "
            f"`lakeops ingest generation {contract.source} --new`. This is said once per source."
        )
    if types := [each for each in found.rejected if each.kind in MISTYPED]:
        told.append(f"batch {manifest.batch_id}: values of another type than the contract's: {_most_often(types)}.")
    if dropped := counts.get("suppressed"):
        told.append(
            f"batch {manifest.batch_id}: {dropped} records of people who were erased were dropped. "
            "`lakeops erase run --erased` takes them out of the landing files as well."
        )
    told += [*_renamed(contract, manifest), *_left_out(manifest), *_out_of_order(contract, ledger, manifest)]
    if manifest.generation > 1 and manifest.snapshot_at is None and _is_full_load(contract, manifest):
        told.append(
            f"batch {manifest.batch_id}: a full load that is not marked as a complete snapshot: keys that it lacks "
            "stay. Deliver `<file>.snapshot` beside it to delete them."
        )
    return told


def _strange_schema(contract: Contract, ledger: Ledger, found: Findings) -> list[str]:
    if contract.schema is not None:
        return []
    known = {origin for manifest in ledger.committed for origin in manifest.origins}
    seen = known | set(found.origins)
    if len(seen) < 2 or seen == known:
        return []
    return [
        f"it has events of the table {contract.table} of several schemas ({', '.join(sorted(seen))}), whose rows would "
        "replace each other. Name the one in the contract's `schema`: the others' events are rejected then. "
        f"`schema: '{ANY_SCHEMA}'` takes all."
    ]


def _renamed(contract: Contract, manifest: Batch) -> list[str]:
    """Headers that lack columns of the contract and have unknown ones: a renamed column would silently be NULL."""
    wanted = [column.name for column in contract.columns]
    told = {}
    for file in manifest.files:
        missing = [name for name in wanted if name not in file.layout]
        if file.header and not file.fault and missing and set(file.layout) - set(wanted):
            told[tuple(missing)] = file.name
    return [
        f"batch {manifest.batch_id}: {name} has no {', '.join(missing)}, NULL in its rows, and columns that the "
        "contract lacks: renamed?"
        for missing, name in told.items()
    ]


def _left_out(manifest: Batch) -> list[str]:
    """Columns of parquet files that are not read, each with one file that has it."""
    files = {name: file.name for file in manifest.files if not file.fault for name in file.left_out}
    return [
        f"batch {manifest.batch_id}: {file} has the column {name}, of a type that is not read. The contract lacks it, "
        "and its values are not kept."
        for name, file in files.items()
    ]


def _out_of_order(contract: Contract, ledger: Ledger, manifest: Batch) -> list[str]:
    """File names whose numbers are in another order than their texts, by which models order them: export_9, export_10.

    It is enough to compare neighbours in the order of the numbers.
    """
    if format_of(contract).has_changes:
        return []
    new = {file.name for file in manifest.files}
    every = sorted({*ledger.taken(), *new}, key=_by_number)
    for one, next_one in pairwise(every):
        if one > next_one and {one, next_one} & new and _DIGITS.sub("#", one) == _DIGITS.sub("#", next_one):
            return [
                f"batch {manifest.batch_id}: as a text {next_one} comes before {one}, so a model that orders by "
                "`_file` takes its rows for the older ones. Write numbers with leading zeros, or order by the number "
                "(docs/guides/adding_a_source.md)."
            ]
    return []


def _by_number(name: str) -> list[str | int]:
    return [int(part) if place % 2 else part for place, part in enumerate(_DIGITS.split(name))]


def _new_generation(contract: Contract, ledger: Ledger, manifest: Batch, found: Findings) -> list[str]:
    taken = positions_taken(ledger, manifest.generation)
    if taken is None or found.positions is None:
        return []
    then = f"`lakeops ingest generation {contract.source} --new --execute`, then `lakeops ingest run {contract.source}`"
    if _is_full_load(contract, manifest):
        if taken[1] > 0:
            return [
                f"it is a full load, and changes after one were already taken. A reload is a new generation: {then}."
            ]
    elif found.positions[1] * 2 < taken[0]:
        return [
            f"its positions ({found.positions[0]} to {found.positions[1]}) are far below all that were taken "
            f"({taken[0]} to {taken[1]}): a new slot or a restored database. If so: {then}."
        ]
    return []


def _is_full_load(contract: Contract, manifest: Batch) -> bool:
    return any(format_of(contract).is_full_load(file.name) for file in manifest.files)


def _most_often(rejected: Iterable[Rejection]) -> str:
    most = sorted(by_text(rejected).items(), key=lambda item: -item[1])[:3]
    return "; ".join(f"{count} × {text}" for text, count in most) or "no reason"
