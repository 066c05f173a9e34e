{#-- The new events: the model's SELECT above the highest arrival watermark that was applied, a literal or none. --#}
{% macro cdc_stage(o, model_sql, low) -%}
select
    {{ _cdc_columns(o.stored) }},
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


{#-- The staged events that this run applies. A cached query is not frozen: after an append to bronze by the same Spark it is
     computed anew, with batches that the run's counts have not seen. --#}
{% macro cdc_bounded_stage(o, stage, staged, high) -%}
create temporary view {{ stage }} as
select * from {{ staged }}{% if o.watermark %} where `{{ o.watermark }}` <= {{ high if high is not none else 'null' }}{% endif %}
{%- endmacro %}


{#-- One row about the staged events: how far they reach, and what must stop the model before anything is written. --#}
{% macro cdc_stage_profile(o, stage) -%}
{%- set null_key -%}(not _cdc_truncate and ({% for key in o.unique_key %}`{{ key }}` is null{{ ' or ' if not loop.last }}{% endfor %})){%- endset -%}
{%- set null_sequence -%}({% for column in o.sequence %}`{{ column }}` is null{{ ' or ' if not loop.last }}{% endfor %}){%- endset -%}
select
    count(*) as rows_read,
    count_if(_cdc_truncate) as truncates,
    count_if({{ null_key }}) as null_keys,
    count_if({{ null_sequence }}) as null_sequences,
    count_if({{ '`' ~ o.effective_at ~ '` is null' if o.scd2 else 'false' }}) as null_effective,
    count_if({{ '`' ~ o.effective_at ~ '` > _cdc_arrived_at + interval 1 day' if o.scd2 else 'false' }}) as in_future,
    count_if({{ '`' ~ o.watermark ~ '` is null' if o.watermark else 'false' }}) as null_watermarks,
    {% if o.watermark %}concat('=', cast(min(`{{ o.watermark }}`) as string)){% else %}cast(null as string){% endif %} as first_batch,
    {% if o.watermark %}concat('=', cast(max(`{{ o.watermark }}`) as string)){% else %}cast(null as string){% endif %} as last_batch,
    concat('=', cast(slice(collect_list(case when {{ null_sequence }} or {{ null_key }}
        {%- if o.scd2 %} or `{{ o.effective_at }}` is null or `{{ o.effective_at }}` > _cdc_arrived_at + interval 1 day{% endif %}
        then struct({{ _cdc_columns(o.unique_key + o.sequence) }}) end), 1, 3) as string)) as examples
from {{ stage }}
{%- endmacro %}
