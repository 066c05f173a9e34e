"""Stand-ins for the macros of packages/delta_cdc that models call: SQL of the same shape, for `sqlfluff lint`."""

from __future__ import annotations


def changed_keys(upstream: str) -> str:
    return f"select * from {upstream}"


def touched_keys(query: str) -> str:
    return "touched"


def cdc_storage(relation: str) -> str:
    return relation


def cdc_changes(relation: str) -> str:
    return relation


def at_version(relation: str) -> str:
    return relation
