{#-- scd1: the last event of a key is its state. --#}
{% macro _cdc_last_states(o) -%}
placed_in_time as (
    select
        *,
        not _cdc_deleted and not _cdc_truncate and not _cdc_overridden
            and lead(_cdc_segment) over (
                partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic
            ) is null as _cdc_now_visible
    from filled
)
{%- endmacro %}


{#-- scd2: clamp, collapse, then runs of events that are equal on the tracked columns. --#}
{% macro _cdc_runs(o) -%}
{%- set in_order -%}partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic{%- endset -%}
{%- set shown_in_order -%}partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden, _cdc_shown order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic{%- endset -%}
{%- set tracked -%}struct(_cdc_deleted as _cdc_deleted{% for name in o.tracked %}, {{ delta_cdc._cdc_value(o, name) }} as `{{ name }}`{% endfor %}){%- endset -%}
clamped as (
    select
        *,
        max({{ delta_cdc._cdc_time(o) }}) over ({{ in_order }} rows between unbounded preceding and current row) as _cdc_effective_at
    from filled
),

collapsed as (
    select
        *,
        not _cdc_truncate and not _cdc_overridden
            and not (lead(_cdc_effective_at) over ({{ in_order }}) <=> _cdc_effective_at) as _cdc_shown
    from clamped
),

headed as (
    select
        *,
        _cdc_shown and not _cdc_deleted and not (lag({{ tracked }}) over ({{ shown_in_order }}) <=> {{ tracked }}) as _cdc_head
    from collapsed
),

runs as (
    select
        *,
        _cdc_shown and not _cdc_deleted
            and coalesce(lead(_cdc_head or _cdc_deleted) over ({{ shown_in_order }}), true) as _cdc_now_visible,
        max(case when _cdc_head then _cdc_effective_at end) over (
            {{ shown_in_order }} rows between unbounded preceding and current row
        ) as _cdc_run_from,
        lead(_cdc_effective_at) over ({{ shown_in_order }}) as _cdc_run_to
    from headed
),

placed_in_time as (
    select
        *,
        case when _cdc_now_visible then cast(_cdc_run_from as timestamp) end as _cdc_now_from,
        case when _cdc_now_visible then cast(_cdc_run_to as timestamp) end as _cdc_now_to
    from runs
)
{%- endmacro %}
