"""The schema registry: every contract is valid, and a wrong one says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.contracts import FOLDER, Expectations, Thresholds, load, parse, sources
from python_ops.lake.errors import ContractError

VALID = """
source: things
version: 1.0.0
description: Things of the shop.
owner: data-platform
format: csv
key: [thing_id]
columns:
  - {name: thing_id, type: int, required: true, description: Identifier.}
  - {name: price, type: "decimal(12,2)", description: Price.}
"""


def test_every_contract_of_the_registry_is_valid() -> None:
    assert {load(name).source for name in sources()} == set(sources())
    assert len(sources()) >= 10


def test_a_decimal_knows_its_digits() -> None:
    contract = parse(VALID, Path("things.yml"))

    assert [column.precision_and_scale for column in contract.columns] == [None, (12, 2)]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version: 1.0.0\n", "", "'version' is a required property"),
        ("version: 1.0.0", "version: one", "at version"),
        ("type: int", "type: integer", "at columns/0/type"),
        ("name: price", "name: thing_id", "column thing_id is listed twice"),
        ("key: [thing_id]", "key: [price]", "key column price must be listed as required"),
        ("source: things", "source: others", "the file is named things.yml"),
        ("format: csv", "format: debezium_json", "'table' is a required property"),
        ("format: csv", "format: jsonl\nnull_text: x", "null_text is for csv and dms, not for jsonl"),
        ("name: price", 'name: "a\'; drop"', "at columns/1/name"),
        ("source: things", "source: [things", "is not YAML"),
        ("key:", "thresholds: {max_rejected_share: 2}\nkey:", "at thresholds/max_rejected_share"),
        ("key:", "thresholds: {position_backwards: stop}\nkey:", "at thresholds/position_backwards"),
        ("key:", "lf_tags: {domain: 'a b'}\nkey:", "at lf_tags/domain"),
        ("name: price", "name: _raw", "at columns/1/name"),
        ("name: price", "name: Price", "at columns/1/name"),
        ("key:", "meta: {sla: {minutes: 1}}\nkey:", "at meta/sla"),
        ("key:", "expectations: {null_share: {cost: 0.1}}\nkey:", "expectations/null_share names cost, which is not a"),
        ("key:", "expectations: {freshness: {column: price, max_age_minutes: 1}}\nkey:", "not a timestamp column"),
    ],
)
def test_a_wrong_contract_says_where(old: str, new: str, told: str) -> None:
    with pytest.raises(ContractError) as error:
        parse(VALID.replace(old, new), Path("things.yml"))

    assert told in str(error.value)


def test_what_a_contract_asks_of_batches_is_read_with_its_defaults() -> None:
    plain = parse(VALID, Path("things.yml"))
    asking = parse(
        VALID + "thresholds: {max_delete_share: 0.5, position_backwards: halt}\n"
        "expectations: {row_count_change: 0.8, null_share: {price: 0.1}, drift: {price: 0.2}}\n",
        Path("things.yml"),
    )

    assert plain.thresholds == Thresholds(None, None, "warn")
    assert plain.expectations == Expectations(recent_batches=10)
    assert asking.thresholds == Thresholds(max_delete_share=0.5, position_backwards="halt")
    assert asking.expectations == Expectations(row_count_change=0.8, null_share={"price": 0.1}, drift={"price": 0.2})


@pytest.mark.parametrize("asked", ["drift: {sold_at: 0.2}", "freshness: {column: sold_at, max_age_minutes: 5}"])
def test_personal_data_is_not_watched_because_its_values_would_be_shown(asked: str) -> None:
    column = "  - {name: sold_at, pii: true, type: timestamp, description: When.}\n"

    with pytest.raises(ContractError, match="names sold_at, which is personal data"):
        parse(f"{VALID}{column}expectations: {{{asked}}}\n", Path("things.yml"))


def test_every_field_of_a_contract_is_in_the_guides() -> None:
    schema = json.loads((FOLDER / "contract.schema.json").read_text(encoding="utf-8"))
    fields = [schema, *(schema["properties"][name] for name in ("thresholds", "expectations"))]
    guides = "".join(
        (PROJECT_ROOT / "docs" / "guides" / f"{name}.md").read_text() for name in ("contracts", "ingestion")
    )
    names = {name for found in fields for name in found["properties"]}
    names |= schema["properties"]["columns"]["items"]["properties"].keys()
    assert [name for name in sorted(names) if f"`{name}" not in guides] == []


def test_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(ContractError, match=r"no contract for source 'nothing'.*crm_accounts"):
        load("nothing")
