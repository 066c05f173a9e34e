"""What is extracted and how: sources.yml, validated by sources.schema.json, each entry with its contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from python_ops.lake.contracts import Contract, load, schema_faults
from python_ops.lake.errors import ConfigError

FOLDER = Path(__file__).parent
ENDINGS = {"csv": "csv.gz", "jsonl": "jsonl.gz", "parquet": "parquet"}  # of landing files, by format
FX_COLUMNS = ("rate_date", "currency", "units_per_eur")


@dataclass(frozen=True)
class Source:
    """A source that can be extracted; sources.schema.json says what each field means."""

    contract: Contract
    system: str
    watermark: str
    secret: str
    overlap_seconds: int = 900
    lag_seconds: int = 30
    page_rows: int = 10_000
    file_rows: int = 1_000_000
    timeout_seconds: int = 300
    columns: dict[str, str] = field(default_factory=dict)
    relation: str = ""
    url: str = ""
    path: str = ""
    records: str = ""
    next: str = ""
    next_param: str = ""
    since_param: str = ""
    until_param: str = ""
    page_param: str = ""

    @property
    def name(self) -> str:
        """Name of the bronze source."""
        return self.contract.source

    @property
    def overlap(self) -> timedelta | None:
        """How far before the watermark rows are read again; None if every pull reads everything."""
        return None if self.system == "fx" else timedelta(seconds=self.overlap_seconds)

    @property
    def lag(self) -> timedelta:
        """How far behind the source's clock a pull ends."""
        return timedelta() if self.system == "fx" else timedelta(seconds=self.lag_seconds)

    @property
    def place(self) -> str:
        """Its place in its system, without an address."""
        return self.relation or self.path or self.url


@cache
def sources() -> dict[str, Source]:
    """All entries of sources.yml by name.

    Raises:
        ConfigError: the file breaks its schema, or does not fit a contract; the text names the place.
    """
    return parse((FOLDER / "sources.yml").read_text(encoding="utf-8"))


def chosen(names: tuple[str, ...]) -> list[Source]:
    """Entries by name.

    Raises:
        ConfigError: a name has no entry.
    """
    known = sources()
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"Nothing says how {', '.join(unknown)} is extracted. python_ops/jobs/extract/sources.yml has: "
            f"{', '.join(sorted(known))}."
        )
    return [known[name] for name in dict.fromkeys(names)]


def parse(text: str) -> dict[str, Source]:
    """Entries from their YAML text.

    Raises:
        ConfigError: the text is not YAML, breaks the schema, or does not fit a contract.
    """
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"sources.yml is not YAML: {exc}") from exc
    faults = schema_faults(data, FOLDER / "sources.schema.json")
    found: dict[str, Source] = {}
    if not faults:
        for name, given in data.items():
            found[name] = Source(load(name), **{"secret": name, **given})
            faults += [f"at {name}: {fault}" for fault in _misfits(found[name])]
    if faults:
        raise ConfigError(f"sources.yml is not valid: {'; '.join(faults)}.")
    return found


def _misfits(source: Source) -> list[str]:
    """Faults of an entry that does not fit its contract."""
    contract, columns = source.contract, {column.name: column for column in source.contract.columns}
    faults = [f"the contract has no column {name}" for name in source.columns if name not in columns]
    if source.watermark not in columns:
        faults.append(f"the contract has no column {source.watermark}, the watermark")
    elif columns[source.watermark].type not in ("timestamp", "date"):
        faults.append(f"the watermark {source.watermark} is a {columns[source.watermark].type}, not a timestamp")
    if contract.format not in ENDINGS:
        faults.append(f"the contract wants {contract.format}; an extraction writes {', '.join(ENDINGS)}")
    if source.system == "fx" and tuple(columns) != FX_COLUMNS:
        faults.append(f"the contract of a file of rates has the columns {', '.join(FX_COLUMNS)}")
    return faults
