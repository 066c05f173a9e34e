"""The test of lost changes, rendered by dbt's Jinja and run on DuckDB: what it counts, and of which models."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

import duckdb
import pytest
from dbt_common.clients.jinja import get_environment
from rendering import ROOT, load

TEST = ROOT / "tests/contracts/integrity/assert_no_delivered_change_is_lost_between_bronze_and_silver.sql"
MACROS = load("cdc")


def cdc_models() -> dict[str, dict[str, Any]]:
    """Configuration of every CDC model of the project, by name."""
    found = {}
    for path in (ROOT / "dbt_project/models").rglob("*.sql"):
        written = re.search(r"{{ config\((.*?)\) }}", path.read_text(), re.S)
        config = eval(f"dict({written[1]})") if written else {}
        if config.get("incremental_strategy", "").startswith("cdc_"):
            found[path.stem] = config
    return found


# Batch, key, generation, position: a repeat, a new generation at the same position, and a later position.
DELIVERED = [(1, 7, 1, 5), (2, 7, 1, 5), (3, 7, 2, 5), (3, 7, 2, 6)]


def lost(lacking: str = "", change: tuple[int, ...] = (), built: Container[str] = cdc_models()) -> list[str]:
    """Models that the test names where every source has delivered the same, and one model lacks one change.

    Of a model that was not built there is neither the table nor the source's.
    """
    models = cdc_models()
    lake = duckdb.connect()
    lake.sql("create schema bronze; create schema silver")
    for source, model in re.findall(r"'(\w+)': '(slv_\w+)'", TEST.read_text()):
        if model not in built:
            continue
        keys, sequence = (MACROS["_cdc_as_list"](models[model][name]) for name in ("unique_key", "sequence_by"))
        listed = ", ".join(f"{name} int" for name in [*keys, *sequence])
        lake.sql(f"create table bronze.{source} (_batch_id int, {listed})")
        lake.sql(f"create table silver.{model}__cdc (_batch_id int, {listed})")
        stored = set()
        for batch, key, generation, position in DELIVERED:
            places = [generation if name == "_source_generation" else position for name in sequence]
            row = (batch, *[key] * len(keys), *places)
            marks = ", ".join("?" * len(row))
            lake.execute(f"insert into bronze.{source} values ({marks})", row)
            if row[1:] not in stored and (model, (generation, position)) != (lacking, change):
                stored.add(row[1:])
                lake.execute(f"insert into silver.{model}__cdc values ({marks})", row)
    context = {
        "graph": {"nodes": {f"model.lakehouse.{name}": {"config": config} for name, config in models.items()}},
        "execute": True, "project_name": "lakehouse",
        "source": lambda schema, name: f"{schema}.{name}", "ref": lambda name: f"silver.{name}",
        "delta_cdc": {
            "_cdc_as_list": MACROS["_cdc_as_list"], "cdc_storage": lambda table: f"{table}__cdc",
            "standing_relation": lambda storage: storage if storage[7:].removesuffix("__cdc") in built else None,
        },
    }  # fmt: skip
    return [row[0] for row in lake.sql(get_environment(None).from_string(TEST.read_text()).render(context)).fetchall()]


def test_every_cdc_model_is_looked_at() -> None:
    assert sorted(re.findall(r"'(slv_\w+)'", TEST.read_text())) == sorted(cdc_models())


def test_a_new_generation_at_the_same_position_is_another_change() -> None:
    assert lost() == []


@pytest.mark.parametrize("change", [(1, 5), (2, 5)])
def test_a_delivered_change_that_is_not_stored_is_found(change: tuple[int, int]) -> None:
    assert lost("slv_shop_orders", change) == ["slv_shop_orders"]


def test_a_model_that_was_never_built_has_lost_nothing() -> None:
    assert lost(built=()) == []
    assert lost("slv_shop_orders", (2, 5), built={"slv_shop_orders"}) == ["slv_shop_orders"]
