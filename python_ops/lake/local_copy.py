"""Files of a home in a bucket that a program can only work on locally: dbt's artifacts, a DuckDB database.

The bucket has the original. A machine has a copy, beside it the tag of the original that it equals, and sends it back
if the original is still that one. A copy without a tag counts for nothing: its machine died while it changed it.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from python_ops.lake import buckets
from python_ops.lake.files import write_whole

# What is kept of dbt's target folder; the rest (partial_parse.msgpack, graph.gpickle) any machine makes anew.
_FILES = ("manifest.json", "run_results.json", "sources.json", "catalog.json")
_ARTIFACTS = (*_FILES, "compiled", "run")
_SITE = "static_index.html"


class LocalCopy:
    """A file in a bucket and its copy.

    Args:
        original: Path in the bucket.
        copy: Path on this machine.
    """

    def __init__(self, original: Path, copy: Path) -> None:
        self.original, self.copy = original, copy
        self._tag_file = copy.with_name(f"{copy.name}.tag")

    def fetch(self) -> bool:
        """Makes the copy equal to the original, and tells whether it was not. Without an original there is no copy."""
        tag = self._tag()
        try:
            found = buckets.read_unless(self.original, tag)
        except FileNotFoundError:
            self.forget()
            had_one = self.copy.exists()
            self.copy.unlink(missing_ok=True)
            return had_one
        if found is None:
            return False
        self.forget()
        write_whole(self.copy, found[0])
        write_whole(self._tag_file, found[1])
        return True

    def forget(self) -> str | None:
        """Called before the copy changes, and gives the tag that `send` wants."""
        tag = self._tag()
        self._tag_file.unlink(missing_ok=True)
        return tag

    def send(self, tag: str | None) -> None:
        """Replaces the original by the copy.

        Args:
            tag: Of the original that the copy was made from; None for one that was not there.

        Raises:
            BusyError: the original has changed meanwhile. It stays, and the next `fetch` takes it.
        """
        write_whole(self._tag_file, buckets.swap(self.original, self.copy.read_bytes(), tag))

    def _tag(self) -> str | None:
        if not self.copy.exists() or not self._tag_file.exists():
            return None
        return self._tag_file.read_text(encoding="utf-8")


def fetch_artifacts(home: Path, folder: Path) -> None:
    """Brings dbt's artifacts to this machine, unless they are there."""
    archive = _archive(home, folder)
    if not archive.fetch():
        return
    draft = folder / "fetched"
    shutil.rmtree(draft, ignore_errors=True)
    if archive.copy.exists():
        with tarfile.open(archive.copy) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later (PEP 706)
            tar.extractall(draft)
    for name in _ARTIFACTS:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        if (draft / name).exists():
            (draft / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def artifacts_kept(home: Path, folder: Path) -> Iterator[None]:
    """Sends to a home in a bucket what a dbt command wrote into its target folder, however it ended.

    Raises:
        BusyError: a dbt command on another machine was first; its artifacts stay.
    """
    before = _times(folder)
    try:
        yield
    finally:
        _send_artifacts(home, folder, before)


def _send_artifacts(home: Path, folder: Path, before: Mapping[str, int]) -> None:
    changed = {name for name, at in _times(folder).items() if before.get(name) != at}
    if _SITE in changed:
        buckets.write(home / _SITE, folder / _SITE)
    if not changed - {_SITE}:
        return
    archive = _archive(home, folder)
    tag = archive.forget()
    with tarfile.open(archive.copy, "w:gz", compresslevel=6) as tar:
        for name in _ARTIFACTS:
            if (folder / name).exists():
                tar.add(folder / name, name)
    archive.send(tag)


def _archive(home: Path, folder: Path) -> LocalCopy:
    folder.mkdir(parents=True, exist_ok=True)
    return LocalCopy(home / "artifacts.tar.gz", folder / "artifacts.tar.gz")


def _times(folder: Path) -> dict[str, int]:
    paths = [folder / name for name in (*_FILES, _SITE)]
    return {path.name: path.stat().st_mtime_ns for path in paths if path.exists()}
