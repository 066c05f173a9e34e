{#-- What the timeline reads of the storage table, and under which literal predicate; key changes among it. It returns the plan
     that the timeline is handed: relations or sub-queries `state` (stored events; none on a first load), `truncations`, `moves`
     and `chains`, each none where there is none, and the `predicate` of the MERGE. --#}
{% macro cdc_plan(run) -%}
    {%- set o, stage, stored, profile = run.o, run.stage, run.stored, run.profile -%}
    {%- set pinned = none if run.first_load else '(select * from ' ~ delta_cdc.cdc_stored_rows(run) ~ ')' -%}
    {%- set has_truncates = o.truncate_when and (profile['truncates'] > 0 or run.marks.truncates) -%}
    {%- set everything = run.first_load or stored.rederive or profile['truncates'] > 0 -%}
    {%- set staged_keys = 'select ' ~ delta_cdc._cdc_columns(o.unique_key) ~ ' from ' ~ stage ~ ' where not _cdc_truncate' -%}

    {%- set moves = delta_cdc._cdc_find_moves(o, pinned, stage, run.found) if o.moved_from and o.fill else none -%}
    {%- set has_moved = moves and not everything and delta_cdc._cdc_any_moved(o, '(' ~ staged_keys ~ ')', moves) -%}
    {%- set touched = '(' ~ staged_keys ~ (' union all ' ~ delta_cdc.cdc_moved_keys(o, moves) if has_moved else '') ~ ')' -%}

    {%- set ranges = [] if everything else delta_cdc._cdc_listed_ranges(profile['ranges']) if 'ranges' in profile and not has_moved
        else delta_cdc._cdc_find_ranges(o, touched) -%}
    {%- set key = delta_cdc._cdc_range_key(o) -%}
    {%- set plan = {
        'has_truncates': has_truncates,
        'truncations': delta_cdc.cdc_truncations(o, pinned, stage) if has_truncates else none,
        'moves': moves if everything or has_moved else none,
        'touched': touched,
        'predicate': delta_cdc.cdc_range_predicate(key, o.types[key], ranges, 'stored', has_truncates) if ranges else 'true',
        'chains': none,
    } -%}
    {%- do plan.update({'state': none if run.first_load else pinned ~ ' as stored' if everything else delta_cdc.cdc_state(run, plan)}) -%}
    {%- if plan.moves -%}{%- do plan.update({'chains': delta_cdc._cdc_find_chains(run, plan)}) -%}{%- endif -%}
    {{ return(plan) }}
{%- endmacro %}


{#-- Stored events of the touched keys; stored truncates belong to every key. --#}
{% macro cdc_state(run, plan) -%}
{%- set key, stored = run.o.unique_key, delta_cdc.cdc_stored_rows(run) -%}
(
    select stored.*
    from {{ stored }} as stored
    left semi join {{ plan.touched }} as touched on {{ delta_cdc._cdc_same(run.o, key, 'stored', 'touched') }}
    where {{ plan.predicate }}
    {%- if plan.has_truncates %}
    union all
    select * from {{ stored }} where `{{ key[0] }}` is null and _cdc_truncate
    {%- endif %}
) as state
{%- endmacro %}


{#-- Every truncate once, stored or new. --#}
{% macro cdc_truncations(o, pinned, stage) -%}
{%- set columns -%}{{ delta_cdc._cdc_columns(o.sequence) }}{{ ', `' ~ o.effective_at ~ '` as _cdc_truncated_at' if o.scd2 }}{%- endset -%}
(
    select {{ delta_cdc._cdc_columns(o.sequence) }}{{ ', min(_cdc_truncated_at) as _cdc_truncated_at' if o.scd2 }}
    from (
        {% if pinned -%}
        select {{ columns }} from {{ pinned }} where `{{ o.unique_key[0] }}` is null and _cdc_truncate
        union all
        {% endif -%}
        select {{ columns }} from {{ stage }} where _cdc_truncate
    )
    group by {{ delta_cdc._cdc_columns(o.sequence) }}
)
{%- endmacro %}
