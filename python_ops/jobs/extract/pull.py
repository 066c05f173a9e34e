"""One pull of one source: rows to landing files, each with its manifest, and only then the watermark.

The order of writing is: draft, rename, hashes of what was seen, manifest, watermark, manifest closed. Wherever a run is
killed, the next one either finds a manifest and saves its watermark, or reads the rows again from the old watermark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from python_ops.jobs.extract import files
from python_ops.jobs.extract.files import File, LandingDraft
from python_ops.jobs.extract.pull_state import SEEN_ROWS, PullRecord, PullState, Seen
from python_ops.jobs.extract.reader import Reader, Row, key_of, moment
from python_ops.jobs.extract.sources import Source
from python_ops.lake import landing
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.state.watermarks import Watermark, advance, read

_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass
class Counts:
    """What a pull did.

    Attributes:
        again: Rows that were read again in the overlap and had landed before.
        without_time: Rows that landed without a usable time; a database does not give such rows, and counts them.
        ahead: Rows whose time is after the source's clock; they land when it gets there.
        warnings: What an operator should look at.
    """

    rows: int = 0
    bytes: int = 0
    files: list[str] = field(default_factory=list)
    again: int = 0
    without_time: int = 0
    ahead: int = 0
    warnings: list[str] = field(default_factory=list)


class Pull:
    """A pull of one source; its lease is held by the caller.

    Args:
        check: Raises when this process must stop. Called at every page, and right before a file becomes visible.
        counts: Filled as files land, so that a pull that fails says what it did.
    """

    def __init__(self, lake: Lake, source: Source, check: Callable[[], None], counts: Counts) -> None:
        self.lake, self.source, self.store, self.check, self.counts = lake, source, lake.store, check, counts
        self.folder = lake.landing / source.name
        self.pull_state = PullState(lake.state / "extract", source.name)
        self.mark, self.revision = read(self.store, source.name)
        self.draft: LandingDraft | None = None
        self.recent: dict[int, tuple[datetime, int]] = {}
        self.last: tuple[datetime, str] | None = None
        self.now = self.until = _BEGINNING

    def resume(self) -> None:
        """Finishes what a killed run left: removes unfinished files, and saves the watermark of a complete one."""
        if left := files.clean(self.folder, self.source.name):
            self.counts.warnings.append(f"{len(left)} unfinished files of an interrupted run were removed")
        manifest = self.pull_state.last_manifest()
        if manifest is None or manifest.done:
            self._say_if_moved(manifest)
            return
        is_whole = (self.folder / manifest.file.name).exists() or manifest.file.name in self._taken()
        if is_whole and manifest.revision == self.revision and (self.mark is None or self.mark <= manifest.to):
            advance(self.store, self.source.name, manifest.to, self.revision)
            self.mark, self.revision = read(self.store, self.source.name)
        self.pull_state.close(manifest)

    def run(self, reader: Reader) -> None:
        """Reads what is new and lands it.

        Raises:
            OpsError: the watermark is ahead of the source, or the source failed; files that landed stay.
            BusyError: another process took over.
        """
        self.now = now = reader.now()
        self.until = now - self.source.lag
        self.counts.again = self.counts.without_time = self.counts.ahead = 0
        if self.mark is not None and datetime.fromisoformat(self.mark.at) > now:
            raise OpsError(self._ahead(now))
        self.counts.warnings += [warning for warning in reader.warnings(now) if warning not in self.counts.warnings]
        self.seen = self.pull_state.seen(self.mark)
        reader.tag = self.seen.tag
        try:
            for page in reader.pages(self._since(), self.until):
                self.check()
                self._take(page)
                if reader.in_order and self.draft is not None and self.draft.rows >= self.source.file_rows:
                    self._land(reader.tag)
            self._land(reader.tag)
        finally:
            if self.draft is not None:
                self.draft.drop()

    def _since(self) -> datetime | None:
        """Where reading begins; None if every pull reads everything."""
        if self.mark is None or self.source.overlap is None:
            return None
        at = datetime.fromisoformat(self.mark.at)
        return at - min(self.source.overlap, at - _BEGINNING)

    def _take(self, page: Sequence[Row]) -> None:
        """Writes the rows of a page that have not landed."""
        new = []
        for row in page:
            at, key = moment(row.get(self.source.watermark)), key_of(self.source, row)
            if at is not None and at > self.until:
                self.counts.ahead += at > self.now
                continue
            number, content = _hash(key), _hash(repr(sorted(row.items())))
            if at is None:
                self.counts.without_time += 1
            else:
                self.last = max(self.last or (_BEGINNING, ""), (at, key))
            self.recent[number] = (at or datetime.max.replace(tzinfo=UTC), content)
            if self.seen.rows.get(number) == content:
                self.counts.again += 1
            else:
                new.append(row)
        if new:
            if self.draft is None:
                number = self._next_number()
                name = files.numbered(self.source.name, number, self.until, self.source.contract)
                self.draft = LandingDraft(self.folder, name, self.source.contract)
            self.draft.write(new)
        if len(self.recent) > SEEN_ROWS:
            self._forget_old()
            while len(self.recent) > SEEN_ROWS // 2 and self.source.overlap is not None:
                self.recent.pop(next(iter(self.recent)))  # what is forgotten lands again, and is dropped by the engine

    def _land(self, tag: str) -> None:
        """Completes the file that is open, its manifest, and then the watermark."""
        to = self.mark
        if self.last is not None:
            last = Watermark(self.last[0].isoformat(), self.last[1])
            if to is not None and self.source.overlap is None and last.at < to.at:
                raise OpsError(
                    f"{self.source.name}: what was delivered ends at {last.at}, before the watermark {to.at}: an older "
                    "file was served, and nothing of it landed. Run again later."
                )
            to = last if to is None else max(to, last)
        if self.draft is None and to == self.mark:
            if tag != self.seen.tag:
                self._remember(to, tag)
            return
        to = to or Watermark(_BEGINNING.isoformat())  # no row had a time
        done = self._finish()
        self._remember(to, tag)
        manifest = self._manifest(done, to) if done is not None else None
        if to != self.mark:
            advance(self.store, self.source.name, to, self.revision)
            self.mark, self.revision = read(self.store, self.source.name)
        if manifest is not None:
            self.pull_state.close(manifest)

    def _finish(self) -> File | None:
        """Makes the open file visible."""
        if self.draft is None:
            return None
        done = self.draft.finish(self.check)
        self.draft = None
        self.counts.rows += done.rows
        self.counts.bytes += done.bytes
        self.counts.files.append(done.name)
        return done

    def _manifest(self, done: File, to: Watermark) -> PullRecord:
        return self.pull_state.save(
            PullRecord(
                number=files.number_of(self.source.name, done.name), source=self.source.name, file=done, to=to,
                since=self.mark, revision=self.revision, until=self.until.isoformat(),
                contract_version=self.source.contract.version,
            )
        )  # fmt: skip

    def _remember(self, to: Watermark | None, tag: str) -> None:
        self._forget_old()
        rows = {number: content for number, (_, content) in self.recent.items()}
        kept = Seen(to, tag, rows if len(rows) <= SEEN_ROWS else {})
        self.pull_state.remember(kept)

    def _forget_old(self) -> None:
        """Drops hashes of rows that the next pull will not read again."""
        if self.source.overlap is None or self.last is None:
            return
        mark = datetime.fromisoformat(self.mark.at) if self.mark else _BEGINNING
        newest = max(self.last[0], mark)
        edge = newest - min(self.source.overlap, newest - _BEGINNING)
        self.recent = {number: given for number, given in self.recent.items() if given[0] >= edge}

    def _next_number(self) -> int:
        names = [*landing.names(self.folder), *self._taken(), *self.counts.files]
        numbers = [files.number_of(self.source.name, name) for name in names]
        numbers += [int(path.stem.removeprefix("pull_")) for path in self.pull_state.manifests()[-1:]]
        return max(numbers, default=0) + 1

    def _taken(self) -> set[str]:
        """Names that ingestion took; the files may be gone from the folder."""
        return set(self.lake.ledger(self.source.name).taken())

    def _ahead(self, now: datetime) -> str:
        assert self.mark is not None
        text = (
            f"{self.source.name}: the watermark {self.mark.at} is ahead of the source's clock, "
            f"{now.isoformat(timespec='microseconds')}: rows in between would be skipped. Nothing was read. "
        )
        manifest = self.pull_state.last_manifest()
        if manifest is None:
            return text + f"`lakeops watermark reset {self.source.name} --execute` starts anew."
        return text + (
            f"The last landing file ends at {manifest.to.at}: `lakeops watermark set {self.source.name} "
            f"{manifest.to.at} --key '{manifest.to.key}' --force --execute` goes back there."
        )

    def _say_if_moved(self, manifest: PullRecord | None) -> None:
        """Warns if the watermark was moved by hand: no landing file ends there."""
        if manifest is None or self.mark == manifest.to:
            return
        if self.mark is not None and self.mark > manifest.to:
            self.counts.warnings.append(
                f"the watermark {self.mark.at} was set ahead of the last landing file, which ends at {manifest.to.at}: "
                "rows in between are not read"
            )
        else:
            at = self.mark.at if self.mark else "nothing"
            self.counts.warnings.append(
                f"the watermark was set back from {manifest.to.at} to {at}: read again from there"
            )


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
