{#-- Counts of the timeline; ties stop the model here, before anything is written. --#}
{% macro _cdc_count_diff(o, diff, tied_columns) -%}
    {%- set row = run_query(
        "select coalesce(sum(_cdc_new_copies), 0) - count_if(_cdc_insert) as duplicates, count_if(_cdc_insert) as inserted,"
        ~ " count_if(_cdc_update) as updated, count_if(_cdc_tied and _cdc_new_copies > 0) as ties, count_if(_cdc_clamped) as clamped,"
        ~ " count_if(_cdc_late) as late, count_if(_cdc_insert and _cdc_deleted) as deletes, count_if(_cdc_opens) as opened,"
        ~ " count_if(_cdc_closes) as closed, count_if(_cdc_update and not _cdc_opens and not _cdc_closes) as moved,"
        ~ (" concat('=', cast(max(case when _cdc_insert then `" ~ o.watermark ~ "` end) as string))" if o.watermark else " cast(null as string)")
        ~ " as newest, concat('=', cast(slice(collect_list(case when _cdc_tied and _cdc_new_copies > 0 then struct("
        ~ delta_cdc._cdc_shown(o.unique_key + o.sequence) ~ ") end), 1, 3) as string)) as examples from " ~ diff).rows[0] -%}
    {%- set counts = dict(row.dict()) -%}
    {%- do counts.update({'newest': delta_cdc._cdc_text(row['newest'])}) -%}
    {%- if row['ties'] > 0 and o.on_tie == 'warn' -%}
        {%- do exceptions.warn(this ~ ': ' ~ row['ties'] ~ ' tie(s) resolved by on_tie=warn. The first: ' ~ delta_cdc._cdc_text(row['examples'])) -%}
    {%- elif row['ties'] > 0 -%}
        {%- set differ = delta_cdc._cdc_text(run_query(tied_columns).rows[0][0]) or 'what deletes or truncates' -%}
        {%- set told -%}
{{ this }}: {{ row['ties'] }} tie(s): events with the same key and sequence, and different payloads. They differ in: {{ differ }}. The first: {{ delta_cdc._cdc_text(row['examples']) }}.
Expected one payload per key and sequence. Nothing was written. Fix, one of:
  - if such a column does not describe the change (a time of reading, say), leave it out of the SELECT or give it a name that begins with `_`.
  - exclude the wrong event in the model's where clause; if the wrong one is stored already, also
    `delete from {{ delta_cdc._cdc_sibling(this, 'cdc') }} where <key and sequence>`; the next run re-derives the key. No full refresh is needed.
  - config(on_tie='warn'): a delete wins, else a stable hash of the payload, the same in every order and batching.
        {%- endset -%}
        {%- do exceptions.raise_compiler_error(told) -%}
    {%- endif -%}
    {{ return(counts) }}
{%- endmacro %}


{#-- Which columns the tied events differ in, asked only when there are ties. --#}
{% macro cdc_tied_columns(o, state, stage, diff) -%}
with events as (
    {%- for relation in [state, stage] if relation %}
    select {{ delta_cdc._cdc_columns(delta_cdc._cdc_distinct(o.unique_key + o.sequence + o.payload)) }} from {{ relation }}
    {{- ' union all' if not loop.last }}
    {%- endfor %}
),

tied as (
    select distinct {{ delta_cdc._cdc_columns(o.unique_key + o.sequence) }} from {{ diff }} where _cdc_tied and _cdc_new_copies > 0
),

differing as (
    select
        {%- for name in o.payload %}
        not (min(struct(events.`{{ name }}`)) <=> max(struct(events.`{{ name }}`))) as `{{ name }}`,
        {%- endfor %}
        count(*) as copies
    from events
    inner join tied on {{ delta_cdc._cdc_equal(o.unique_key + o.sequence, 'events', 'tied') }}
    group by {{ delta_cdc._cdc_columns(o.unique_key + o.sequence, 'events') }}
)

select concat('=', nullif(concat_ws(', '
    {%- for name in o.payload %}, max(case when `{{ name }}` then '{{ delta_cdc._cdc_escape(name) }}' end){% endfor -%}
), ''))
from differing
{%- endmacro %}
