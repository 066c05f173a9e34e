"""The schema registry: one YAML data contract per bronze source, validated by contract.schema.json.

A contract drives the bronze table's columns, types and descriptions, and the checks of ingestion.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from python_ops.errors import ContractError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """A column of a contract. `type` is a Spark SQL type; `required` means present and not NULL."""

    name: str
    type: str
    description: str
    required: bool = False
    pii: bool = False

    @property
    def precision_and_scale(self) -> tuple[int, int] | None:
        """Digits in all and after the point, of a decimal."""
        found = re.fullmatch(r"decimal\((\d+),(\d+)\)", self.type)
        return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True)
class Contract:
    """What a source promises to deliver.

    Attributes:
        format: `debezium_json` (envelopes with key and value, one per line; decimals as strings, timestamps as
            ISO 8601 with zone, dates as days since 1970-01-01), `csv` (header line, dates as ISO 8601), `jsonl` (one
            flat object per line), `parquet`, `avro`, or `dms` (csv or parquet as AWS DMS writes it to S3).
        table: Table name in a Debezium event's `source.table`; None for csv.
    """

    source: str
    version: str
    description: str
    owner: str
    format: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    table: str | None = None


@cache
def sources() -> tuple[str, ...]:
    """Names of all sources that have a contract, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yml")))


@cache
def load(source: str) -> Contract:
    """The contract of a source.

    Raises:
        ContractError: there is none, or it breaks contract.schema.json; the text names the place.
    """
    path = FOLDER / f"{source}.yml"
    if source not in sources():
        raise ContractError(f"There is no contract for source {source!r}. Known sources: {', '.join(sources())}.")
    return parse(path.read_text(encoding="utf-8"), path)


def parse(text: str, path: Path) -> Contract:
    """A contract from its YAML text; `path` is named in errors, and its stem must be the source's name.

    Raises:
        ContractError: the text is not YAML, or breaks contract.schema.json or a rule between fields.
    """
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ContractError(f"{path.name} is not YAML: {exc}") from exc
    schema = json.loads((FOLDER / "contract.schema.json").read_text(encoding="utf-8"))
    faults = [
        f"at {'/'.join(str(step) for step in fault.absolute_path) or 'the top'}: {fault.message}"
        for fault in Draft202012Validator(schema).iter_errors(data)
    ]
    if not faults:
        names = [column["name"] for column in data["columns"]]
        required = {column["name"] for column in data["columns"] if column.get("required")}
        faults += [f"column {name} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
        faults += [f"key column {name} must be listed as required" for name in data["key"] if name not in required]
        if data["source"] != path.stem:
            faults.append(f"source is {data['source']!r}, the file is named {path.name}")
    if faults:
        raise ContractError(f"{path.name} is not a valid contract: {'; '.join(faults)}.")
    return Contract(
        **{
            **data,
            "key": tuple(data["key"]),
            "columns": tuple(Column(**column) for column in data["columns"]),
        }
    )
