"""What dbt and Spark say of an analyst's mistakes: tests/fixtures/mistakes has it, for tests/macros/test_mistakes.py.

`RECORD_MISTAKES=1 pytest tests/e2e/test_messages.py` writes them anew, after another version of dbt or Spark.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cdc_lab import PRODUCTION, ROOT, Lab, install_package

pytestmark = pytest.mark.campaign
PROFILES = PRODUCTION  # generated code may say another word than what stands in for it

PEOPLE = "select 1 as id, 'ada@example.com' as email, '2025-13-01' as born, 'it''s me' as name, 10 as amount, 0 as none"
ROW_NUMBER = "row_number() over (partition by id)"
CONTRACT = """
models:
  - name: {name}
    config: {{materialized: table, contract: {{enforced: true}}}}
    columns:
      - {{name: id, data_type: {type}}}
      - {{name: {column}, data_type: string}}
"""

# Queries of tables; `{p}` is the table of one person.
QUERIES = {
    "column": "select id, e_mail from {p}",
    "column_of_a_table": "select p.id, p.e_mail from {p} as p",
    "alias_in_where": "select amount * 2 as double_amount from {p} where double_amount > 1",
    "table": "select * from lab_of_nobody.peopel",
    "trailing_comma": "select id,\n    email,\nfrom {p}",
    "syntax": "select id\nfrom {p}\ngroup id",
    "function": "select to_lower(email) as email from {p}",
    "group_by": "select id, count(*) as n from {p}",
    "group_by_column": "select id, email, count(*) as n from {p} group by id",
    "ambiguous": "select id from {p} as a inner join {p} as b on a.id = b.id",
    "union_width": "select id, email from {p} union all select id from {p}",
    "union_types": "select array(id) as id from {p} union all select email as id from {p}",
    "argument_type": "select sum(array(id)) as n from {p}",
    "arguments": "select date_add(born) as d from {p}",
    "window_order": f"select id, {ROW_NUMBER} as n from {{p}}",
    "window_in_where": "select id from {p} where row_number() over (partition by id order by name) = 1",
    "aggregate_in_where": "select id from {p} where count(*) > 1",
    "duplicate_column": "select id, id from {p}",
    "no_name_for_a_column": "select count(*), max(id) from {p}",
    "cast": "select cast(email as int) as n from {p}",
    "cast_with_a_quote": "select cast(name as int) as n from {p}",
    "cast_to_date": "select cast(born as date) as born from {p}",
    "parsed_date": "select to_date(born, 'yyyy-MM-dd') as born from {p}",
    "overflow": "select cast(amount * 100000000000 as int) as n from {p}",
    "decimal_overflow": "select cast(amount * 1000 as decimal(4, 2)) as n from {p}",
    "division": "select amount / none as share from {p}",
    "more_rows_than_one": "select (select id from values (7781), (7782) as v(id)) as n from {p}",
    "macro": "select {{{{ changed_kees('x') }}}} from {p}",
    "macro_of_the_package": "select * from {{{{ delta_cdc.touched('x') }}}}",
}

# Merge models: query and configuration. `{new}` and `{now}` change between the first run and the second.
MERGE: dict[str, Any] = {"incremental_strategy": "merge", "unique_key": "id"}
TOUCHED = """
{{% if is_incremental() %}}
left semi join {{{{ delta_cdc.touched_keys('select id from {p}') }}}} as touched using (id)
{{% endif %}}"""
MERGES: dict[str, tuple[str, dict[str, Any]]] = {
    "duplicate_key": ("select id, email from {p} union all select id, 'other' from {p} where {now}", MERGE),
    "keyless": ("select id from {p} where {now} or true", {"incremental_strategy": "merge"}),
    "key_not_selected": ("select email from {p} where {now} or true", MERGE),
    "replace_by_without_touched_keys": ("select id, email from {p} where {now} or true", {**MERGE, "replace_by": "id"}),
    "touched_keys_without_replace_by": ("select id from {p}" + TOUCHED, MERGE),
    "replace_by_not_selected": ("select id, email from {p} where {now} or true", {**MERGE, "replace_by": "name"}),
    "renamed": ("select id, email as {new} from {p}", {**MERGE, "on_schema_change": "fail"}),
    "strategy": ("select id from {p}", {"incremental_strategy": "megre"}),
    "option": ("select id from {p}", {**MERGE, "unique_keys": "id"}),
}

# Files of a project that dbt cannot read; it has a model `base` with one column.
MODEL = "version: 2\nmodels:\n  - name: base\n"
FILES = {
    "ref": {"models/bad.sql": "select * from {{ ref('bsae') }}"},
    "ref_without_quotes": {"models/bad.sql": "select * from {{ ref(base) }}"},
    "source": {"models/bad.sql": "select * from {{ source('bronze', 'shop_ordrs') }}"},
    "yaml_indentation": {"models/_m.yml": f"{MODEL}     description: Too far in.\n"},
    "yaml_tab": {"models/_m.yml": f"{MODEL}\tdescription: After a tab.\n"},
    "yaml_colon": {"models/_m.yml": f"{MODEL}    description: key: value\n"},
    "yaml_no_list": {"models/_m.yml": "version: 2\nmodels:\n  name: base\n"},
    "yaml_columns_no_list": {"models/_m.yml": f"{MODEL}    columns:\n      name: id\n"},
    "jinja_brace": {"models/bad.sql": "select *\nfrom {{ ref('base') }"},
    "jinja_without_end": {"models/bad.sql": "select 1\n{% if is_incremental() %} as one"},
    "jinja_comma": {"models/bad.sql": "{{ config(materialized='table' tags='x') }}\nselect 1 as one"},
    "config_without_quotes": {"models/bad.sql": "{{ config(materialized=table) }}\nselect 1 as one"},
    "two_models_of_one_name": {"models/a/bad.sql": "select 1 as one", "models/b/bad.sql": "select 1 as one"},
    "described_twice": {"models/_m.yml": MODEL, "models/_n.yml": MODEL},
    "argument_of_a_test": {
        "models/_m.yml": f"{MODEL}    data_tests:\n      - is_key:\n          arguments: {{column: [id]}}\n",
        "tests/generic/is_key.sql": "{% test is_key(model, columns) %} select 1 {{ columns }}{% endtest %}",
    },
    "environment": {"models/bad.sql": "select '{{ env_var('CUTOFF') }}'"},
    "doc": {"models/_m.yml": f"{MODEL}    description: \"{{{{ doc('nope') }}}}\"\n"},
    "group": {"models/_m.yml": f"{MODEL}    config: {{group: nobody}}\n"},
    "access": {"models/_m.yml": f"{MODEL}    config: {{access: pubic}}\n"},
    "contract_without_columns": {"models/_m.yml": f"{MODEL}    config: {{contract: {{enforced: true}}}}\n"},
    "reader": {
        "models/_m.yml": "version: 2\nexposures:\n  - name: board\n    type: dashboard\n"
        "    owner: {name: n, email: n@example.com}\n    depends_on: [ref('bsae')]\n"
    },
    "unit_test": {
        "models/_m.yml": "version: 2\nunit_tests:\n  - {name: u, model: bsae, given: [], expect: {rows: [{id: 1}]}}\n"
    },
}


def same_as_recorded(name: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Each mistake with the files that have it and what was said of it."""
    recorded = ROOT / "tests/fixtures/mistakes" / name
    if "RECORD_MISTAKES" in os.environ:
        recorded.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(recorded.read_text())


@pytest.mark.spark
def test_spark_says_what_is_recorded(lab: Lab) -> None:
    def plain(text: str) -> str:
        """Without Spark's plan and what differs from run to run."""
        for words, instead in ((str(lab.folder), "…"), (str(ROOT), "…"), (lab.schema, "lab")):
            text = text.replace(words, instead)
        return re.split(r"\n\s+'?[A-Z]\w+ TableSpec", text)[0]

    people, found = lab.table("people"), {}
    lab.spark.sql(f"create table {people} using delta as {PEOPLE}").collect()
    for name, query in QUERIES.items():
        lab.sql(name, query.format(p=people), materialized="table")
    for name, type_, column in (("contract_type", "string", "email"), ("contract_column", "int", "e_mail")):
        lab.sql(name, f"select id, email from {people}", materialized="table")
        text = CONTRACT.format(name=name, type=type_, column=column)
        (lab.folder / "models" / f"_{name}.yml").write_text(text)
    lab.sql("contract_without_yaml", f"select id from {people}", materialized="table", contract={"enforced": True})
    for now, new in (("false", "email"), ("true", "address")):
        for name, (query, config) in MERGES.items():
            lab.sql(name, query.format(p=people, now=now, new=new), **config)
        lab.build(check=False)
        for name, text in lab.failed.items():
            path = f"models/{name}.sql"
            found[name] = {"files": {path: plain((lab.folder / path).read_text())}, "says": plain(text)}
    same_as_recorded("spark.json", found)
    assert found.keys() == {*QUERIES, *MERGES, "contract_type", "contract_column", "contract_without_yaml"}


def test_dbt_says_what_is_recorded(tmp_path: Path) -> None:
    from dbt.cli.main import dbtRunner

    found = {}
    for name, files in FILES.items():
        project = tmp_path / name
        install_package(project)
        (project / "dbt_project.yml").write_text(
            'name: lab\nversion: "1.0.0"\nprofile: lakehouse\nflags: {send_anonymous_usage_stats: false}\n'
        )
        for path, text in {"models/base.sql": "select 1 as id", **files}.items():
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(text)
        line = ["--quiet", "parse", "--project-dir", str(project), "--profiles-dir", str(ROOT / "profiles")]
        says = str(dbtRunner().invoke([*line, "--log-path", str(project / "logs")]).exception)
        found[name] = {"files": files, "says": says}
    same_as_recorded("dbt.json", found)
