"""The schema registry: one YAML data contract per bronze source, validated by contract.schema.json.

A contract drives the bronze table's columns, types and descriptions, and the checks of ingestion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from python_ops.lake.errors import ConfigError, ContractError

FOLDER = Path(__file__).parent

ANY_SCHEMA = "*"

MAX_PRECISION = 38
"""Digits that a decimal of Spark holds."""


@dataclass(frozen=True)
class Column:
    """A column of a contract.

    Attributes:
        name: Of bronze's column.
        type: A Spark SQL type: string, boolean, int, bigint, date, timestamp, decimal(p,s).
        description: Comment of the column; no Jinja in it.
        required: Present and not NULL; a record without it is rejected.
        pii: Whether it is about a person.
        lf_tags: Lake Formation tags of the column.
        source_name: What the source calls it, where that is another name, such as `Order ID`.
        accepts: Ways of writing a value that are read too, and counted: `thousands` (1,234.50),
            `decimal_comma` (1234,50 in a text, where a point is none; with `thousands` 1.234,50), `exponent` (1e3),
            `no_zone` (a time without a zone is UTC), `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns` (a number is a
            time), `infinity_as_null`, `infinity_as_9999` (PostgreSQL's infinite times). Of Debezium: `no_point` (a
            decimal without its point), `precise` (a decimal as base64 of its unscaled bytes), `hex`, `base64_url`
            (bytes; kept as base64).
        earliest: A date or time before this day is rejected.
        latest: A date or time after this day is rejected.
        subject: Kind of person that it identifies, such as `contact_id`: `lakeops erase` looks for people by it.
        on_erasure: What erasure does with the person's rows: `remove` them, or `rekey` this column and keep the rest.
    """

    name: str
    type: str
    description: str
    required: bool = False
    pii: bool = False
    lf_tags: Mapping[str, str] = field(default_factory=dict)
    accepts: tuple[str, ...] = ()
    earliest: str | None = None
    latest: str | None = None
    source_name: str | None = None
    subject: str | None = None
    on_erasure: str = "remove"

    @property
    def given_name(self) -> str:
        """What the source calls it."""
        return self.source_name or self.name

    @property
    def precision_and_scale(self) -> tuple[int, int] | None:
        """Digits in all and after the point, of a decimal."""
        found = re.fullmatch(r"decimal\((\d+),(\d+)\)", self.type)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def needs_point(self) -> bool:
        """Whether digits alone are refused in a Debezium event: `decimal.handling.mode=string` writes a NUMERIC(p,s)
        with its point, and base64, the default, may look like digits. 38 digits are for a NUMERIC without a scale,
        which is an object in the default mode and never base64.
        """
        precision, scale = self.precision_and_scale or (0, 0)
        return scale > 0 and precision < MAX_PRECISION and "no_point" not in self.accepts


@dataclass(frozen=True)
class Thresholds:
    """Limits that halt a batch before anything of it is visible. None is no limit.

    Attributes:
        max_rejected_share: Share of the records that may be rejected. Where there is no limit, a batch of at least five
            records halts when all are rejected.
        max_delete_share: Share of the living keys that one batch may delete. Complete snapshots have a limit of a half
            where the contract names none.
        position_backwards: Whether a batch that lies behind what was taken is warned about or halts.
    """

    max_rejected_share: float | None = None
    max_delete_share: float | None = None
    position_backwards: str = "warn"


@dataclass(frozen=True)
class Freshness:
    """How old the newest value of a timestamp column may be when the batch arrives.

    Attributes:
        column: The timestamp column.
        max_age_minutes: Its greatest age.
    """

    column: str
    max_age_minutes: float


@dataclass(frozen=True)
class Expectations:
    """What a batch as a whole should look like. python_ops.watch.quality judges it.

    Attributes:
        recent_batches: How many batches before this one it is compared with.
        row_count_change: How far the row count may be from the median of the recent batches, as a share of it.
        null_share: Largest share of NULLs, by column.
        drift: Largest Kullback-Leibler divergence, in nats, from the values of the recent batches, by column.
        freshness: Age of the newest row.
    """

    recent_batches: int = 10
    row_count_change: float | None = None
    null_share: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)
    freshness: Freshness | None = None


@dataclass(frozen=True)
class SchemaVersion:
    """Where a record says the version of its layout, and which versions the contract knows.

    Attributes:
        field: Path in the record, as `value.source.version`.
        known: Versions; a record of another one halts the batch until the contract knows it.
    """

    field: str
    known: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """What a source promises to deliver.

    Attributes:
        source: Name of the source, its file and its bronze table.
        version: Semantic version; `lakeops contracts release` says which number a change needs.
        description: Comment of the bronze table.
        owner: Who answers for the source.
        key: Columns that identify a row.
        columns: What a record holds, in bronze's order.
        thresholds: What halts a batch.
        expectations: What a batch as a whole should look like.
        format: `debezium_json` (envelopes with key and value, one per line; decimals as strings, timestamps as
            ISO 8601 with zone, dates as days since 1970-01-01), `dms` (csv or parquet as AWS DMS writes it to S3), or
            rows without operations: `csv` (header line, dates as ISO 8601), `jsonl` (one flat object per line),
            `parquet`, `avro`.
        table: Table name in a Debezium event's `source.table`; None for others.
        schema: Its `source.schema`, or `source.db` where there is none; `*` takes the table of every schema. None takes
            one schema's and halts where another's come.
        others: What becomes of other tables' events: `reject`, or `ignore` where the topic or folder has several.
        timestamp_column: Commit time that DMS adds to a row (`TimestampColumnName`). None takes the time of the file.
        before_image_prefix: What DMS puts before the names of before images (`add-before-image-columns`): `BI_`.
        csv_no_sup_value: What DMS writes for a column that the source's log lacks (`CsvNoSupValue`): it was not sent.
        lob_max_kb: Where DMS cuts off large values (`LobMaxSize`), in KiB: texts of that size are counted.
        null_text: What csv files write for NULL besides nothing, such as `\\N`; `NULL` for `dms` where it is not said.
        complete: Every file is a complete snapshot: the keys it lacks are deleted.
        schema_version: Where records say the version of their layout.
        lf_tags: Lake Formation tags of the table.
        meta: Policy of the source, as dbt's meta.
    """

    source: str
    version: str
    description: str
    owner: str
    format: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    table: str | None = None
    schema: str | None = None
    others: str = "reject"
    lf_tags: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str | float | bool] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    expectations: Expectations = field(default_factory=Expectations)
    timestamp_column: str | None = None
    before_image_prefix: str | None = None
    csv_no_sup_value: str | None = None
    lob_max_kb: int | None = None
    null_text: str | None = None
    complete: bool = False
    schema_version: SchemaVersion | None = None

    def column(self, name: str) -> Column:
        """A column by its name."""
        return next(column for column in self.columns if column.name == name)


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


class Contracts:
    """What the sources of an environment deliver: the contracts of this package, or those that are given.

    Args:
        given: Contracts by source.
    """

    def __init__(self, given: Mapping[str, Contract] | None = None) -> None:
        self._given = given

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all sources, sorted."""
        return sources() if self._given is None else tuple(sorted(self._given))

    def load(self, source: str) -> Contract:
        """The contract of a source.

        Raises:
            ContractError: there is none, or it is not valid; the text names the place.
        """
        return load(source) if self._given is None else self._given[source]

    def require(self, names: Iterable[str]) -> None:
        """Makes sure that every name is a source.

        Raises:
            ConfigError: one has no contract.
        """
        if unknown := [name for name in names if name not in self.sources]:
            raise ConfigError(f"Unknown source {', '.join(unknown)}. Known sources: {', '.join(self.sources)}.")


def parse(text: str, path: Path) -> Contract:
    """A contract from its YAML text; `path` is named in errors, and its stem must be the source's name.

    Raises:
        ContractError: the text is not YAML, or breaks contract.schema.json or a rule between fields.
    """
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ContractError(f"{path.name} is not YAML: {exc}") from exc
    faults = schema_faults(data, FOLDER / "contract.schema.json")
    if not faults:
        names = [column["name"] for column in data["columns"]]
        required = {column["name"] for column in data["columns"] if column.get("required")}
        faults += [f"column {name} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
        faults += [
            f"column {c['name']} has type {c['type']}, which is no decimal" for c in data["columns"] if _too_wide(c)
        ]
        given = [column.get("source_name", column["name"]).lower() for column in data["columns"]]
        faults += [f"two columns are read from {name}" for name in sorted({n for n in given if given.count(n) > 1})]
        faults += [f"key column {name} must be listed as required" for name in data["key"] if name not in required]
        if data["source"] != path.stem:
            faults.append(f"source is {data['source']!r}, the file is named {path.name}")
        if "schema_version" in data and data["format"] not in ("debezium_json", "jsonl", "parquet", "avro"):
            faults.append(f"schema_version is for records that are JSON, not for {data['format']}")
        of_dms = ("timestamp_column", "before_image_prefix", "csv_no_sup_value", "lob_max_kb")
        if data["format"] != "dms":
            faults += [f"{name} is for dms, not for {data['format']}" for name in of_dms if name in data]
        if "null_text" in data and data["format"] not in ("csv", "dms"):
            faults.append(f"null_text is for csv and dms, not for {data['format']}")
        faults += [*_expectation_faults(data), *_subject_faults(data)]
    if faults:
        raise ContractError(f"{path.name} is not a valid contract: {'; '.join(faults)}.")
    return Contract(
        **{
            **data,
            "key": tuple(data["key"]),
            "columns": tuple(Column(**_frozen(column)) for column in data["columns"]),
            "schema_version": SchemaVersion(**_frozen(data["schema_version"])) if "schema_version" in data else None,
            "thresholds": Thresholds(**data.get("thresholds", {})),
            "expectations": _expectations(data.get("expectations", {})),
        }
    )


def schema_faults(data: Any, schema: Path) -> list[str]:
    """Where data breaks a JSON Schema, which is a file."""
    validator = Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
    return [
        f"at {'/'.join(str(step) for step in fault.absolute_path) or 'the top'}: {fault.message}"
        for fault in validator.iter_errors(data)
    ]


def _too_wide(column: Mapping[str, Any]) -> bool:
    digits = [int(number) for number in re.findall(r"[0-9]+", column["type"])]
    return bool(digits) and not (1 <= digits[0] <= MAX_PRECISION and digits[1] <= digits[0])


def _frozen(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same with tuples in place of lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _expectations(data: Mapping[str, Any]) -> Expectations:
    freshness = Freshness(**data["freshness"]) if "freshness" in data else None
    return Expectations(**{**data, "freshness": freshness})


def _subject_faults(data: Mapping[str, Any]) -> list[str]:
    """A column that is keyed anew keeps its row, so nothing else of the row may be personal or find its place by it."""
    found = []
    for column in data["columns"]:
        if column.get("on_erasure") == "rekey":
            personal = [c["name"] for c in data["columns"] if c.get("pii") and c is not column]
            if personal:
                found.append(
                    f"column {column['name']} is rekeyed, and {', '.join(personal)} would stay: remove the rows"
                )
            if column["type"] != "string" or column["name"] in data["key"]:
                found.append(f"column {column['name']} is rekeyed, which a string outside the key can be")
    return found


def _expectation_faults(data: Mapping[str, Any]) -> list[str]:
    types = {column["name"]: column["type"] for column in data["columns"]}
    personal = {column["name"] for column in data["columns"] if column.get("pii")}
    asked = data.get("expectations", {})
    faults = [
        f"expectations/{rule} names {name}, which is not a column"
        for rule in ("null_share", "drift")
        for name in asked.get(rule, {})
        if name not in types
    ]
    faults += [
        f"expectations/{rule} names {name}, which is personal data: its values would be shown"
        for rule, names in (("drift", asked.get("drift", {})), ("freshness", asked.get("freshness", {}).values()))
        for name in names
        if name in personal
    ]
    timed = asked.get("freshness", {}).get("column")
    if timed is not None and timed != "_source_ts" and types.get(timed) != "timestamp":
        faults.append(f"expectations/freshness names {timed}, which is not a timestamp column")
    return faults
