"""What a silver model gives is what its YAML lists. Other rules of the project: dbt-bouncer.yml and .sqlfluff."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlglot
import yaml
from rendering import ROOT
from sqlglot import exp

MODELS = ROOT / "dbt_project/models/silver"


def columns_of(text: str) -> list[str]:
    """Columns of a silver model, with those that cdc_scd2 adds; `select *` is followed to its CTE."""
    sql = re.sub(r"{{ config\(.*?\) }}", "", text, flags=re.S)
    sql = re.sub(r"{{ (?:ref|source)\((.*?)\) }}", lambda call: re.findall(r"'(\w+)'", call[1])[-1], sql)
    query = sqlglot.parse_one(sql, dialect="spark")
    steps = {step.alias: step.this for step in query.ctes}
    while query.is_star:
        query = steps[query.find(exp.From).name]
    history = ["valid_from", "valid_to", "is_current"] if "incremental_strategy='cdc_scd2'" in text else []
    return query.named_selects + history


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*.sql")), ids=lambda path: path.stem)
def test_a_silver_model_lists_exactly_its_columns(path: Path) -> None:
    """Gold's columns are compared by dbt: its contracts are enforced."""
    listed = {
        column["name"]
        for file in path.parent.glob("_*__models.yml")
        for model in yaml.safe_load(file.read_text())["models"]
        if model["name"] == path.stem
        for column in model["columns"]
    }
    assert listed == {name for name in columns_of(path.read_text()) if not name.startswith("_")}
