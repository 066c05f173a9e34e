"""Leases: one holder for a name at a time, over all machines that share a store.

A lease runs out unless its holder renews it, so a dead holder's is taken over: after its time, or at once where the
process is known to have ended on this machine. A holder that was only slow finds that out by `Lease.check`, which
must stand right before a commit. Between that check and the commit only the table itself can refuse: CDC models
carry the version they were computed from as their Delta transaction number (docs/cdc.md, rule 12), ingestion its batch
number, and who takes a lease over fences the other tables by a commit of its own (`python_ops.lake.lock`).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.lake.errors import BusyError, OpsError
from python_ops.lake.state.store import Record, Store

TTL_SECONDS = 60.0
_KEPT_SECONDS = 7 * 24 * 3600  # how long a store keeps a lease that nobody renews: its token must not be given again


@dataclass
class Lease:
    """A lease that is held.

    Attributes:
        token: Grows with every new holder of the name; a later holder has a higher one.
        taken_over: The holder before did not give it back, so it may still be writing.
    """

    store: Store
    name: str
    holder: str
    ttl: float
    clock: Callable[[], float]
    token: int = 0
    taken_over: bool = False
    _record: Record | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> None:
        """Takes the lease if it is free or has run out.

        Raises:
            BusyError: another holds it; the text says who, since when, and until when.
        """
        given = self.store.get("lease", self.name)
        now = self.clock()
        if given and given.value["until"] > now and given.value["holder"] and not _has_ended(given.value):
            raise BusyError(
                f"{self.name} is held by {given.value['holder']} since {_shown(given.value['since'])}, until "
                f"{_shown(given.value['until'])} unless renewed. Wait, then run again."
            )
        self.token = (int(given.value["token"]) if given else 0) + 1
        self.taken_over = bool(given and given.value["holder"])
        self._write(given.revision if given else 0, now, now)

    def renew(self) -> None:
        """Extends the lease.

        Raises:
            BusyError: it was lost.
        """
        with self._guard:
            assert self._record is not None
            self._write(self._record.revision, self._record.value["since"], self.clock())

    def check(self) -> None:
        """Makes sure, right before a commit, that the lease is still held.

        Raises:
            BusyError: it ran out or was taken over.
        """
        given = self.store.get("lease", self.name)
        is_own = given is not None and given.value["token"] == self.token and given.value["holder"] == self.holder
        if given is None or not is_own or given.value["until"] <= self.clock():
            who = given.value["holder"] if given and not is_own else "nobody"
            raise BusyError(
                f"The lease of {self.name} was lost; {who or 'nobody'} holds it now. Nothing was committed."
            )

    def release(self) -> None:
        """Gives the lease back; its token stays, so that the next is higher."""
        with self._guard, suppress(BusyError):  # lost: it is not ours to give back
            assert self._record is not None
            value = {**self._record.value, "holder": "", "until": 0}
            self.store.put("lease", self.name, value, self._record.revision, self._expiry())

    def _write(self, revision: int, since: float, now: float) -> None:
        value = {
            "holder": self.holder,
            "token": self.token,
            "since": since,
            "until": now + self.ttl,
            "process": [socket.gethostname(), os.getpid(), _began(os.getpid())],
        }
        self._record = self.store.put("lease", self.name, value, revision, self._expiry())

    def _expiry(self) -> int:
        return int(self.clock()) + _KEPT_SECONDS


@contextmanager
def hold(
    store: Store,
    names: Sequence[str],
    command: str,
    ttl: float = TTL_SECONDS,
    clock: Callable[[], float] = time.time,
    on_lost: Callable[[], None] = lambda: None,
) -> Iterator[list[Lease]]:
    """Holds leases while the block runs, renewed every third of their time by one thread; all of them or none.

    Args:
        names: What is held, such as `environment` or `gold.fct_orders`.
        command: What the holder does, for those who wait.
        ttl: Seconds after which a lease that is not renewed runs out.
        clock: Unix seconds.
        on_lost: Called once, from the thread, when one was taken over by another.

    Raises:
        BusyError: another holds one.
    """
    holder = f"`{command}` (process {os.getpid()} on {socket.gethostname()})"
    with ExitStack() as stack:
        held = []
        for name in sorted(set(names)):
            taken = Lease(store, name, holder, ttl, clock)
            taken.take()
            stack.callback(taken.release)
            held.append(taken)
        stop = threading.Event()
        thread = threading.Thread(target=_keep, args=(held, stop, ttl, on_lost), name="leases", daemon=True)
        thread.start()
        try:
            yield held
        finally:
            stop.set()
            thread.join()


@contextmanager
def lease(
    store: Store, name: str, command: str, ttl: float = TTL_SECONDS, clock: Callable[[], float] = time.time
) -> Iterator[Lease]:
    """Holds one lease while the block runs, as `hold` does.

    Raises:
        BusyError: another holds it.
    """
    with hold(store, [name], command, ttl, clock) as (held,):
        yield held


def _keep(held: Sequence[Lease], stop: threading.Event, ttl: float, on_lost: Callable[[], None]) -> None:
    while not stop.wait(ttl / 3):
        for lease in held:
            try:
                lease.renew()
            except BusyError:
                on_lost()
                return  # check() tells the holder
            except OpsError:
                continue  # the store did not answer; the lease has time left


def _has_ended(value: Mapping[str, Any]) -> bool:
    """Whether the holder was a process of this machine and has ended. A stopped process has not."""
    host, number, began = value.get("process") or ("", 0, "")
    return bool(began) and host == socket.gethostname() and _began(number) != began


def _began(process: int) -> str:
    """When a process of this machine began, in the kernel's ticks. Tells it from a later one with the same number."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()[19]
    return ""


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
