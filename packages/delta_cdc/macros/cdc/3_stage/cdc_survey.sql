{#-- One row about the staged events: what cdc_stage_profile says, the keys' ranges, whether they are in order (`reach`: how far
     what is applied reaches, or none; of a first load `is_first`), and the counts of the short way. --#}
{% macro cdc_survey(o, stage, reach, is_first=false) -%}
{%- set key = none if is_first else delta_cdc._cdc_range_key(o) -%}
with {{ delta_cdc._cdc_surveyed_events(o, stage) }},

{% if key -%}
{{ delta_cdc.cdc_bucketed(key, o.types[key], 'events') }},

{% endif -%}
{{ delta_cdc._cdc_surveyed_ranges(o, key) }}

select
    coalesce(sum(_cdc_events), 0) as rows_read,
    coalesce(sum(_cdc_opened), 0) as opened,
    coalesce(sum(_cdc_width) > 16 * sum(_cdc_events), true) as is_scattered,
    {%- for name in ['truncates', 'deletes', 'clamped'] + (delta_cdc._cdc_bad(o) | list) %}
    coalesce(sum(_cdc_{{ name }}), 0) as {{ name }},
    {%- endfor %}
    concat('=', cast(min(_cdc_first_batch) as string)) as first_batch,
    concat('=', cast(max(_cdc_last_batch) as string)) as last_batch,
    {{ delta_cdc._cdc_in_order(o, reach, is_first) }} as in_order,
    {{ delta_cdc._cdc_reach(o, 'max(_cdc_last)', 'max(_cdc_last_at)', reach) }} as reach,
    {{ delta_cdc._cdc_json('collect_list(case when _cdc_range.lowest is not null then _cdc_range end)') }} as ranges
from ranges
{%- endmacro %}


{#-- A CTE of the survey: of each event whether it repeats another's key and sequence, is the last of its key, is clamped. --#}
{% macro _cdc_surveyed_events(o, stage) -%}
{%- set keys, sequence = delta_cdc._cdc_columns(o.unique_key), delta_cdc._cdc_columns(o.sequence) -%}
events as (
    select
        *,
        coalesce(lag(struct({{ sequence }})) over in_sequence = struct({{ sequence }}), false) as _cdc_repeats,
        lead(struct({{ sequence }})) over in_sequence is null as _cdc_is_last,
        {{ 'coalesce(max(`' ~ o.effective_at ~ '`) over so_far > `' ~ o.effective_at ~ '`, false)' if o.scd2 else 'false' }} as _cdc_clamped
    from {{ stage }}
    window
        in_sequence as (partition by {{ keys }} order by {{ sequence }}),
        so_far as (partition by {{ keys }} order by {{ sequence }} rows between unbounded preceding and 1 preceding)
)
{%- endmacro %}


{#-- … and what there is of each range of keys; of all together where none may limit by. --#}
{% macro _cdc_surveyed_ranges(o, key) -%}
ranges as (
    select
        {{ delta_cdc._cdc_range(key) if key else 'cast(null as struct<lowest: string, highest: string>)' }} as _cdc_range,
        count(*) as _cdc_events,
        {{ 'max(_cdc_position) - min(_cdc_position)' if key else 'cast(null as double)' }} as _cdc_width,
        count_if(_cdc_is_last and not _cdc_deleted) as _cdc_opened,
        count_if(_cdc_truncate) as _cdc_truncates,
        count_if(_cdc_deleted) as _cdc_deletes,
        count_if({{ delta_cdc._cdc_may_be_key_change(o) }}) as _cdc_moves,
        count_if(_cdc_clamped) as _cdc_clamped,
        {%- for name, condition in delta_cdc._cdc_bad(o).items() %}
        count_if({{ condition }}) as _cdc_{{ name }},
        {%- endfor %}
        max(_cdc_repeats) as _cdc_repeats,
        min(`{{ o.watermark }}`) as _cdc_first_batch,
        max(`{{ o.watermark }}`) as _cdc_last_batch,
        {%- if o.scd2 %}
        min(`{{ o.effective_at }}`) as _cdc_first_at,
        max(`{{ o.effective_at }}`) as _cdc_last_at,
        {%- endif %}
        min(struct({{ delta_cdc._cdc_columns(o.sequence) }})) as _cdc_first,
        max(struct({{ delta_cdc._cdc_columns(o.sequence) }})) as _cdc_last
    from {{ 'bucketed group by _cdc_bucket' if key else 'events' }}
)
{%- endmacro %}


{#-- With `moved_from`, whether an event may give values to another key or take some: a delete, or a value that was not sent. --#}
{% macro _cdc_may_be_key_change(o) -%}
    {%- if not (o.moved_from and o.fill) -%}false
    {%- else -%}{% for name in o.fill %}not ({{ delta_cdc._cdc_sent(o, name) }}){{ ' or ' if not loop.last }}{% endfor %}
    {%- endif -%}
{%- endmacro %}


{#-- The proof, over the groups of the survey. Strictly after: an event at the time of an applied one would hide it. Truncates
     close every key, and key changes reach other keys. A first load has nothing to come after. --#}
{% macro _cdc_in_order(o, reach, is_first) -%}
{%- if not (reach or is_first) -%}false{%- else -%}
coalesce(
        not max(_cdc_repeats)
        {%- if not is_first %}
        and min(_cdc_first) > {{ delta_cdc._cdc_reached_sequence(o, reach) }}
        {%- if o.scd2 %}
        and min(_cdc_first_at) > {{ delta_cdc._cdc_reached_time(o, reach) }}
        {%- endif %}
        {%- endif %}
        and sum(_cdc_truncates + _cdc_moves{% for name in delta_cdc._cdc_bad(o) %} + _cdc_{{ name }}{% endfor %}) = 0,
        false)
{%- endif -%}
{%- endmacro %}
