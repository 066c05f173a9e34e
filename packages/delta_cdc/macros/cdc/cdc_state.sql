{#-- What the timeline reads of the storage table, and under which literal predicate; key changes among it. --#}
{% macro cdc_plan(run) -%}
    {%- set o, storage, stage, stored, profile = run.o, run.storage, run.stage, run.stored, run.profile -%}
    {%- set pinned = none if run.first_load else '(select * from ' ~ storage ~ ' version as of ' ~ stored.version ~ ')' -%}
    {%- set has_truncates = o.truncate_when and (profile['truncates'] > 0 or run.marks.truncates) -%}
    {%- set truncations = delta_cdc.cdc_truncations(o, pinned, stage) if has_truncates else none -%}
    {%- set everything = run.first_load or stored.rederive or profile['truncates'] > 0 -%}
    {%- set staged_keys = 'select ' ~ delta_cdc._cdc_columns(o.unique_key) ~ ' from ' ~ stage ~ ' where not _cdc_truncate' -%}

    {%- set moves = delta_cdc._cdc_find_moves(o, pinned, stage, run.found) if o.moved_from and o.fill else none -%}
    {%- set has_moved = moves and not everything and delta_cdc._cdc_any_moved(o, '(' ~ staged_keys ~ ')', moves) -%}
    {%- set touched = '(' ~ staged_keys ~ (' union all ' ~ delta_cdc.cdc_moved_keys(o, moves) if has_moved else '') ~ ')' -%}
    {%- set moves = moves if everything or has_moved else none -%}

    {%- set ranges = [] if everything else delta_cdc._cdc_listed_ranges(profile['ranges']) if 'ranges' in profile and not has_moved
        else delta_cdc._cdc_find_ranges(o, touched) -%}
    {%- set predicate = delta_cdc.cdc_range_predicate(delta_cdc._cdc_range_key(o), o.types[delta_cdc._cdc_range_key(o)], ranges, 'stored', has_truncates) if ranges else 'true' -%}
    {%- set state = pinned ~ ' as stored' if everything and pinned else none if run.first_load
        else delta_cdc.cdc_state(o, storage, stored.version, touched, predicate, has_truncates) -%}
    {%- set chains = delta_cdc._cdc_find_chains(o, state, stage, stored.schemas, truncations, moves) if moves else none -%}
    {{ return({'state': state, 'predicate': predicate, 'truncations': truncations, 'moves': moves, 'chains': chains}) }}
{%- endmacro %}


{#-- Stored events of the touched keys; stored truncates belong to every key. --#}
{% macro cdc_state(o, storage, version, touched, predicate, has_truncates) -%}
(
    select stored.*
    from {{ storage }} version as of {{ version }} as stored
    left semi join {{ touched }} as touched on {{ delta_cdc._cdc_equal(o.unique_key, 'stored', 'touched') }}
    where {{ predicate }}
    {%- if has_truncates %}
    union all
    select * from {{ storage }} version as of {{ version }} where `{{ o.unique_key[0] }}` is null and _cdc_truncate
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
