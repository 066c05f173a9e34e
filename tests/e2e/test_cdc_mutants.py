"""The property test must notice each of the shortcuts that are known to lose data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from cdc_histories import deliveries, histories
from cdc_lab import ROOT, Lab
from test_cdc_properties import MODELS, bronze_row, differences, expected, make_lab, result

pytestmark = pytest.mark.spark

# Mutant: model that must fail, macro file, text, replacement.
MUTANTS: dict[str, tuple[str, str, str, str]] = {
    "no clamp": (
        "versions", "cdc_timeline.sql",
        "max({{ _cdc_time(o) }}) over ({{ in_order }} rows between unbounded preceding and current row) as _cdc_effective_at",
        "{{ _cdc_time(o) }} as _cdc_effective_at",
    ),
    "stored row always wins a tie": (
        "versions_tied", "cdc_timeline.sql",
        "        _cdc_deleted desc, {{ _cdc_known_hash", "        _cdc_stored desc, _cdc_deleted desc, {{ _cdc_known_hash",
    ),
    "stored time always stays": (
        "versions", "cdc_timeline.sql",
        "min(`{{ o.effective_at }}`) over (partition by {{ keys }}, {{ sequence }}{{ _cdc_repeats(o, schemas) }})",
        "coalesce(max(case when _cdc_stored then `{{ o.effective_at }}` end) over (partition by {{ keys }}, {{ sequence }}), `{{ o.effective_at }}`)",
    ),
    "fill across a delete": (
        "versions_ignoring_null", "cdc_timeline.sql",
        "count_if(_cdc_deleted {{ 'or _cdc_moved' if moves }})", "count_if(false {{ 'or _cdc_moved' if moves }})",
    ),
    "equality not null-safe": (
        "versions", "cdc_timeline.sql",
        "not (lag({{ tracked }}) over ({{ shown_in_order }}) <=> {{ tracked }}) as _cdc_head",
        "not coalesce({% for name in o.tracked %}lag({{ _cdc_value(o, name) }}) over ({{ shown_in_order }}) = {{ _cdc_value(o, name) }} and "
        "{% endfor %} not lag(_cdc_deleted) over ({{ shown_in_order }}), false) as _cdc_head",
    ),
    "collapse before fill": (
        "versions_ignoring_null", "cdc_timeline.sql",
        "    select * from counted where _cdc_first\n",
        "    select * from (select *, lead(`{{ o.effective_at }}`) over (partition by {{ keys }} order by {{ sequence }}) as _next "
        "from counted where _cdc_first) where _cdc_truncate or not (_next <=> `{{ o.effective_at }}`)\n",
    ),
    "truncate filtered out by the key range": (
        "versions", "cdc_apply.sql",
        "{% if pinned -%}\n        select {{ columns }} from {{ pinned }}",
        "{% if false -%}\n        select {{ columns }} from {{ pinned }}",
    ),
}  # fmt: skip


def broken_lab(spark: Any, folder: Path, schema: str, mutant: str) -> tuple[Lab, str]:
    """A laboratory whose macros carry the mutant."""
    model, file, text, replacement = MUTANTS[mutant]
    macros = folder / "macros"
    shutil.copytree(ROOT / "macros", macros)
    source = (macros / "cdc" / file).read_text()
    assert text in source, f"{mutant}: the text to mutate is gone from {file}"
    (macros / "cdc" / file).write_text(source.replace(text, replacement))
    lab = make_lab(spark, folder, schema, [model])
    project = folder / "dbt_project.yml"
    project.write_text(project.read_text().replace(str(ROOT / "macros"), str(macros)))
    return lab, model


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_killed(spark: Any, tmp_path: Path, mutant: str) -> None:
    lab, model = broken_lab(spark, tmp_path, "mutant", mutant)
    source, _, _, options = MODELS[model]
    events = histories(7, 300, ties=source == "tied")
    for number, parcel in enumerate(deliveries(7, events, 3)):
        lab.deliver(source, [bronze_row(event, number + 1) for event in parcel])
        lab.build()
    found = differences(result(lab, model, options), expected(events, options))
    spark.sql("drop schema mutant cascade")
    assert found != [], "the fold did not notice"
