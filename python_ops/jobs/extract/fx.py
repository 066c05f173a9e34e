"""The central bank's reference rates: one file with every day since 1999, a column per currency; zipped or not."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from python_ops.jobs.extract.reader import HttpReader, Row
from python_ops.jobs.extract.sources import Source
from python_ops.lake.errors import OpsError
from python_ops.lake.http import place

FILE_BYTES = 32 * 1024 * 1024
TEXT_BYTES = 256 * 1024 * 1024
_ABSENT = ("", "N/A")


class FxReader(HttpReader):
    """Reads a file of rates: all of it at every pull; only rates that are new or revised land.

    Args:
        url: Where the file is: `https://…`, or `file:///…` where another program fetches it.
    """

    def __init__(self, source: Source, url: str, sleep: Callable[[float], None]) -> None:
        super().__init__(source, FILE_BYTES, sleep)
        self.url = url

    def now(self) -> datetime:
        """This machine's clock: it is exact enough for days."""
        return datetime.now(UTC)

    def pages(self, since: datetime | None, until: datetime) -> Iterator[Sequence[Row]]:
        """The file's rates; none if the server says that the file has not changed."""
        content = self._content()
        if content is None:
            return
        page: list[Row] = []
        for row in self._rates(content):
            page.append(row)
            if len(page) >= self.source.page_rows:
                yield page
                page = []
        yield page

    def _content(self) -> bytes | None:
        if self.url.startswith("file://"):
            path = Path(unquote(urlsplit(self.url).path))
            try:
                if path.stat().st_size > FILE_BYTES:
                    raise OpsError(f"{self.source.name}: {path} has more than {FILE_BYTES} bytes. Nothing landed.")
                return path.read_bytes()
            except OSError as exc:
                raise OpsError(f"{self.source.name}: {path} cannot be read ({exc.strerror}). Nothing landed.") from exc
        headers = {"If-None-Match": self.tag} if self.tag else {}
        answer, body = self.client.ask("GET", self.url, headers)
        if answer.status_code == 304:
            return None
        self.tag = answer.headers.get("ETag", "")
        return body

    def _rates(self, content: bytes) -> Iterator[Row]:
        """A row per day and currency. Ingestion rejects what is not a number."""
        lines = csv.reader(io.StringIO(self._text(content)))
        head = [cell.strip() for cell in next(lines, [])]
        currencies = [(place, name) for place, name in enumerate(head) if place and name]
        if head[:1] != ["Date"] or not currencies or any(len(name) != 3 for _, name in currencies):
            raise OpsError(f"{self.source.name}: {self._shown()} is not a table of rates by day. Nothing landed.")
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            try:
                day = date.fromisoformat(cells[0].strip())
            except ValueError:
                raise OpsError(
                    f"{self.source.name}: {self._shown()}, line {lines.line_num}: no day at its beginning. "
                    "Nothing landed."
                ) from None
            for where, currency in currencies:
                text = cells[where].strip() if where < len(cells) else ""
                if text not in _ABSENT:
                    yield {"rate_date": day, "currency": currency, "units_per_eur": text}

    def _text(self, content: bytes) -> str:
        if content[:4] == b"PK\x03\x04":
            try:
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    tables = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".csv")]
                    if len(tables) != 1 or tables[0].file_size > TEXT_BYTES:
                        raise OpsError(
                            f"{self.source.name}: {self._shown()} should hold one csv of at most {TEXT_BYTES} bytes. "
                            "Nothing landed."
                        )
                    with archive.open(tables[0]) as file:
                        content = file.read(TEXT_BYTES + 1)
            except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as exc:
                raise OpsError(
                    f"{self.source.name}: {self._shown()} is a broken zip ({type(exc).__name__}). Nothing landed."
                ) from exc
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise OpsError(f"{self.source.name}: {self._shown()} is not a csv in UTF-8. Nothing landed.") from exc

    def _shown(self) -> str:
        return place(self.url)
