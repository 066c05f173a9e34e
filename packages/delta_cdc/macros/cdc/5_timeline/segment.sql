{#-- CTEs from the raw events to `segmented`: one row per distinct event, in order, with its segment. --#}
{% macro cdc_segmented(run, plan) -%}
{{ delta_cdc._cdc_events(run, plan.state) }},

{{ delta_cdc._cdc_deduplicated(run) }},

{{ delta_cdc._cdc_placed(run.o, plan.truncations) }},

{{ delta_cdc._cdc_segments(run.o, plan.moves) }}
{%- endmacro %}


{#-- A delete begins a new segment; so does, of a key that has changed, the event that takes the old key's values. --#}
{% macro _cdc_segments(o, moves) -%}
{%- set keys = delta_cdc._cdc_columns(o.unique_key) -%}
{%- set sequence = delta_cdc._cdc_columns(o.sequence) -%}
{% if moves -%}
moved as (
    select placed.*, moves._cdc_move is not null as _cdc_moved
    from placed
    left join {{ moves }} as moves
        on {{ delta_cdc._cdc_equal(o.unique_key, 'placed', 'moves') }}
        and {{ delta_cdc._cdc_equal(o.sequence, 'placed', 'moves') }}
        and not placed._cdc_synthetic
),

{% endif -%}
segmented as (
    select
        *,
        count_if(_cdc_deleted {{ 'or _cdc_moved' if moves }}) over (
            partition by {{ keys }}, _cdc_overridden order by {{ sequence }}, _cdc_synthetic
            rows between unbounded preceding and current row
        ) as _cdc_segment
    from {{ 'moved' if moves else 'placed' }}
)
{%- endmacro %}
