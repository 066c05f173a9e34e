"""The schema registry: every contract is valid, and a wrong one says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from python_ops.contracts import load, parse, sources
from python_ops.errors import ContractError

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
    assert len(sources()) == 10


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
        ("name: price", 'name: "a\'; drop"', "at columns/1/name"),
        ("source: things", "source: [things", "is not YAML"),
    ],
)
def test_a_wrong_contract_says_where(old: str, new: str, told: str) -> None:
    with pytest.raises(ContractError) as error:
        parse(VALID.replace(old, new), Path("things.yml"))

    assert told in str(error.value)


def test_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(ContractError, match=r"no contract for source 'nothing'.*crm_accounts"):
        load("nothing")
