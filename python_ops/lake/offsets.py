"""Which records of a Kafka topic a source's batches hold: ranges of offsets, as its ledger or its tables know them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

SCHEME = "kafka://"
_NAME = re.compile(rf"^{SCHEME}([^/]+)/([0-9]+)$")


@dataclass(frozen=True, order=True)
class Offsets:
    """Records of one partition of a topic: from `start`, up to and without `end`."""

    topic: str
    partition: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """What `_file` says in place of a landing file, whose names have no slash; `_line` is the offset."""
        return f"{SCHEME}{self.topic}/{self.partition}"


def parse(name: str) -> tuple[str, int] | None:
    """Topic and partition of a `_file`; None for a landing file."""
    found = _NAME.match(name)
    return (found[1], int(found[2])) if found else None


def merged(ranges: Iterable[Offsets], topic: str) -> dict[int, list[tuple[int, int]]]:
    """Disjoint (start, end) of each partition of the topic, in order; ranges that touch are one."""
    found: dict[int, list[tuple[int, int]]] = {}
    for given in sorted(ranges):
        if given.topic != topic or given.start >= given.end:
            continue
        known = found.setdefault(given.partition, [])
        if known and given.start <= known[-1][1]:
            known[-1] = (known[-1][0], max(known[-1][1], given.end))
        else:
            known.append((given.start, given.end))
    return found


def next_offsets(ranges: Iterable[Offsets], topic: str) -> dict[int, int]:
    """The offset after the highest that was taken, by partition."""
    return {partition: known[-1][1] for partition, known in merged(ranges, topic).items()}


def gaps(ranges: Iterable[Offsets], topic: str) -> tuple[Offsets, ...]:
    """Offsets between those that were taken: what a restored table lost, while later ones are there."""
    return tuple(
        Offsets(topic, partition, before[1], after[0])
        for partition, known in merged(ranges, topic).items()
        for before, after in pairwise(known)
    )


def of_rows(*tables: Mapping[int, Mapping[str, tuple[int, int]]]) -> dict[int, tuple[Offsets, ...]]:
    """Offsets of each batch, from the lowest and highest line by batch and file in bronze and dead letters.

    Tombstones and blank records leave no row, so a range begins where those of the batches before it ended.
    """
    ends: dict[str, int] = {}
    found: dict[int, tuple[Offsets, ...]] = {}
    for batch_id in sorted({batch_id for table in tables for batch_id in table}):
        given = [table.get(batch_id, {}) for table in tables]
        taken = []
        for name in sorted({name for lines in given for name in lines if parse(name)}):
            lowest = min(lines[name][0] for lines in given if name in lines)
            end = max(lines[name][1] for lines in given if name in lines) + 1
            topic, partition = parse(name) or ("", 0)
            # A batch that took lost records again lies before what was taken since.
            taken.append(Offsets(topic, partition, min(ends.get(name, lowest), lowest), end))
            ends[name] = max(ends.get(name, 0), end)
        found[batch_id] = tuple(taken)
    return found
