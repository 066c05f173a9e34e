{#-- The new events: the model's SELECT above the highest arrival watermark that was applied, a literal or none.
     Few of them are in one partition, so that no window over them is preceded by a shuffle. --#}
{% macro cdc_stage(o, model_sql, low, is_small=false) -%}
select{{ ' /*+ coalesce(1) */' if is_small }}
    {{ delta_cdc._cdc_columns(o.stored) }},
    coalesce({{ o.delete_when or 'false' }}, false) as _cdc_deleted,
    coalesce({{ o.truncate_when or 'false' }}, false) as _cdc_truncate,
    {{ '`_arrived_at`' if '_arrived_at' in o.names else 'current_timestamp()' }} as _cdc_arrived_at
from (
{{ model_sql }}
) as _cdc_source
{%- if o.watermark and low is not none %}
where `{{ o.watermark }}` > {{ low }} or `{{ o.watermark }}` is null
{%- endif %}
{%- endmacro %}


{#-- One row about a model whose last commit is a noted one: how many new events there are, and how many of the batch that was
     applied last. Where there are some of these, the source is not behind the mark. --#}
{% macro cdc_news(o, model_sql, low) -%}
{%- set is_new -%}`{{ o.watermark }}` > {{ low }} or `{{ o.watermark }}` is null{%- endset -%}
select
    count_if({{ is_new }}) as rows_read,
    count_if(`{{ o.watermark }}` = {{ low }}) as rows_at_mark
from (
{{ model_sql }}
) as _cdc_source
where `{{ o.watermark }}` >= {{ low }} or `{{ o.watermark }}` is null
{%- endmacro %}


{#-- The staged events that this run applies. A cached query is not frozen: after an append to bronze by the same Spark it is
     computed anew, with batches that the run's counts have not seen. --#}
{% macro cdc_bounded_stage(o, staged, high) -%}
(select * from {{ staged }}{% if o.watermark %} where `{{ o.watermark }}` <= {{ high if high is not none else 'null' }}{% endif %})
{%- endmacro %}


{#-- What must stop a model before anything is written, as conditions on a staged event. --#}
{% macro _cdc_bad(o) -%}
    {{ return({
        'null_keys': 'not _cdc_truncate and (' ~ delta_cdc._cdc_any_null(o.unique_key) ~ ')',
        'null_sequences': delta_cdc._cdc_any_null(o.sequence),
        'null_effective': delta_cdc._cdc_any_null([o.effective_at]) if o.scd2 else 'false',
        'in_future': '`' ~ o.effective_at ~ '` > _cdc_arrived_at + interval 1 day' if o.scd2 else 'false',
        'null_watermarks': delta_cdc._cdc_any_null([o.watermark]) if o.watermark else 'false',
    }) }}
{%- endmacro %}


{#-- Condition: one of these columns is NULL. --#}
{% macro _cdc_any_null(names) -%}
    {%- for name in names -%}`{{ name }}` is null{{ ' or ' if not loop.last }}{%- endfor -%}
{%- endmacro %}


{#-- One row about the staged events: how far they reach, and counts of bad ones. --#}
{% macro cdc_stage_profile(o, stage) -%}
select
    count(*) as rows_read,
    count_if(_cdc_truncate) as truncates,
    {%- for name, condition in delta_cdc._cdc_bad(o).items() %}
    count_if({{ condition }}) as {{ name }},
    {%- endfor %}
    {% if o.watermark %}concat('=', cast(min(`{{ o.watermark }}`) as string)){% else %}cast(null as string){% endif %} as first_batch,
    {% if o.watermark %}concat('=', cast(max(`{{ o.watermark }}`) as string)){% else %}cast(null as string){% endif %} as last_batch,
    {{ delta_cdc._cdc_reach_of_rows(o) }} as reach
from {{ stage }}
{%- endmacro %}


{#-- The first three bad events; asked only where there are some. --#}
{% macro cdc_bad_events(o, stage) -%}
{%- set bad = delta_cdc._cdc_bad(o) -%}
select concat('=', cast(slice(collect_list(struct({{ delta_cdc._cdc_shown(o.unique_key + o.sequence) }})), 1, 3) as string))
from {{ stage }}
where {% for name in ['null_keys', 'null_sequences', 'null_effective', 'in_future'] %}({{ bad[name] }}){{ ' or ' if not loop.last }}{% endfor %}
{%- endmacro %}
