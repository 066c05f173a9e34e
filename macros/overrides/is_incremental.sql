{#-- dbt's own looks at `this`, which is a view for a CDC model: look at its storage table instead. --#}
{% macro is_incremental() -%}
    {%- if execute and model is defined and config.get('incremental_strategy') in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ return(load_relation(_cdc_sibling(this, 'cdc')) is not none and not should_full_refresh()) }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{%- endmacro %}
