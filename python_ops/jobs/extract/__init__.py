"""Systems to landing files: what changed in each source since its watermark, as files that ingestion takes.

`sources.yml` says what is extracted and how. A pull ends at a time that is read once, from the source's own clock; the
watermark, the (time, key) of the last row, moves when the landing file and its manifest are complete.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from python_ops.jobs.extract.pull import Counts, Pull
from python_ops.jobs.extract.pull_state import PullState
from python_ops.jobs.extract.reader import Reader, SourceLostError
from python_ops.jobs.extract.sources import Source, chosen
from python_ops.jobs.extract.sources import sources as known_sources
from python_ops.lake.errors import BusyError, OpsError, missing_extra
from python_ops.lake.http import RefusedError, place
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, JobRun, current_run, job_run
from python_ops.lake.secrets import Secrets, mask
from python_ops.lake.secrets.forms import checked
from python_ops.lake.state.leases import lease
from python_ops.lake.state.watermarks import read

ATTEMPTS = 3
_DRIVERS = {"postgres": "PostgresReader", "redshift": "RedshiftReader", "snowflake": "SnowflakeReader"}
_pause = wait_exponential_jitter(initial=1, max=20)


@dataclass(frozen=True)
class ExtractResult:
    """What happened to one source.

    Attributes:
        rows: Rows that landed.
        files: Names of the landing files.
        again: Rows of the overlap that were read again and had landed before.
        without_time: Rows that landed although their watermark column has no usable time.
        watermark: Position after the run, as (time, key).
        warnings: What an operator should look at.
        error: Why the source failed; what landed before is safe, and the next run goes on from there.
    """

    source: str
    system: str
    rows: int = 0
    bytes: int = 0
    files: tuple[str, ...] = ()
    again: int = 0
    without_time: int = 0
    watermark: tuple[str, str] | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: OpsError | None = None


@dataclass(frozen=True)
class PullStatus:
    """Where the extraction of one source stands.

    Attributes:
        is_due: The environment extracts it with every run.
        at: The watermark's time.
        asked_at: When the source was last asked, with what came of it.
        lag_seconds: Age of the watermark.
        unfinished: A killed run left a complete file whose watermark is not saved; the next run saves it.
    """

    source: str
    system: str
    is_due: bool
    at: str | None
    key: str | None
    lag_seconds: int | None
    asked_at: str | None
    rows: int | None
    bytes: int | None
    error: str | None
    unfinished: bool


def extract(
    lake: Lake,
    names: Sequence[str] = (),
    on_event: Callable[[ExtractResult], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> list[ExtractResult]:
    """Pulls what is new from each source.

    Args:
        names: Sources; those that the environment extracts when empty.
        on_event: Called with each source's result as it comes.
        on_start: Called with the name of each source when it is its turn; four run side by side.

    Returns:
        One result per source, in the order asked for. A source that failed has `error`; the others proceed.

    Raises:
        ConfigError: sources.yml is not valid, or has no such source.
    """
    asked = chosen(tuple(names) or lake.settings.extract)
    parent, stop = current_run(), threading.Event()
    results = []

    def take(source: Source) -> ExtractResult:
        if on_start:
            on_start(source.name)
        return _extract_safely(lake, source, parent, stop)

    with ThreadPoolExecutor(max_workers=max(1, min(4, len(asked)))) as pool:
        try:
            for result in pool.map(take, asked):
                results.append(result)
                if on_event:
                    on_event(result)
        except BaseException:
            stop.set()  # what is being read stops at its next page; what landed is safe
            raise
    return results


def status(lake: Lake) -> list[PullStatus]:
    """Where each source of sources.yml stands; asks no source."""
    store, found = lake.store, []
    for source in known_sources().values():
        mark, _ = read(store, source.name)
        pull_state = PullState(lake.state / "extract", source.name)
        manifest, last = pull_state.last_manifest(), pull_state.last()
        age = (datetime.now(UTC) - datetime.fromisoformat(mark.at)).total_seconds() if mark else None
        found.append(
            PullStatus(
                source.name, source.system, source.name in lake.settings.extract, mark.at if mark else None,
                mark.key if mark else None, int(age) if age is not None else None, last.get("asked_at"),
                last.get("rows"), last.get("bytes"), last.get("error"), manifest is not None and not manifest.done,
            )
        )  # fmt: skip
    return found


def _extract_safely(lake: Lake, source: Source, parent: JobRun | None, stop: threading.Event) -> ExtractResult:
    started, counts = time.monotonic(), Counts()
    error: OpsError | None = None
    uri = place(source.url) if source.url else f"{source.system}:{source.place}"
    origin = Dataset(f"{source.system}/{source.name}", uri)
    landing = lake.landing / source.name
    try:
        with job_run(lake, f"extract.{source.name}", [origin], parent=parent) as run:
            try:
                if source.system != "fx" or lake.secrets.source(source.secret):
                    checked(lake.secrets.get(source.secret), f"extract.{source.system}")  # before anything is connected
                _extract(lake, source, counts, stop)
            finally:
                columns = tuple((column.name, column.type) for column in source.contract.columns)
                run.outputs = [
                    Dataset(f"landing/{source.name}", landing.as_uri(), columns, rows=counts.rows, bytes=counts.bytes)
                ]
    except OpsError as exc:
        error = exc
        error.args = (mask(str(exc)),)
    except OSError as exc:
        error = OpsError(
            f"{source.name}: {landing} or the state beside it cannot be written ({exc.strerror}). What landed before "
            "is safe; correct that and run again."
        )
    except Exception as exc:  # one source never stops the others; the text of an exception may hold values
        at = extract_tb(exc.__traceback__)[-1]
        error = OpsError(
            f"{source.name}: unexpected {type(exc).__name__} ({Path(at.filename).name}, line {at.lineno}). What "
            "landed before is safe; run again. If it fails again, report it; the other sources go on."
        )
    mark = None
    with suppress(OpsError):  # a store that does not answer has failed the source already
        mark, _ = read(lake.store, source.name)
    result = ExtractResult(
        source.name, source.system, counts.rows, counts.bytes, tuple(counts.files), counts.again, counts.without_time,
        (mark.at, mark.key) if mark else None, round(time.monotonic() - started, 1), tuple(counts.warnings), error,
    )  # fmt: skip
    if not isinstance(error, BusyError):
        with suppress(OSError):  # a full disk has failed the source already
            PullState(lake.state / "extract", source.name).note(_record(result))
    return result


def _extract(lake: Lake, source: Source, counts: Counts, stop: threading.Event) -> None:
    """Extracts one source under its lease. If the source goes away, it is asked again from the end of its last file."""
    store = lake.store
    with lease(store, f"extract.{source.name}", f"extract {source.name}", lake.settings.lease_seconds) as held:

        def check() -> None:
            if stop.is_set():
                raise OpsError(f"{source.name}: stopped. What landed is safe; run again to go on.")
            held.check()

        def sleep(seconds: float) -> None:
            _sleep(stop, seconds)

        def once() -> None:
            pull = Pull(lake, source, check, counts)
            pull.resume()
            with _opened(source, lake.secrets, sleep) as reader:
                pull.run(reader)

        tries = Retrying(
            retry=retry_if_exception_type(SourceLostError), stop=stop_after_attempt(ATTEMPTS), wait=_pause,
            sleep=sleep, reraise=True,
        )  # fmt: skip
        tries(once)
    if counts.without_time:
        counts.warnings.append(f"{counts.without_time} rows landed without a usable {source.watermark}")
    if counts.ahead:
        counts.warnings.append(
            f"{counts.ahead} rows have their {source.watermark} after the source's clock; they land when it gets there"
        )


@contextmanager
def _opened(source: Source, secrets: Secrets, sleep: Callable[[float], None]) -> Iterator[Reader]:
    """An open reader. If credentials are refused, they are read again, and then the previous ones are tried."""
    reader: Any
    if source.system == "fx":
        reader = _open_fx(source, secrets, sleep)
    elif source.system == "rest":
        from python_ops.jobs.extract.rest import RestReader

        reader = RestReader(source, secrets, sleep)
    else:
        reader = _open_database(source, secrets)
    try:
        yield reader
    finally:
        with suppress(Exception):  # a connection that is gone cannot be closed; what counts has been said
            reader.close()


def _open_fx(source: Source, secrets: Secrets, sleep: Callable[[float], None]) -> Reader:
    from python_ops.jobs.extract.fx import FxReader

    url = source.url
    if not url or secrets.source(source.secret):
        url = str(secrets.get(source.secret).json().get("url", url))
    return FxReader(source, url, sleep)


def _open_database(source: Source, secrets: Secrets) -> Reader:
    try:
        made = getattr(import_module(f"python_ops.jobs.extract.{source.system}"), _DRIVERS[source.system])
    except ImportError as exc:
        raise missing_extra(f"{exc.name}, which {source.name} needs,", source.system) from exc
    try:
        reader: Reader = secrets.with_rotation(source.secret, lambda secret: made(source, secret), made.is_refused)
    except OpsError:
        raise
    except Exception as exc:  # drivers raise what they like when a server goes away
        if made.is_refused(exc):
            raise RefusedError(
                f"{source.name}: {made.system} refuses the credentials of secret {source.secret}: {made.told(exc)}. "
                "Renew the secret."
            ) from exc
        kind = SourceLostError if made.is_lost(exc) else OpsError
        raise kind(
            f"{source.name}: {made.system} cannot be reached: {made.told(exc)}. Look at secret {source.secret} and the "
            "network."
        ) from exc
    return reader


def _sleep(stop: threading.Event, seconds: float) -> None:
    """Waits, at most until the end of the run."""
    stop.wait(seconds)


def _record(result: ExtractResult) -> dict[str, Any]:
    """What status and metrics show of a run; counts only."""
    return {
        "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": result.rows,
        "bytes": result.bytes,
        "files": len(result.files),
        "again": result.again,
        "at": result.watermark[0] if result.watermark else None,
        "error": str(result.error) if result.error else None,
    }
