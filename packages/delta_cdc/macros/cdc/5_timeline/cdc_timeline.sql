{#-- The timeline: from stored and new events of the touched keys to the derived columns of every one of them.
     Rule 3 of docs/cdc.md gives the order of the steps; each is one CTE here.

       events → compared → counted → distinct_events → placed (truncates become deletes of every key with an earlier event)
       → segmented (a delete starts a new segment; values are never carried across) → filled → clamped → collapsed → runs

     All windows are partitioned by the key or by more, and `events` is distributed by the key: one shuffle in all.
     `run` is that of cdc_apply, `plan` that of cdc_plan. --#}
{% macro cdc_timeline(run, plan) -%}
{%- set o = run.o -%}
with
{{ delta_cdc.cdc_segmented(run, plan) }},

{{ delta_cdc._cdc_filled(o, plan.chains) }},

{{ delta_cdc._cdc_runs(o) if o.scd2 else delta_cdc._cdc_last_states(o) }},

{{ delta_cdc._cdc_compared_to_stored(o) }}

select
    {% for name in o.stored -%}
    {{ delta_cdc._cdc_time(o) ~ ' as ' if name == o.effective_at and o.earliest }}`{{ name }}`,
    {% endfor -%}
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    {% if o.scd2 -%}
    _cdc_now_from as _cdc_valid_from,
    _cdc_now_to as _cdc_valid_to,
    {% else -%}
    cast(null as timestamp) as _cdc_valid_from,
    cast(null as timestamp) as _cdc_valid_to,
    {% endif -%}
    coalesce(_cdc_key_batch, {{ run.marks.high_or_run }}) as _cdc_batch_id,
    {% if o.fill -%}
    _cdc_now_filled as _cdc_filled,
    {% endif -%}
    _cdc_schema,
    _cdc_insert,
    _cdc_update,
    _cdc_tied,
    _cdc_new_copies,
    {{ delta_cdc._cdc_told_of_rows(o) }}
from compared_to_stored
where _cdc_insert or _cdc_update or _cdc_new_copies > 0
{%- endmacro %}


{#-- CTEs that say of each event whether its row is new, or has derived columns other than the stored ones. --#}
{% macro _cdc_compared_to_stored(o) -%}
derived as (
    select
        *,
        {{ delta_cdc._cdc_filled_struct(o, '_cdc_now_visible') }} as _cdc_now_filled
    from placed_in_time
),

compared_to_stored as (
    select
        *,
        not _cdc_was_stored as _cdc_insert,
        _cdc_was_stored and (
            not _cdc_stored
            {%- if o.earliest %}
            or not (`{{ o.effective_at }}` <=> {{ delta_cdc._cdc_time(o) }})
            {%- endif %}
            or not (_cdc_now_visible <=> _cdc_visible)
            {%- if o.scd2 %}
            or not (_cdc_now_from <=> _cdc_valid_from)
            or not (_cdc_now_to <=> _cdc_valid_to)
            {%- endif %}
            {%- if o.fill %}
            or not (_cdc_now_filled <=> _cdc_filled)
            {%- endif %}
        ) as _cdc_update
    from derived
    where not _cdc_synthetic
)
{%- endmacro %}


{#-- Columns that only the counts on the console line are made of. --#}
{% macro _cdc_told_of_rows(o) -%}
    _cdc_insert and struct({{ delta_cdc._cdc_columns(o.sequence) }}) < _cdc_last_stored as _cdc_late,
    {% if o.scd2 -%}
    _cdc_insert and {{ delta_cdc._cdc_time(o) }} < _cdc_effective_at as _cdc_clamped,
    _cdc_now_visible and _cdc_now_to is null and not coalesce(_cdc_visible and _cdc_valid_to is null, false) as _cdc_opens,
    coalesce(_cdc_visible and _cdc_valid_to is null, false) and not (_cdc_now_visible and _cdc_now_to is null) as _cdc_closes
    {%- else -%}
    false as _cdc_clamped,
    _cdc_now_visible and not coalesce(_cdc_visible, false) as _cdc_opens,
    coalesce(_cdc_visible, false) and not _cdc_now_visible as _cdc_closes
    {%- endif %}
{%- endmacro %}


{#-- The column of an event's time: of equal events at one key and sequence the earliest, whichever of them stays. --#}
{% macro _cdc_time(o) -%}
    {{ '_cdc_earliest_at' if o.earliest else '`' ~ o.effective_at ~ '`' }}
{%- endmacro %}


{#-- The column that holds a column's effective value inside the timeline. --#}
{% macro _cdc_value(o, name) -%}
    {{ '`_cdc_value_' ~ name ~ '`' if name in o.fill else '`' ~ name ~ '`' }}
{%- endmacro %}
