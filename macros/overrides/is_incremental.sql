{#-- dbt's own looks at `this`, which is a view for a CDC model: look at its storage table instead. --#}
{% macro is_incremental() -%}
    {%- if execute and model is defined and config.get('incremental_strategy') in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ return(not should_full_refresh() and stored_as(_cdc_sibling(this, 'cdc')) is not none) }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{%- endmacro %}
