"""Rules of the project's models that dbt does not check: layers, descriptions, values that change with every run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sqlglot
import yaml
from rendering import ROOT
from sqlglot import exp

MODELS = ROOT / "dbt_project/models"
SILVER, GOLD = sorted(MODELS.glob("silver/*/*.sql")), sorted(MODELS.glob("gold/*/*.sql"))
CHANGING = r"(?i)\b(current_date|current_timestamp|localtimestamp|now|uuid|rand|randn|monotonically_increasing_id)\b"


def config_of(text: str) -> dict[str, Any]:
    """What a model says in its config()."""
    written = re.search(r"{{ config\((.*?)\) }}", text, re.S)
    return eval(f"dict({written[1]})") if written else {}


def columns_of(text: str) -> list[str]:
    """Columns of a silver model, with those that cdc_scd2 adds; `select *` is followed to its CTE."""
    sql = re.sub(r"{{ config\(.*?\) }}", "", text, flags=re.S)
    sql = re.sub(r"{{ (?:ref|source)\((.*?)\) }}", lambda call: re.findall(r"'(\w+)'", call[1])[-1], sql)
    query = sqlglot.parse_one(sql, dialect="spark")
    steps = {step.alias: step.this for step in query.ctes}
    while query.is_star:
        query = steps[query.find(exp.From).name]
    history = (
        ["valid_from", "valid_to", "is_current"] if config_of(text).get("incremental_strategy") == "cdc_scd2" else []
    )
    return query.named_selects + history


def documented(folder: str) -> dict[str, dict[str, str]]:
    """Descriptions by model and column."""
    listed = [
        model
        for path in MODELS.glob(f"{folder}/*/_*__models.yml")
        for model in yaml.safe_load(path.read_text())["models"]
    ]
    return {
        model["name"]: {column["name"]: column.get("description", "").strip() for column in model.get("columns", [])}
        for model in listed
    }


@pytest.mark.parametrize("path", SILVER, ids=lambda path: path.stem)
def test_every_column_of_a_silver_model_is_described(path: Path) -> None:
    described = documented("silver")[path.stem]
    shown = [name for name in columns_of(path.read_text()) if not name.startswith("_")]
    assert [name for name in shown if not described.get(name)] == []
    assert sorted(set(described) - set(shown)) == [], "columns that the model does not have"


def test_every_column_that_gold_lists_is_described() -> None:
    """Which columns gold has is its enforced contract's: dbt compares them."""
    assert [
        (model, name) for model, columns in documented("gold").items() for name in columns if not columns[name]
    ] == []


@pytest.mark.parametrize("path", SILVER + GOLD, ids=lambda path: path.stem)
def test_a_model_reads_what_its_layer_may_and_nothing_that_changes_with_every_run(path: Path) -> None:
    """Silver reads bronze and silver; gold silver, gold and seeds. The same input gives the same rows on any day."""
    text = re.sub(r"--.*", "", path.read_text())
    read = set(re.findall(r"(?:ref|changed_keys)\('(\w+)'\)", text))
    sources = set(re.findall(r"source\('(\w+)'", text))
    if path in SILVER:
        assert sources <= {"bronze"} and read <= {model.stem for model in SILVER}
    else:
        seeds = {seed.stem for seed in (ROOT / "seeds/reference").glob("*.csv")}
        assert sources == set() and read <= {model.stem for model in SILVER + GOLD} | seeds
    assert re.findall(CHANGING, text) == []
