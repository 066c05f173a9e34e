{#-- Effective values: what was sent, else the last value sent before it in the segment (and, after a key change, in the
     segment of the old key that it continues). --#}
{% macro _cdc_filled(o, chains) -%}
{%- if not o.fill -%}
filled as (
    select * from segmented
)
{%- else -%}
{%- if chains -%}
chained as (
    select
        segmented.*,
        coalesce(chains._cdc_root, struct({{ delta_cdc._cdc_columns(o.unique_key, 'segmented') }}, segmented._cdc_segment as _cdc_segment)) as _cdc_chain,
        coalesce(chains._cdc_depth, 0) as _cdc_depth
    from segmented
    left join {{ chains }} as chains
        on {{ delta_cdc._cdc_equal(o.unique_key + ['_cdc_segment'], 'segmented', 'chains') }}
),

{% endif -%}
filled as (
    select
        *
        {%- for name in o.fill %},
        last_value(case when {{ delta_cdc._cdc_sent(o, name) }} then struct(`{{ name }}` as value) end, true) over in_segment.value as `_cdc_value_{{ name }}`
        {%- endfor %}
    from {{ 'chained' if chains else 'segmented' }}
    window in_segment as (
        {%- if chains %}
        partition by _cdc_chain, _cdc_overridden order by _cdc_depth, {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic
        {%- else %}
        partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden, _cdc_segment order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic
        {%- endif %}
        rows between unbounded preceding and current row
    )
)
{%- endif -%}
{%- endmacro %}


{#-- Whether an event carried a value for the column. --#}
{% macro _cdc_sent(o, name) -%}
    not _cdc_deleted
    {%- if o.unsent %} and not coalesce(array_contains(`{{ o.unsent }}`, '{{ delta_cdc._cdc_escape(name) }}'), false){% endif -%}
    {%- if name in o.ignore_null %} and `{{ name }}` is not null{% endif -%}
{%- endmacro %}


{#-- Effective values of a shown row, NULL where they are the raw ones (nearly always). --#}
{% macro _cdc_filled_struct(o, visible) -%}
{%- if not o.fill -%}null{%- else -%}
case when {{ visible }} and not (
    {%- for name in o.fill -%}
    `_cdc_value_{{ name }}` <=> `{{ name }}`{{ ' and ' if not loop.last }}
    {%- endfor -%}
) then named_struct({% for name in o.fill %}'{{ delta_cdc._cdc_escape(name) }}', `_cdc_value_{{ name }}`{{ ', ' if not loop.last }}{% endfor %}) end
{%- endif -%}
{%- endmacro %}


{#-- The stored values in today's columns and order: a struct is united by position. --#}
{% macro _cdc_stored_filled_struct(o) -%}
case when _cdc_filled is not null then named_struct(
    {%- for name in o.fill %}'{{ delta_cdc._cdc_escape(name) }}', _cdc_filled.`{{ name }}`{{ ', ' if not loop.last }}{% endfor -%}
) end
{%- endmacro %}


{#-- Type of the struct of effective values. --#}
{% macro _cdc_filled_type(o) -%}
struct<{% for name in o.fill %}`{{ name }}`:{{ o.types[name] }}{{ ', ' if not loop.last }}{% endfor %}>
{%- endmacro %}
