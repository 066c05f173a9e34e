"""Mistakes that analysts make: the message says what, where and the next step, in one line, and no value of a row.

`make lint` finds some of them by the manifest (LINTED). dbt's parser and Spark find the others (TOLD): what they say is
recorded in tests/fixtures/mistakes by tests/e2e/test_messages.py, and `lakeops run` says what it means.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dbt_spark_sessions import told
from rendering import ROOT

from python_ops.jobs.build import in_short
from python_ops.jobs.build.mistakes import explained

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

LINTED = [
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


@pytest.mark.parametrize(("model", "check", "step"), [case[1:] for case in LINTED], ids=[case[0] for case in LINTED])
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


# Of each recorded mistake: where, what, and a part of the next step.
TOLD = {
    "ref": ("models/bad.sql, line 1", "there is no model bsae; did you mean base?", "correct the name in ref()"),
    "ref_without_quotes": ("models/bad.sql", "ref() got a name without quotes", "write ref('<model>')"),
    "source": (
        "models/bad.sql, line 1",
        "there is no source shop_ordrs in bronze; did you mean shop_orders?",
        "correct",
    ),
    "reader": ("models/_m.yml, line 6", "there is no model bsae", "correct the name in ref()"),
    "unit_test": ("models/_m.yml, line 3", "unit test u is of a model bsae that is not there", "correct `model:`"),
    "yaml_indentation": ("models/_m.yml, line 4", "the YAML cannot be read", "two blanks further in"),
    "yaml_tab": ("models/_m.yml, line 4", "the YAML has a tab", "indent with blanks"),
    "yaml_colon": ("models/_m.yml, line 4", "the YAML cannot be read", "quotes around a text with `: `"),
    "yaml_no_list": ("models/_m.yml, line 2", "models is no list", "begin each entry with `- `"),
    "yaml_columns_no_list": ("models/_m.yml, line 4", "columns is no array", "begin each entry with `- `"),
    "jinja_brace": ("models/bad.sql, line 2", "Jinja cannot be read: unexpected '}'", "close each {{ with }}"),
    "jinja_without_end": ("models/bad.sql, line 2", "a {% if %} has no end", "add {% endif %}"),
    "jinja_comma": ("models/bad.sql, line 1", "expected token ',', got 'tags'", "commas between the arguments"),
    "config_without_quotes": (
        "",
        "materialized in a config() has a value without quotes",
        "write materialized='<value>'",
    ),
    "two_models_of_one_name": (
        "models/a/bad.sql",
        "two models are called bad; the other is models/b/bad.sql",
        "rename",
    ),
    "described_twice": ("models/_n.yml, line 3", "base is described here and in models/_m.yml", "keep one"),
    "argument_of_a_test": ("models/_m.yml, line 6", "is_key has no argument column", "of is_key it is columns"),
    "environment": ("", "the variable CUTOFF is not set", "export it"),
    "doc": ("", "base: there is no text nope for doc()", "write it in dbt_project/docs"),
    "group": ("models/base.sql", "there is no group nobody", "write it under groups"),
    "access": ("", "base: access pubic is none of private, protected and public", "remove it"),
    "contract_without_columns": (
        "models/base.sql",
        "the YAML lists no column",
        "list every column with name, data_type",
    ),
    "contract_without_yaml": ("models/contract_without_yaml.sql", "the YAML lists no column", "list every column"),
    "contract_type": ("models/contract_type.sql", "id is int in the query, string in the contract", "change the query"),
    "contract_column": (
        "models/contract_column.sql",
        "e_mail is only in the contract, email is only in the query",
        "a change that readers see needs --full-refresh",
    ),
    "column": ("models/column.sql, line 2", "there is no column e_mail; did you mean email?", "correct the name"),
    "column_of_a_table": (
        "models/column_of_a_table.sql, line 2",
        "no column p.e_mail; did you mean p.email?",
        "correct",
    ),
    "alias_in_where": ("models/alias_in_where.sql, line 2", "no column double_amount", "only in a later CTE"),
    "table": ("models/table.sql, line 2", "there is no table lab_of_nobody.peopel", "write ref('<model>')"),
    "trailing_comma": ("models/trailing_comma.sql, line 4", "the SQL cannot be read at '.'", "a comma too many"),
    "syntax": ("models/syntax.sql, line 4", "the SQL cannot be read at 'id'", "a word missing"),
    "function": ("models/function.sql, line 2", "Spark has no function to_lower", "show functions like"),
    "arguments": ("models/arguments.sql, line 2", "date_add takes 2 arguments, and got 1", "correct the arguments"),
    "argument_type": (
        "models/argument_type.sql, line 2",
        "sum(array(id)) gets a type that it cannot",
        "cast the argument",
    ),
    "group_by": ("models/group_by.sql", "there is no GROUP BY", "add `group by`"),
    "group_by_column": ("models/group_by_column.sql, line 2", "email is neither in GROUP BY nor", "add it to GROUP BY"),
    "ambiguous": ("models/ambiguous.sql, line 2", "id is a column of more than one table", "as in orders.id"),
    "union_width": ("models/union_width.sql", "the first query has 2 columns, the second 1", "select the same columns"),
    "union_types": (
        "models/union_types.sql",
        "of the second query is STRING, of the first it is ARRAY<INT>",
        "cast one",
    ),
    "window_order": ("models/window_order.sql, line 2", "the window of row_number has no order", "add order by"),
    "window_in_where": ("models/window_in_where.sql", "WHERE holds an aggregate or a window", "filter in the next one"),
    "aggregate_in_where": ("models/aggregate_in_where.sql", "WHERE holds an aggregate or a window", "write having"),
    "duplicate_column": ("models/duplicate_column.sql, line 2", "two columns are called id", "rename one with `as`"),
    "no_name_for_a_column": ("models/no_name_for_a_column.sql", "a column has no name of its own", "name it with `as`"),
    "more_rows_than_one": ("models/more_rows_than_one.sql, line 2", "found more than one row", "join on a key instead"),
    "cast": ("models/cast.sql, line 2", "a value is no INT, at select cast(email as int)", "use try_cast"),
    "cast_with_a_quote": ("models/cast_with_a_quote.sql, line 2", "a value is no INT", "exclude such rows"),
    "cast_to_date": ("models/cast_to_date.sql, line 2", "a value is no DATE", "use try_cast"),
    "parsed_date": ("models/parsed_date.sql", "a text is no date or time of the format", "use try_to_timestamp"),
    "overflow": ("models/overflow.sql", "a number is too large for INT", "cast to bigint"),
    "decimal_overflow": ("models/decimal_overflow.sql, line 2", "too large for Decimal(4, 2)", "cast to more digits"),
    "division": ("models/division.sql, line 2", "something is divided by zero", "use try_divide"),
    "macro": ("models/macro.sql, line 2", "there is no macro or variable changed_kees", "delta_cdc.<name>"),
    "macro_of_the_package": ("models/macro_of_the_package.sql, line 2", "there is no macro touched", "docs/cdc.md"),
    "duplicate_key": (
        "models/duplicate_key.sql",
        "expected one row per unique_key (id), got 1 keys with more",
        "grain",
    ),
    "keyless": (
        "models/keyless.sql",
        "expected unique_key for incremental_strategy 'merge', got none",
        "name the columns",
    ),
    "key_not_selected": ("models/key_not_selected.sql", "got no id in one of them", "select them"),
    "replace_by_without_touched_keys": (
        "models/replace_by_without_touched_keys.sql",
        "replace_by: expected touched_keys() in the query under is_incremental(), or '*', got id",
        "read {{ delta_cdc.touched_keys(…) }} there, or write replace_by='*'",
    ),
    "touched_keys_without_replace_by": (
        "models/touched_keys_without_replace_by.sql",
        "expected the key of touched_keys(), whose rows the query replaces, got nothing",
        "add replace_by='<key>'",
    ),
    "replace_by_not_selected": ("models/replace_by_not_selected.sql", "got no name in one of them", "select them"),
    "renamed": ("models/renamed.sql", "got new: address; gone: email; of another type: none", "--full-refresh"),
    "strategy": ("models/strategy.sql", "expected cdc_scd1, cdc_scd2, merge, append, ", "did you mean merge?"),
    "option": ("models/option.sql", "config key unique_keys: expected a key that dbt or", "did you mean unique_key?"),
}
RECORDED = {
    name: recorded
    for file in sorted((ROOT / "tests/fixtures/mistakes").glob("*.json"))
    for name, recorded in json.loads(file.read_text()).items()
}


def test_every_recorded_mistake_has_its_words() -> None:
    assert TOLD.keys() == RECORDED.keys()
    assert len(TOLD) + len(LINTED) > 30


@pytest.mark.parametrize("name", TOLD)
def test_what_dbt_and_spark_say_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    sources = {"python_ops/lake/contracts/shop_orders.yml": ""}
    for path, text in {"models/base.sql": "select 1 as id", **sources, **RECORDED[name]["files"]}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    where, what, step = TOLD[name]
    told = explained(RECORDED[name]["says"], tmp_path)
    assert told is not None and "\n" not in told
    said, fix = told.split(" Fix: ", 1)
    assert said.startswith(f"{where}: " if where else what) and what in said
    assert step in fix
    assert not any(value in RECORDED[name]["says"] for value in ("ada@example", "it's me", "2025-13", "1000000000000"))


def test_what_is_sent_or_kept_shows_no_key_of_a_row() -> None:
    """A duplicate key is named on the terminal alone; alerts and the report say what names alone can say."""
    assert explained(RECORDED["duplicate_key"]["says"], names_only=True) is None
    assert "there is no column e_mail" in (explained(RECORDED["column"]["says"], names_only=True) or "")


def test_what_is_not_known_is_left_as_it_is() -> None:
    assert explained("Database Error\n  the disk is full") is None
    assert in_short("Database Error\n  the disk is full") == "Database Error the disk is full"
    assert in_short("Got 3 results, configured to fail if != 0").startswith("3 rows break the test. Fix: run")


@pytest.mark.parametrize("said", [
    '[INVALID_VARIANT_CAST] The variant value `"ada@x.de"` cannot be cast into "INT". SQLSTATE: 22023',
    "[DELTA_VIOLATE_CONSTRAINT_WITH_VALUES] ck violated by row with values:\n - n : a\nada@x.de\n SQLSTATE: 23001",
    "[INVALID_URL] The url is invalid: https://x/?mail=ada@x.de. SQLSTATE: 22P02",
    "[CAST_INVALID_INPUT] The value 'SQLSTATE: 42000 ada@x.de' of the type \"STRING\" is malformed. SQLSTATE: 22018",
    "[CAST_INVALID_INPUT] The value 'x\n at home ada@x.de' of the type \"STRING\" is malformed. SQLSTATE: 22018",
    "[MALFORMED_RECORD_IN_PARSING] Malformed records: [ada@x.de,7].\nParse Mode: FAILFAST. SQLSTATE: 22023",
    "An error occurred while calling o1.sql.\n: org.apache.spark.SparkException: Job aborted: [ada@x.de]\n\tat a.b(c)\n"
    "Caused by: java.lang.NumberFormatException: For input string: \"ada@x.de\"\n\tat c.d(e)",
])  # fmt: skip
def test_no_word_of_sparks_holds_a_value(said: str) -> None:
    assert "ada@x.de" not in told(said) and len(told(said)) > 20


def test_what_the_machine_says_is_told() -> None:
    """A full disk and a refused file lie below the condition that Spark gives them."""
    said = (
        "An error occurred while calling o1.sql.\n: org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed."
        " SQLSTATE: 58030\n\tat a.b(c)\nCaused by: java.io.IOException: No space left on device\n\tat c.d(e)"
    )
    assert told(said) == "[TASK_WRITE_FAILED] Task failed. SQLSTATE: 58030: No space left on device"


def test_a_long_line_takes_no_time() -> None:
    began = time.process_time()
    assert explained("Runtime Error in model x (models/x.sql)\n  " + "word [a " * 20_000) is None
    assert time.process_time() - began < 2
