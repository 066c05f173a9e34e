"""Who may write: one process per home, one holder per environment and table.

Two guards, in every environment:

- A file lock on the home. Spark's Derby metastore admits one process at a time, so every writing command takes it, and
  every dbt command that needs Spark; the kernel releases it when its holder ends, however it ends. It reaches as far as
  the machine; of a home in a bucket it is the workspace's, and every such command holds the lease `environment` too.
- Leases in the state store: `environment` for the daily job, `publish` for the warehouse, and each table while it is
  written. In DynamoDB they reach over machines; in files they say who holds what, and to whom it passed.

Before each commit stands `check_held`. A holder that was stopped and comes back finds its lease gone there; what is
already on its way to a table is refused by the table: see `fence`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from python_ops.lake import home, interrupts
from python_ops.lake.buckets import on_bucket
from python_ops.lake.errors import BusyError, Interrupted
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import job_run
from python_ops.lake.state.leases import Lease, hold

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ENVIRONMENT, PUBLISH = "environment", "publish"

# What interrupts the main thread when a lease is lost. Who is started by a script, cron or nohup may have inherited
# SIGINT as ignored, and must go on ignoring it; this one has a handler of our own, and does nothing where it has none.
_LOST = signal.SIGURG

_leases: list[Lease] = []  # of this process
_knows = threading.Event()  # that one was lost: what unwinds because of it must not be interrupted once more
_locks: set[Path] = set()  # of this process


@contextmanager
def exclusive(lake: Lake, command: str, names: Sequence[str] = (ENVIRONMENT,), claim: bool = True) -> Iterator[None]:
    """Holds the home's lock and leases while `command` works, as one run of the job `lakeops <command>` in the lineage.

    Args:
        command: What is being done, for those who wait.
        names: Leases for its whole time; none for a command that leases each table as it comes to it.
        claim: The home must be this environment's, and is from now on; not so for the command that makes it so.

    Raises:
        BusyError: another process holds one; the text says which, and since when.
        ConfigError: the home is another environment's, or was copied or moved.
        Interrupted: Ctrl-C or SIGTERM.
    """
    if claim:
        home.require(lake.settings)
    if on_bucket(lake.home) and ENVIRONMENT not in names:
        names = (ENVIRONMENT, *names)
    with in_use(lake, f"lakeops {command}"):
        try:
            with job_run(lake, f"lakeops {command}"), leased(lake, names, f"lakeops {command}"):
                if claim:
                    home.claim(lake.settings)
                yield
        except KeyboardInterrupt as exc:
            raise Interrupted(
                f"`lakeops {command}` was interrupted. What was committed is kept; run it again to finish the rest.",
                exc,
            ) from exc


@contextmanager
def in_use(lake: Lake, command: str) -> Iterator[None]:
    """Holds the home's lock; what this process holds already stays as it is.

    Args:
        command: What is being done, for those who wait.

    Raises:
        BusyError: another process holds it; the text says which, and since when.
    """
    path = lake.workspace / "state" / "lock.json"
    if path in _locks:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BusyError(f"{lake.home} is in use by {_holder(file)}. Wait for it to end, then run again.") from exc
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"command": command, "pid": os.getpid(), "since": since}))
        file.flush()
        _locks.add(path)
        try:
            yield
        finally:
            _locks.remove(path)
            file.truncate(0)


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        told = json.loads(file.read())
        return f"`{told['command']}` (process {told['pid']}, since {told['since']})"
    except (ValueError, KeyError):
        return "another process"


@contextmanager
def leased(lake: Lake, names: Sequence[str], command: str) -> Iterator[list[Lease]]:
    """Holds leases while the block runs. When one is lost, the main thread is interrupted as by Ctrl-C.

    That needs a `leased` or `exclusive` of the main thread's own, in this process; without it `check_held` alone tells.

    Args:
        names: Tables as `schema.table`, or `environment`, `publish`; what this process holds already stays as it is.
        command: What the holder does, for those who wait.

    Raises:
        BusyError: another holds one, or one was lost before the block ended.
    """
    store = lake.store
    own = {lease.name for lease in _leases if lease.store.place == store.place}
    if not (names := [name for name in names if name not in own]):
        yield []
        return
    if not _leases:
        _knows.clear()
    if threading.current_thread() is threading.main_thread():
        signal.signal(_LOST, _raise_lost)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [_LOST])
    with hold(store, names, command, lake.settings.lease_seconds, on_lost=_interrupt) as held:
        _leases.extend(held)
        try:
            yield held
        except KeyboardInterrupt:
            _check(held)  # interrupted because one was lost: then that is the reason to give
            raise
        finally:
            for lease in held:
                _leases.remove(lease)


def _interrupt() -> None:
    """Does to the main thread what Ctrl-C does, even while it waits for a socket."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, _LOST)


def _raise_lost(number: int, frame: object) -> None:
    if _leases and not _knows.is_set():
        _knows.set()
        interrupts.see()
        raise KeyboardInterrupt


def _check(leases: Sequence[Lease]) -> None:
    for lease in leases:
        try:
            lease.check()
        except BusyError:
            _knows.set()
            raise


def check_held(*names: str) -> None:
    """Makes sure, right before a commit, that this process still holds what it has leased.

    Args:
        names: Only these; all when none is named. What is not leased is not looked at.

    Raises:
        BusyError: a lease ran out or was taken over. Nothing was committed.
    """
    _check([lease for lease in _leases if not names or lease.name in names])


def fence(spark: SparkSession, leases: Sequence[Lease]) -> list[str]:
    """Makes writes fail that the holder before may still be doing to the tables taken over from it.

    A change of a table's metadata makes Delta fail every transaction that began before it, so a MERGE that was under
    way when its run was declared dead can no longer commit. What is read afterwards is final.

    Args:
        leases: Of tables.

    Returns:
        Tables that were fenced.
    """
    fenced = [lease for lease in leases if lease.taken_over and spark.catalog.tableExists(lease.name)]
    for lease in fenced:
        spark.sql(f"alter table {lease.name} set tblproperties ('lakehouse.lease' = '{lease.token}')")
    return [lease.name for lease in fenced]
