"""Removing old snapshots, and the files that no remaining one refers to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from python_ops.jobs.recovery.create import LEASE
from python_ops.jobs.recovery.manifest import BLOBS, DRAFTS, FILES, SNAPSHOTS, drafts, identifiers, load, store_of
from python_ops.jobs.recovery.verify import THREADS
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import job_run
from python_ops.lake.lock import check_held, leased

_KEEP_DRAFTS = timedelta(days=7)


@dataclass(frozen=True)
class Prune:
    """A plan, or what was done.

    Attributes:
        keep: Snapshots that stay, newest last.
        remove: Snapshots that go.
        drafts: Records of copies that were interrupted more than a week ago.
        files: Files that then nothing refers to.
    """

    keep: tuple[str, ...]
    remove: tuple[str, ...]
    drafts: tuple[str, ...]
    files: int
    bytes: int
    executed: bool = False


def prune(lake: Lake, keep: int, execute: bool = False) -> Prune:
    """Keeps the newest snapshots and what they consist of.

    Manifests go first, then files: a process killed in between leaves files that nothing refers to, and the next prune
    removes them.

    Args:
        keep: How many stay.
        execute: Act; without it nothing is changed.

    Raises:
        ConfigError: `keep` is not at least 1.
        BusyError: another process creates, restores or prunes.
        OpsError: a manifest that would stay is garbled, so what it refers to is not known. Nothing was removed.
    """
    if keep < 1:
        raise ConfigError("At least one snapshot is kept: give --keep 1 or more.")
    store = store_of(lake)
    with leased(lake, [LEASE], "lakeops snapshot prune"), job_run(lake, "snapshot.prune"):
        known = identifiers(store)
        stay, go = tuple(known[-keep:]), tuple(known[:-keep])
        oldest = f"{datetime.now(UTC) - _KEEP_DRAFTS:%Y%m%dT%H%M%SZ}"
        unfinished = drafts(store)
        fresh = [draft for draft in unfinished if draft.id >= oldest]
        stale = tuple(draft.id for draft in unfinished if draft.id < oldest)
        needed = {file.object for name in stay for _, file in load(store, name).files()}
        needed |= {file.object for draft in fresh for _, file in draft.files()}
        held = store.names(FILES) | store.names(BLOBS)
        loose = sorted(held.keys() - needed)
        planned = Prune(stay, go, stale, len(loose), sum(held[name] for name in loose), execute)
        if execute:
            check_held(LEASE)
            for name in [*(f"{SNAPSHOTS}{name}.json" for name in go), *(f"{DRAFTS}{name}.json" for name in stale)]:
                store.remove(name)
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(store.remove, loose))
    return planned
