{#-- dbt's own check of an enforced contract, on the columns that the model's view will show, before anything is written. --#}
{% macro cdc_check_contract(o, model_sql) -%}
    {%- if config.get('contract') and config.get('contract').enforced -%}
        {%- do get_assert_columns_equivalent(delta_cdc.cdc_contract_query(o, model_sql)) -%}
    {%- endif -%}
{%- endmacro %}


{#-- A query with the view's columns and types, of the model's SELECT. --#}
{% macro cdc_contract_query(o, model_sql) -%}
select
    {%- for name in o.stored if name not in [o.unsent, o.watermark] %}
    `{{ name }}`,
    {%- endfor %}
    {%- if o.scd2 %}
    cast(null as timestamp) as valid_from,
    cast(null as timestamp) as valid_to,
    false as is_current,
    {%- endif %}
    cast(null as {{ o.batch_type }}) as _batch_id
from (
{{ model_sql }}
) as _cdc_source
{%- endmacro %}
