"""Mistakes that `make lint` finds in a model or its YAML: the message says what, where and the next step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rendering import ROOT

GOLD, SILVER = "dbt_project/models/gold", "dbt_project/models/silver"
CRM = f"{GOLD}/crm/_crm__models.yml"
FILES = ("dbt-bouncer.yml", "dbt_lakehouse.py", "dbt_project.yml", "packages.yml")
FOLDERS = ("dbt_packages", "dbt_project", "macros", "packages", "profiles", "seeds", "tests/contracts")

# Models without an entry in a YAML: path and text.
NEW = {
    f"{GOLD}/sales/fct_from_bronze.sql": "select order_id from {{ source('bronze', 'shop_orders') }}",
    f"{GOLD}/sales/fct_no_key.sql": (
        "{{ config(materialized='incremental') }}\nselect order_id from {{ ref('fct_orders') }}"
    ),
    f"{GOLD}/sales/fct_each_run.sql": "select order_id, current_timestamp() as made_at from {{ ref('fct_orders') }}",
    f"{GOLD}/sales/fct_no_order.sql": (
        "select first_value(status) over (\n    partition by coalesce(order_id, '-')\n) as s "
        "from {{ ref('fct_orders') }}"
    ),
    f"{GOLD}/sales/fct_in_order.sql": (  # no mistake in its window, and one in a comment
        "-- current_date, row_number() over (partition by order_id)\n"
        "select first_value(status) over (partition by coalesce(order_id, '-') order by ordered_at) as s, "
        "sum(1) over (partition by order_id) as n from {{ ref('fct_orders') }}"
    ),
    f"{GOLD}/sales/orders.sql": "select order_id from {{ ref('fct_orders') }}",
    f"{SILVER}/shop/slv_from_gold.sql": "select account_id from {{ ref('dim_account') }}",
    f"{SILVER}/shop/slv_by_hand.sql": "select order_id from lakehouse.silver.slv_shop_orders",
    f"{SILVER}/shop/shop_things.sql": "select order_id from {{ ref('slv_shop_orders') }}",
    "dbt_project/models/platinum/fct_elsewhere.sql": "select order_id from {{ ref('fct_orders') }}",
}

# File, right text, and the wrong one in its place.
CHANGED = [
    (CRM, "description: Accounts as they stand now. One row per account.", "description: Accounts as they stand now."),
    (CRM, "description: Name of the company.", 'description: ""'),
]

MISTAKES = [
    ("bronze in gold", "fct_from_bronze", "check_lineage_source_cannot_be_used", "ref() the silver model"),
    ("no unique_key", "fct_no_key", "check_model_incremental_has_unique_key", "add unique_key to its config()"),
    ("no test of the key", "fct_no_key", "check_model_has_unique_test", "add is_key with the columns of the key"),
    ("forgotten YAML", "fct_no_key", "check_model_description_contains_regexp_pattern", "add it to the YAML"),
    ("no reader", "fct_no_key", "check_model_has_exposure", "name it under depends_on of an exposure"),
    (
        "a value of each run",
        "fct_each_run",
        "check_model_code_does_not_contain_regexp_pattern",
        "use a column of the data",
    ),
    (
        "window without order",
        "fct_no_order",
        "check_model_code_does_not_contain_regexp_pattern",
        "add order by to the window",
    ),
    ("gold's name", "orders", "check_model_names", "A gold model is dim_, fct_, rpt_ or feat_<entity>"),
    ("gold in silver", "slv_from_gold", "check_lineage_permitted_upstream_models", "move this model to gold"),
    ("a table by hand", "slv_by_hand", "check_model_hard_coded_references", "write ref() or source()"),
    ("silver's name", "shop_things", "check_model_names", "A silver model is slv_<entity>"),
    ("a fourth layer", "fct_elsewhere", "check_model_directories", "move the file to dbt_project/models/silver or"),
    ("no grain", "dim_account", "check_model_description_contains_regexp_pattern", "ending with 'One row per <what>.'"),
    ("no description", "dim_account", "check_model_column_description_populated", "add a description to the column"),
]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[str, str]]:
    """File and message of each failed check of a copy that has all mistakes, by check and model."""
    project = tmp_path_factory.mktemp("mistakes")
    for name in FILES:
        shutil.copy(ROOT / name, project / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, project / name)
    for path, text in NEW.items():
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(text)
    for path, right, wrong in CHANGED:
        text = (project / path).read_text()
        assert text.count(right) == 1
        (project / path).write_text(text.replace(right, wrong))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DBT_PROFILES_DIR": "profiles",
        "LAKEHOUSE_HOME": str(project),
    }
    tools = Path(sys.executable).parent
    parse = [tools / "dbt", "--quiet", "parse", "--target-path", "target/lint", "--log-path", "target/lint"]
    parsed = subprocess.run(parse, cwd=project, env=environment, capture_output=True, text=True)
    assert parsed.returncode == 0, parsed.stdout + parsed.stderr
    check = [tools / "dbt-bouncer", "run", "--output-file", "checked.json", "--output-format", "json"]
    assert subprocess.run(check, cwd=project, env=environment, capture_output=True).returncode == 1
    return {
        (found["check_run_id"].split(":")[0], found["unique_id"].split(".")[-1]): (
            found["file_path"],
            found["failure_message"],
        )
        for found in json.loads((project / "checked.json").read_text())
        if found["outcome"] == "failed"
    }


@pytest.mark.parametrize(
    ("model", "check", "step"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES]
)
def test_a_mistake_says_what_where_and_the_next_step(
    failures: dict[tuple[str, str], tuple[str, str]], model: str, check: str, step: str
) -> None:
    path, message = failures[check, model]
    assert Path(path).stem == model
    rule, said = message.split(" - ", 1)
    assert ". Fix: " in rule
    assert step in rule
    assert f"`{model}`" in said


def test_what_is_right_is_let_through(failures: dict[tuple[str, str], tuple[str, str]]) -> None:
    assert ("check_model_code_does_not_contain_regexp_pattern", "fct_in_order") not in failures
    assert {model for _, model in failures} == {Path(path).stem for path in NEW} | {"dim_account"}
