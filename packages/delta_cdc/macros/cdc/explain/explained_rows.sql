{#-- What cdc_explain reads. Each query gives one JSON list of texts per row, so that dbt's result tables change no value. --#}

{#-- The key's stored events, with what the engine's own steps make of them, and the truncates that close the key. --#}
{% macro cdc_explained_events(o, storage, schemas, condition) -%}
{%- set nothing = delta_cdc._cdc_no_events(o, storage) -%}
{%- set run = {'o': o, 'stage': nothing, 'stored': {'schemas': schemas}} -%}
{%- set plan = {
    'state': '(select * from ' ~ storage ~ ' where ' ~ condition ~ ')', 'moves': none,
    'truncations': delta_cdc.cdc_truncations(o, storage, nothing) if o.truncate_when else none,
} -%}
{%- set place -%}order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic{%- endset -%}
{%- set raw = dict(o, fill=[]) -%}
with {{ delta_cdc.cdc_segmented(run, plan) }},

{{ delta_cdc._cdc_filled(raw, none) }},

{{ delta_cdc._cdc_runs(raw) if o.scd2 else delta_cdc._cdc_last_states(raw) }},

told as (
    select
        *,
        {{ delta_cdc._cdc_sequence_text(o) }} as _cdc_at,
        case when _cdc_synthetic then 'truncate' when _cdc_deleted then 'delete' else 'change' end as _cdc_kind,
        {{ '_cdc_shown' if o.scd2 else 'not _cdc_overridden' }} as _cdc_counts
    from placed_in_time
)

select {{ delta_cdc._cdc_json('array(' ~ delta_cdc._cdc_told_fields(o, schemas) ~ ')') }} as said
from told
window
    later as (partition by {{ delta_cdc._cdc_columns(o.unique_key) }} {{ place }} rows between 1 following and unbounded following),
    so_far as (partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden, _cdc_segment {{ place }} rows between unbounded preceding and current row)
{{ place }}
{%- endmacro %}


{#-- The fields of such a list, in the order in which `_cdc_explanation` names them. --#}
{% macro _cdc_told_fields(o, schemas) -%}
    {%- set text = namespace(filled=[], values=[]) -%}
    {%- for name in o.fill -%}
        {%- do text.filled.append("case when _cdc_filled is not null and not (_cdc_filled.`" ~ name ~ "` <=> `" ~ name ~ "`) then concat('" ~ delta_cdc._cdc_escape(name)
            ~ " ', coalesce(concat('from ', last_value(case when " ~ delta_cdc._cdc_sent(o, name) ~ " then _cdc_at end, true) over so_far), '?')) end") -%}
    {%- endfor -%}
    {%- for name in o.payload if name != o.unsent -%}
        {%- set value = 'case when _cdc_filled is null then `' ~ name ~ '` else _cdc_filled.`' ~ name ~ '` end' if name in o.fill else '`' ~ name ~ '`' -%}
        {%- do text.values.append("concat('" ~ delta_cdc._cdc_escape(name) ~ "=', coalesce(cast(" ~ value ~ " as string), 'NULL'))") -%}
    {%- endfor -%}
    {{ return([
        '_cdc_at', delta_cdc._cdc_text_of(o.watermark), '_cdc_kind',
        'cast(`' ~ o.effective_at ~ '` as string)' if o.scd2 else 'cast(null as string)',
        'cast(_cdc_effective_at as string)' if o.scd2 else 'cast(null as string)',
        'cast(_cdc_overridden as string)', 'cast(coalesce(_cdc_visible, false) as string)', 'cast(_cdc_counts as string)',
        'cast(_cdc_valid_from as string)', 'cast(_cdc_valid_to as string)',
        'first_value(case when _cdc_counts then _cdc_at end, true) over later', 'first_value(case when _cdc_counts then _cdc_kind end, true) over later',
        'first_value(case when _cdc_visible then _cdc_at end, true) over later',
        'cast(coalesce(min(case when not _cdc_synthetic then `' ~ o.watermark ~ '` end) over later < `' ~ o.watermark ~ '`, false) as string)' if o.watermark else "'false'",
        "concat_ws(', ', cast(null as string)" ~ (', ' if text.filled) ~ text.filled | join(', ') ~ ')',
        "concat_ws(', ', cast(null as string)" ~ (', ' if text.values) ~ text.values | join(', ') ~ ')',
        'cast(' ~ delta_cdc._cdc_known_hash(o, schemas) ~ ' as string)',
    ] | join(', ')) }}
{%- endmacro %}


{#-- What the model's SELECT gives of the key today: every copy of every event that its source still has. --#}
{% macro cdc_explained_arrivals(o, storage, model_sql, schemas, condition) -%}
select {{ delta_cdc._cdc_json('array(' ~ [
    delta_cdc._cdc_sequence_text(o), delta_cdc._cdc_text_of(o.watermark), "case when _cdc_deleted then 'delete' else 'change' end",
    'cast(' ~ delta_cdc._cdc_known_hash(o, schemas) ~ ' as string)',
    'cast(coalesce(`' ~ o.watermark ~ '` > (select max(`' ~ o.watermark ~ '`) from ' ~ storage ~ '), true) as string)' if o.watermark else "'true'",
] | join(', ') ~ ')') }} as said
from (
{{ delta_cdc.cdc_stage(o, model_sql, none) }}
) as arrived
where {{ condition }}
order by {{ delta_cdc._cdc_columns(o.sequence + ([o.watermark] if o.watermark else [])) }}
{%- endmacro %}


{#-- Key changes that the key is part of: whether it took or gave values, the place of its event, and the other key. --#}
{% macro cdc_explained_moves(o, storage, key) -%}
{%- set gone -%}concat_ws(', '{% for name in o.sequence %}, cast(_cdc_move.`{{ name }}` as string){% endfor %}){%- endset -%}
{%- set old -%}concat_ws(', '{% for name in o.unique_key %}, cast(_cdc_old_key.`{{ name }}` as string){% endfor %}){%- endset -%}
{%- set new -%}concat_ws(', '{% for name in o.unique_key %}, cast(`{{ name }}` as string){% endfor %}){%- endset -%}
with moves as (
    select *
    from (
{{ delta_cdc.cdc_moves(o, storage, delta_cdc._cdc_no_events(o, storage)) }}
    ) as found
)

select {{ delta_cdc._cdc_json("array('from', " ~ delta_cdc._cdc_sequence_text(o) ~ ', ' ~ old ~ ')') }} as said
from moves
where {{ delta_cdc.cdc_key_condition(o, key) }}
union all
select {{ delta_cdc._cdc_json("array('to', " ~ gone ~ ', ' ~ new ~ ')') }} as said
from moves
where {{ delta_cdc.cdc_key_condition(o, key, '_cdc_old_key') }}
{%- endmacro %}


{#-- A stage without events. --#}
{% macro _cdc_no_events(o, storage) -%}
(select {{ delta_cdc._cdc_columns(o.stored) }}, _cdc_deleted, _cdc_truncate from {{ storage }} where false)
{%- endmacro %}


{#-- A sequence as one text. --#}
{% macro _cdc_sequence_text(o) -%}
    concat_ws(', '{% for name in o.sequence %}, cast(`{{ name }}` as string){% endfor %})
{%- endmacro %}


{#-- A column as text, or NULL where there is none. --#}
{% macro _cdc_text_of(name) -%}
    {{ 'cast(`' ~ name ~ '` as string)' if name else 'cast(null as string)' }}
{%- endmacro %}
