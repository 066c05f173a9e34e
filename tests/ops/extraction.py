"""What the tests of extraction share: a source of support tickets, a home with secrets, and what landed."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from python_ops.jobs.extract import ExtractResult, extract
from python_ops.jobs.extract.sources import Source
from python_ops.lake import landing
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Contract, parse
from python_ops.lake.lake import Lake
from python_ops.lake.state.watermarks import Watermark, read

TICKETS = """
source: tickets
version: 1.0.0
description: Tickets of the support desk. One row per delivered state of a ticket.
owner: data-platform
format: {format}
key: [ticket_id]
columns:
  - {{name: ticket_id, type: bigint, required: true, description: Identifier.}}
  - {{name: subject, type: string, description: What it is about.}}
  - {{name: hours, type: "decimal(12,2)", description: Time spent.}}
  - {{name: is_open, type: boolean, description: Still to be solved.}}
  - {{name: due_date, type: date, description: When it should be solved.}}
  - {{name: updated_at, type: timestamp, required: true, description: Last change.}}
"""


def contract(format_: str = "csv") -> Contract:
    return parse(TICKETS.format(format=format_), Path("tickets.yml"))


def source(system: str, format_: str = "csv", **given: Any) -> Source:
    return Source(contract(format_), system, "updated_at", "tickets", **{"lag_seconds": 0, **given})


def use(monkeypatch: pytest.MonkeyPatch, *given: Source) -> None:
    """Makes these the sources that are known, and pauses between tries short."""
    monkeypatch.setattr("python_ops.jobs.extract.sources.sources", lambda: {entry.name: entry for entry in given})
    monkeypatch.setattr("python_ops.jobs.extract.known_sources", lambda: {entry.name: entry for entry in given})
    monkeypatch.setattr("python_ops.jobs.extract._sleep", lambda stop, seconds: None)


def lake_with(home: Path, **secrets: Any) -> Lake:
    """Settings of an environment with these secrets in its file."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "secrets.json"
    path.write_text(json.dumps(secrets))
    path.chmod(0o600)
    return Lake(Settings(home=home))


def pull(given: Lake, name: str = "tickets") -> ExtractResult:
    """One run of one source; it must not fail."""
    (result,) = extract(given, [name])
    assert result.error is None, result.error
    return result


def failed(given: Lake, name: str = "tickets") -> str:
    """Message of a run that must fail."""
    (result,) = extract(given, [name])
    assert result.error is not None
    return str(result.error)


def landed(given: Lake, name: str = "tickets") -> list[dict[str, Any]]:
    """Rows of all landing files, in name order, as ingestion would see them."""
    folder = given.landing / name
    found: list[dict[str, Any]] = []
    for file in landing.names(folder):
        if file.endswith(".parquet"):
            found += pq.read_table(folder / file).to_pylist()
            continue
        text = gzip.decompress((folder / file).read_bytes()).decode()
        if file.endswith(".jsonl.gz"):
            found += [json.loads(line) for line in text.split("\n") if line]
        else:
            found += list(csv.DictReader(io.StringIO(text, newline="")))
    return found


def versions(given: Lake, name: str = "tickets") -> Counter[tuple[str, str]]:
    """How often each state of each ticket landed."""
    return Counter((str(row["ticket_id"]), str(row["updated_at"])) for row in landed(given, name))


def mark(given: Lake, name: str = "tickets") -> Watermark | None:
    return read(given.store, name)[0]


def overlap(entry: Source, seconds: int) -> Source:
    return replace(entry, overlap_seconds=seconds)
