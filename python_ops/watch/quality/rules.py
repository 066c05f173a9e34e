"""The expectations of one batch, made from its contract, as plain data."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from python_ops.lake.contracts import Contract
from python_ops.lake.contracts.metadata import METADATA
from python_ops.lake.ledger import Batch

LEAST_BATCHES = 3
"""Batches before this one without which nothing is compared with them."""

MOST_CATEGORIES = 50
TAIL_WEIGHT = 0.01
"""Share that values get which the recent batches lack: a new value is unlikely, not impossible."""

HAS_VALUES = "_has_values"
"""Column of the judged rows: 1 where the row carries every value; 0 for deletes, truncates, rows with unsent values."""

HAS_KEY = "_has_key"
"""Column of the judged rows: 1 where the row carries a key; 0 for truncates."""

AGE = "_age_minutes"
"""Column of the judged rows: how much older than the batch's arrival the row is, by the column of the freshness."""


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes:
        kind: Name of the class in great_expectations.expectations.
        says: The expectation in words, for the page and the verdict.
        arguments: Of the class.
        among: Column whose rows with 1 are judged; None for all rows.
    """

    kind: str
    says: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    among: str | None = None


Recent = Callable[[Sequence[str]], Mapping[str, Sequence[Any]]]
"""Values of the recent batches by column, NULLs left out."""


def rules(
    contract: Contract, manifest: Batch, before: Sequence[Batch], recent: Recent
) -> tuple[list[Rule], tuple[str, ...]]:
    """The expectations of a batch.

    Args:
        contract: As it is today.
        manifest: Of the batch.
        before: Of the batches that it is compared with, oldest first.
        recent: Reads their values; called at most once, with the columns whose drift is watched.

    Returns:
        The rules, and what cannot be judged yet, with the reason.
    """
    found = [*_of_every_batch(contract, manifest), *_of_columns(contract), *_freshness(contract)]
    asked = contract.expectations
    if asked.row_count_change is None and not asked.drift:
        return found, ()
    if len(before) < LEAST_BATCHES:
        compared = (["the row count"] if asked.row_count_change else []) + [f"drift of {name}" for name in asked.drift]
        why = f"batches before it: {len(before)}, needed: {LEAST_BATCHES}"
        return found, tuple(f"{what}: {why}" for what in compared)
    found += _row_count(contract, before)
    values = recent(list(asked.drift)) if asked.drift else {}
    found += [_drift(name, limit, values[name], len(before)) for name, limit in asked.drift.items() if values[name]]
    return found, tuple(f"drift of {name}: only NULLs before it" for name in asked.drift if not values[name])


def _of_every_batch(contract: Contract, manifest: Batch) -> list[Rule]:
    names = [column.name for column in (*contract.columns, *METADATA)]
    rows = manifest.rows
    return [
        Rule(
            "ExpectTableColumnsToMatchSet",
            f"The table has the {len(contract.columns)} columns of the contract and those that ingestion adds.",
            {"column_set": [*names, HAS_VALUES, HAS_KEY], "exact_match": False},
        ),
        Rule("ExpectTableRowCountToEqual", f"Every accepted record is there: {rows} rows.", {"value": rows}),
        Rule(
            "ExpectColumnValuesToBeInSet",
            "Every operation is one that the change engine knows.",
            {"column": "_op", "value_set": ["c", "u", "d", "r", "t"]},
        ),
    ]


def _of_columns(contract: Contract) -> list[Rule]:
    found = [
        Rule(
            "ExpectColumnValuesToNotBeNull",
            f"{column.name} is never NULL" + (", for it is part of the key." if column.name in contract.key else "."),
            {"column": column.name},
            HAS_KEY if column.name in contract.key else HAS_VALUES,
        )
        for column in contract.columns
        if column.required
    ]
    found += [
        Rule(
            "ExpectColumnProportionOfNonNullValuesToBeBetween",
            f"At most {share:.1%} of {name} are NULL.",
            {"column": name, "min_value": 1 - share},
            HAS_VALUES,
        )
        for name, share in contract.expectations.null_share.items()
    ]
    return found


def _freshness(contract: Contract) -> list[Rule]:
    asked = contract.expectations.freshness
    if asked is None:
        return []
    says = f"The newest {asked.column} is at most {asked.max_age_minutes:g} minutes older than the batch's arrival."
    return [Rule("ExpectColumnMinToBeBetween", says, {"column": AGE, "max_value": asked.max_age_minutes})]


def _row_count(contract: Contract, before: Sequence[Batch]) -> list[Rule]:
    change = contract.expectations.row_count_change
    if change is None:
        return []
    middle = statistics.median(m.counts["accepted"] for m in before)
    least, most = max(0, round(middle * (1 - change))), round(middle * (1 + change))
    says = f"Between {least} and {most} rows: the median of the last {len(before)} batches is {middle:g}."
    return [Rule("ExpectTableRowCountToBeBetween", says, {"min_value": least, "max_value": most})]


def _drift(name: str, limit: float, values: Sequence[Any], batches: int) -> Rule:
    partition = _of_numbers(values) if isinstance(values[0], int | float | Decimal) else _of_categories(values)
    arguments = {"column": name, "partition_object": partition, "threshold": limit}
    arguments["tail_weight_holdout"] = TAIL_WEIGHT
    if "bins" in partition:
        arguments["internal_weight_holdout"] = TAIL_WEIGHT
    says = f"Values of {name} are spread as in the last {batches} batches: Kullback-Leibler divergence below {limit:g}."
    return Rule("ExpectColumnKLDivergenceToBeLessThan", says, arguments)


def _of_categories(values: Sequence[Any]) -> dict[str, Any]:
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    common = sorted(counts, key=lambda value: (-counts[value], str(value)))[:MOST_CATEGORIES]
    total = sum(counts[value] for value in common)
    return {"values": common, "weights": [counts[value] / total for value in common]}


def _of_numbers(values: Sequence[Any]) -> dict[str, Any]:
    """Tenths of the recent values; of few different values, a bin for each."""
    numbers = sorted(float(value) for value in values if value is not None)
    edges = sorted({numbers[0], *statistics.quantiles(numbers, n=10, method="inclusive"), numbers[-1]})
    if len(edges) == 1:
        edges = [edges[0] - 0.5, edges[0] + 0.5]
    last = len(edges) - 2
    inside = [
        sum(edges[i] <= number < edges[i + 1] or (i == last and number == edges[-1]) for number in numbers)
        for i in range(len(edges) - 1)
    ]
    return {"bins": edges, "weights": [count / len(numbers) for count in inside]}
