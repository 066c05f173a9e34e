{#-- Puts a synthetic delete at every truncate that has an earlier event of the key. An event at a truncate's own sequence
     is a tie; with `on_tie: warn` the truncate wins and the event is overridden (kept, never shown). --#}
{% macro _cdc_placed(o, truncations) -%}
{%- if not truncations -%}
placed as (
    select
        *,
        false as _cdc_synthetic,
        false as _cdc_overridden
    from distinct_events
)
{%- else -%}
{%- set sequence = delta_cdc._cdc_columns(o.sequence) -%}
truncations as (
    select collect_list(struct({{ delta_cdc._cdc_columns(o.sequence) }}{% if o.scd2 %}, `_cdc_truncated_at`{% endif %})) as all_of_them
    from {{ truncations }}
),

exploded as (
    select
        distinct_events.*,
        truncate_at
    from (
        select *, row_number() over (partition by {{ delta_cdc._cdc_columns(o.unique_key) }} order by {{ sequence }}) as _cdc_place
        from distinct_events
    ) as distinct_events
    cross join truncations
    lateral view explode(concat(
        array(null),
        filter(all_of_them, t -> _cdc_place = 1 and not _cdc_truncate
            and struct({{ delta_cdc._cdc_columns(o.sequence, 't') }}) > struct({{ sequence }}))
    )) as truncate_at
),

placed as (
    select
        {% for name in o.stored -%}
        {%- if name in o.sequence -%}
        coalesce(truncate_at.`{{ name }}`, `{{ name }}`) as `{{ name }}`
        {%- elif name == o.effective_at and o.scd2 and not o.earliest -%}
        coalesce(truncate_at._cdc_truncated_at, `{{ name }}`) as `{{ name }}`
        {%- else -%}
        `{{ name }}`
        {%- endif -%},
        {% endfor -%}
        _cdc_deleted or truncate_at is not null as _cdc_deleted,
        _cdc_truncate, _cdc_schema, _cdc_visible, _cdc_valid_from, _cdc_valid_to,
        {{ '_cdc_filled,' if o.fill }}
        {{ 'coalesce(truncate_at._cdc_truncated_at, _cdc_earliest_at) as _cdc_earliest_at,' if o.scd2 and o.earliest else '_cdc_earliest_at,' if o.earliest }}
        _cdc_stored, _cdc_new_copies, _cdc_was_stored, _cdc_key_batch, _cdc_last_stored,
        truncate_at is not null as _cdc_synthetic,
        truncate_at is null and not _cdc_truncate and {{ delta_cdc._cdc_at_truncate(o) }} as _cdc_overridden,
        _cdc_tied or (truncate_at is null and not _cdc_truncate and not _cdc_deleted and {{ delta_cdc._cdc_at_truncate(o) }}) as _cdc_tied
    from exploded
    cross join truncations
)
{%- endif -%}
{%- endmacro %}


{#-- Condition: the event lies at a truncate's own sequence. --#}
{% macro _cdc_at_truncate(o) -%}
exists(all_of_them, t -> struct({{ delta_cdc._cdc_columns(o.sequence, 't') }}) = struct({{ delta_cdc._cdc_columns(o.sequence) }}))
{%- endmacro %}
