"""The fold must notice each of the shortcuts that are known to lose data."""

from __future__ import annotations

import pytest
from cdc_duck import Duck
from cdc_histories import deliveries, histories
from cdc_sets import MODELS, add_models, bronze_row, differences, expected, result

SEED, KEYS, BATCHES = 7, 300, 3

# Mutant: model that must fail, macro file, text, replacement.
MUTANTS: dict[str, tuple[str, str, str, str]] = {
    "no clamp": (
        "versions", "cdc_timeline.sql",
        "max({{ _cdc_time(o) }}) over ({{ in_order }} rows between unbounded preceding and current row) as _cdc_effective_at",
        "{{ _cdc_time(o) }} as _cdc_effective_at",
    ),
    "no collapse": (
        "versions", "cdc_timeline.sql",
        "and not (lead(_cdc_effective_at) over ({{ in_order }}) <=> _cdc_effective_at) as _cdc_shown",
        "as _cdc_shown",
    ),
    "collapse before fill": (
        "versions_ignoring_null", "cdc_timeline.sql",
        "    select * from counted where _cdc_first\n",
        "    select * from (select *, lead(`{{ o.effective_at }}`) over (partition by {{ keys }} order by {{ sequence }}) as _next "
        "from counted where _cdc_first) where _cdc_truncate or not (_next <=> `{{ o.effective_at }}`)\n",
    ),
    "every event is a version": (
        "versions", "cdc_timeline.sql",
        "not (lag({{ tracked }}) over ({{ shown_in_order }}) <=> {{ tracked }}) as _cdc_head", "true as _cdc_head",
    ),
    "equality not null-safe": (
        "versions", "cdc_timeline.sql",
        "not (lag({{ tracked }}) over ({{ shown_in_order }}) <=> {{ tracked }}) as _cdc_head",
        "not coalesce({% for name in o.tracked %}lag({{ _cdc_value(o, name) }}) over ({{ shown_in_order }}) = {{ _cdc_value(o, name) }} and "
        "{% endfor %} not lag(_cdc_deleted) over ({{ shown_in_order }}), false) as _cdc_head",
    ),
    "a run shows its first event": (
        "versions_untracked", "cdc_timeline.sql",
        "and coalesce(lead(_cdc_head or _cdc_deleted) over ({{ shown_in_order }}), true) as _cdc_now_visible",
        "and _cdc_head as _cdc_now_visible",
    ),
    "what arrives last is the state": (
        "states", "cdc_timeline.sql",
        "partition by {{ _cdc_columns(o.unique_key) }}, _cdc_overridden order by {{ _cdc_columns(o.sequence) }}, _cdc_synthetic\n"
        "            ) is null as _cdc_now_visible",
        "partition by {{ _cdc_columns(o.unique_key) }}, _cdc_overridden order by `_batch_id`, {{ _cdc_columns(o.sequence) }}, _cdc_synthetic\n"
        "            ) is null as _cdc_now_visible",
    ),
    "stored versions stay as they are": (
        "versions", "cdc_timeline.sql",
        "or not (_cdc_now_to <=> _cdc_valid_to)", "",
    ),
    "stored filled values stay as they are": (
        "versions_ignoring_null", "cdc_timeline.sql",
        "or not (_cdc_now_filled <=> _cdc_filled)", "",
    ),
    "stored row always wins a tie": (
        "versions_tied", "cdc_timeline.sql",
        "        _cdc_deleted desc, {{ _cdc_known_hash", "        _cdc_stored desc, _cdc_deleted desc, {{ _cdc_known_hash",
    ),
    "a delete wins no tie": (
        "states_tied", "cdc_timeline.sql",
        "        _cdc_deleted desc, {{ _cdc_known_hash", "        {{ _cdc_known_hash",
    ),
    "the stored time always stays": (
        "versions", "cdc_timeline.sql",
        "min(`{{ o.effective_at }}`) over (partition by {{ keys }}, {{ sequence }}{{ _cdc_repeats(o, schemas) }})",
        "coalesce(max(case when _cdc_stored then `{{ o.effective_at }}` end) over (partition by {{ keys }}, {{ sequence }}), "
        "`{{ o.effective_at }}`)",
    ),
    "an earlier time of a stored event is not written": (
        "versions", "cdc_timeline.sql",
        "or not (`{{ o.effective_at }}` <=> {{ _cdc_time(o) }})", "",
    ),
    "fill across a delete": (
        "versions_ignoring_null", "cdc_timeline.sql",
        "count_if(_cdc_deleted {{ 'or _cdc_moved' if moves }})", "count_if(false {{ 'or _cdc_moved' if moves }})",
    ),
    "an unsent value is NULL": (
        "states_moved", "cdc_timeline.sql",
        "{%- if o.unsent %} and not coalesce(array_contains(`{{ o.unsent }}`, '{{ _cdc_escape(name) }}'), false){% endif -%}", "",
    ),
    "a key change gives nothing": (
        "states_moved", "cdc_apply.sql",
        "'truncations': truncations, 'moves': taken.moves, 'chains': chains", "'truncations': truncations, 'moves': none, 'chains': none",
    ),
    "key changes are followed one step": (
        "versions_moved", "cdc_trace_moves.sql",
        "{%- for step in range(1, 30) if now.more -%}", "{%- for step in [] -%}",
    ),
    "a key that gave values is not read again with the key that took them": (
        "versions_moved", "cdc_apply.sql",
        "{%- if _cdc_any_moved(o, touched.name, moves) -%}", "{%- if false -%}",
    ),
    "truncate filtered out by the key range": (
        "versions", "cdc_apply.sql",
        "{% if pinned -%}\n        select {{ columns }} from {{ pinned }}",
        "{% if false -%}\n        select {{ columns }} from {{ pinned }}",
    ),
    "a truncate empties the keys of its batch alone": (
        "states", "cdc_apply.sql",
        "first_load or stored.rederive or profile['truncates'] > 0", "first_load or stored.rederive",
    ),
    "state of the last batch alone": (
        "versions", "cdc_apply.sql",
        "    where {{ predicate }}\n", "    where {{ predicate }} and stored._cdc_valid_to is null\n",
    ),
    "one end of the key range is left out": (
        "states", "cdc_key_ranges.sql",
        "between {{ cdc_literal(lowest, data_type) }} and", "> {{ cdc_literal(lowest, data_type) }} and {{ alias }}.`{{ key }}` <=",
    ),
    "MERGE only inserts": (
        "versions", "cdc_apply.sql", "predicate, counts.updated > 0)", "predicate, false)",
    ),
}  # fmt: skip


def found_after(model: str, mutant: str | None = None) -> list[str]:
    """What differs from the fold after random deliveries, with a mutant among the macros."""

    def edit(file: str, source: str) -> str:
        _, mutated, text, replacement = MUTANTS[str(mutant)]
        assert file != mutated or text in source, f"{mutant}: the text to mutate is gone from {file}"
        return source.replace(text, replacement) if file == mutated else source

    lab = Duck(edit=edit if mutant else None)
    add_models(lab, model)
    bronze = MODELS[model][0]
    events = histories(SEED, KEYS, ties=bronze == "tied")
    for number, parcel in enumerate(deliveries(SEED, events, BATCHES), 1):
        lab.deliver(bronze, [bronze_row(event, number) for event in parcel])
        lab.build()
    return differences(result(lab, model), expected(events, model))


@pytest.mark.parametrize("model", sorted({model for model, *_ in MUTANTS.values()}))
def test_these_deliveries_equal_the_fold_without_a_mutant(model: str) -> None:
    assert found_after(model) == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_killed(mutant: str) -> None:
    assert found_after(MUTANTS[mutant][0], mutant) != [], "the fold did not notice"
