"""The fold must notice each of the shortcuts that are known to lose data.

The deliveries are those of test_properties.py, where the engine as it is equals the fold after each of them.
"""

from __future__ import annotations

import duckdb
import pytest
from cdc_duck import Duck
from cdc_fold import Event
from cdc_histories import deliveries, parcels_in_order
from cdc_sets import MODELS, add_models, bronze_row, differences, expected, result
from test_properties import FEW, KEYS_IN_ORDER, KILLING, changes

# Mutant: model that must fail, macro file, text, replacement.
MUTANTS: dict[str, tuple[str, str, str, str]] = {
    "no clamp": (
        "versions", "versions.sql",
        "max({{ delta_cdc._cdc_time(o) }}) over ({{ in_order }} rows between unbounded preceding and current row) as _cdc_effective_at",
        "{{ delta_cdc._cdc_time(o) }} as _cdc_effective_at",
    ),
    "no collapse": (
        "versions", "versions.sql",
        "and not (lead(_cdc_effective_at) over ({{ in_order }}) <=> _cdc_effective_at) as _cdc_shown",
        "as _cdc_shown",
    ),
    "collapse before fill": (
        "versions_ignoring_null", "dedupe.sql",
        "    select * from counted where _cdc_first\n",
        "    select * from (select *, lead(`{{ o.effective_at }}`) over (partition by {{ keys }} order by {{ sequence }}) as _next "
        "from counted where _cdc_first) where _cdc_truncate or not (_next <=> `{{ o.effective_at }}`)\n",
    ),
    "every event is a version": (
        "versions", "versions.sql",
        "not (lag({{ tracked }}) over ({{ shown_in_order }}) <=> {{ tracked }}) as _cdc_head", "true as _cdc_head",
    ),
    "equality not null-safe": (
        "versions", "versions.sql",
        "not (lag({{ tracked }}) over ({{ shown_in_order }}) <=> {{ tracked }}) as _cdc_head",
        "not coalesce({% for name in o.tracked %}lag({{ delta_cdc._cdc_value(o, name) }}) over ({{ shown_in_order }}) = {{ delta_cdc._cdc_value(o, name) }} and "
        "{% endfor %} not lag(_cdc_deleted) over ({{ shown_in_order }}), false) as _cdc_head",
    ),
    "a run shows its first event": (
        "versions_untracked", "versions.sql",
        "and coalesce(lead(_cdc_head or _cdc_deleted) over ({{ shown_in_order }}), true) as _cdc_now_visible",
        "and _cdc_head as _cdc_now_visible",
    ),
    "what arrives last is the state": (
        "states", "versions.sql",
        "partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic\n"
        "            ) is null as _cdc_now_visible",
        "partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden order by `_batch_id`, {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic\n"
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
        "versions_tied", "dedupe.sql",
        "        _cdc_deleted desc, {{ delta_cdc._cdc_known_hash", "        _cdc_stored desc, _cdc_deleted desc, {{ delta_cdc._cdc_known_hash",
    ),
    "a delete wins no tie": (
        "versions_tied", "dedupe.sql",
        "        _cdc_deleted desc, {{ delta_cdc._cdc_known_hash", "        {{ delta_cdc._cdc_known_hash",
    ),
    "the stored time always stays": (
        "versions", "dedupe.sql",
        "min(`{{ o.effective_at }}`) over (partition by {{ keys }}, {{ sequence }}{{ delta_cdc._cdc_repeats(o, schemas) }})",
        "coalesce(max(case when _cdc_stored then `{{ o.effective_at }}` end) over (partition by {{ keys }}, {{ sequence }}), "
        "`{{ o.effective_at }}`)",
    ),
    "an earlier time of a stored event is not written": (
        "versions", "cdc_timeline.sql",
        "or not (`{{ o.effective_at }}` <=> {{ delta_cdc._cdc_time(o) }})", "",
    ),
    "fill across a delete": (
        "versions_ignoring_null", "segment.sql",
        "count_if(_cdc_deleted {{ 'or _cdc_moved' if moves }})", "count_if(false {{ 'or _cdc_moved' if moves }})",
    ),
    "an unsent value is NULL": (
        "states_moved", "fill.sql",
        "{%- if o.unsent %} and not coalesce(array_contains(`{{ o.unsent }}`, '{{ delta_cdc._cdc_escape(name) }}'), false){% endif -%}", "",
    ),
    "a key change gives nothing": (
        "states_moved", "cdc_plan.sql",
        "{{ return(plan) }}", "{{ return(dict(plan, moves=none, chains=none)) }}",
    ),
    "key changes are followed one step": (
        "versions_moved", "cdc_trace_moves.sql",
        "{%- for step in range(1, 30) if now.more -%}", "{%- for step in [] -%}",
    ),
    "a key that gave values is not read again with the key that took them": (
        "versions_moved", "cdc_plan.sql",
        "moves and not everything and delta_cdc._cdc_any_moved(o, '(' ~ staged_keys ~ ')', moves)", "false",
    ),
    "truncate filtered out by the key range": (
        "versions", "cdc_plan.sql",
        "{% if pinned -%}\n        select {{ columns }} from {{ pinned }}",
        "{% if false -%}\n        select {{ columns }} from {{ pinned }}",
    ),
    "a truncate empties the keys of its batch alone": (
        "states", "cdc_plan.sql",
        "first_load or stored.rederive or profile['truncates'] > 0", "first_load or stored.rederive",
    ),
    "state of the last batch alone": (
        "versions", "cdc_plan.sql",
        "    where {{ plan.predicate }}\n", "    where {{ plan.predicate }} and stored._cdc_valid_to is null\n",
    ),
    "one end of the key range is left out": (
        "states", "cdc_key_ranges.sql",
        "between {{ delta_cdc.cdc_literal(lowest, data_type) }} and", "> {{ delta_cdc.cdc_literal(lowest, data_type) }} and {{ alias }}.`{{ key }}` <=",
    ),
    "MERGE only inserts": (
        "versions", "cdc_apply.sql", "delta_cdc._cdc_physical_columns(o) if counts.updated > 0 else []", "[]",
    ),
}  # fmt: skip

# The same of the short way, and of the proof that leads to it.
MUTANTS_IN_ORDER: dict[str, tuple[str, str, str, str]] = {
    "the last sequence again is in order": (
        "states", "cdc_survey.sql",
        "min(_cdc_first) > {{ delta_cdc._cdc_reached_sequence", "min(_cdc_first) >= {{ delta_cdc._cdc_reached_sequence",
    ),
    "late events are in order": (
        "states", "cdc_survey.sql", "and min(_cdc_first) > {{ delta_cdc._cdc_reached_sequence(o, reach) }}", "",
    ),
    "times that were reached are in order": (
        "versions", "cdc_survey.sql", "and min(_cdc_first_at) > {{ delta_cdc._cdc_reached_time(o, reach) }}", "",
    ),
    "nothing is there twice": (
        "versions", "cdc_survey.sql", "not max(_cdc_repeats)", "true",
    ),
    "a tie is in order": (
        "states_tied", "cdc_survey.sql", "not max(_cdc_repeats)", "true",
    ),
    "a truncate is an event like others": (
        "versions", "cdc_survey.sql", "sum(_cdc_truncates + _cdc_moves", "sum(_cdc_moves",
    ),
    "a key change is an event like others": (
        "versions_moved", "cdc_survey.sql", "sum(_cdc_truncates + _cdc_moves", "sum(_cdc_truncates",
    ),
    "the last run alone says how far events reach": (
        "versions", "cdc_note.sql", "{%- if applied -%}", "{%- if false -%}",
    ),
    "a version begins with its last event": (
        "versions", "in_order.sql",
        "'stored._cdc_valid_from as _cdc_earliest_at,'", "'stored.`' ~ o.effective_at ~ '` as _cdc_earliest_at,'",
    ),
    "an open version has what its last event carried": (
        "versions_ignoring_null", "in_order.sql",
        "case when stored._cdc_filled is null then stored.`{{ name }}` else stored._cdc_filled.`{{ name }}` end",
        "stored.`{{ name }}`",
    ),
    "what was not sent is not sent again": (
        "versions_tied", "in_order.sql", "{%- else -%}cast(null as {{ o.types[name] }})", "{%- else -%}stored.`{{ name }}`",
    ),
    "closed versions are read too": (
        "versions", "in_order.sql", "{{ ' and stored._cdc_valid_to is null' if o.scd2 }}", "",
    ),
}  # fmt: skip


def laboratory(mutant: str) -> Duck:
    """A laboratory with a mutant among the macros."""

    def edit(file: str, source: str) -> str:
        _, mutated, text, replacement = (MUTANTS | MUTANTS_IN_ORDER)[mutant]
        assert file != mutated or text in source, f"{mutant}: the text to mutate is gone from {file}"
        return source.replace(text, replacement) if file == mutated else source

    return Duck(edit=edit)


def found_after(model: str, mutant: str) -> list[str]:
    """What differs from the fold after random deliveries."""
    keys, batches = FEW
    return found_in(laboratory(mutant), model, deliveries(KILLING, changes(keys, MODELS[model][0], KILLING), batches))


def found_in_order(model: str, mutant: str) -> list[str]:
    """What differs from the fold after parcels in order."""
    parcels = parcels_in_order(KILLING, KEYS_IN_ORDER, ties=MODELS[model][0] == "tied")
    return found_in(laboratory(mutant), model, [events for events, _ in parcels.values()])


def found_in(lab: Duck, model: str, parcels: list[list[Event]]) -> list[str]:
    """The differences after the first parcel that has some."""
    add_models(lab, model)
    delivered = list[Event]()
    for number, parcel in enumerate(parcels, 1):
        lab.deliver(MODELS[model][0], [bronze_row(event, number) for event in parcel])
        delivered += parcel
        try:
            lab.build()
        except duckdb.Error as error:
            return [str(error)]
        if found := differences(result(lab, model), expected(delivered, model)):
            return found
    return []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_killed(mutant: str) -> None:
    assert found_after(MUTANTS[mutant][0], mutant) != [], "the fold did not notice"


@pytest.mark.parametrize("mutant", MUTANTS_IN_ORDER)
def test_a_mutant_of_the_short_way_is_killed(mutant: str) -> None:
    assert found_in_order(MUTANTS_IN_ORDER[mutant][0], mutant) != [], "the fold did not notice"
