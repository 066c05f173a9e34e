{#-- dbt's own looks at `this`, which is a view for a CDC model: look at its storage table instead. And it believes the cache,
     which has nothing for a schema whose listing failed: there the metastore is asked. --#}
{% macro is_incremental() -%}
    {%- if not execute or model is not defined or model.resource_type != 'model' -%}{{ return(dbt.is_incremental()) }}{%- endif -%}
    {%- if context.get('merge_rendering') -%}{{ return(context['merge_rendering'] == 'incremental') }}{%- endif -%}
    {%- if config.get('incremental_strategy') in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ return(delta_cdc.standing_relation(delta_cdc._cdc_sibling(this, 'cdc')) is not none and not should_full_refresh()) }}
    {%- endif -%}
    {%- if model.config.materialized == 'incremental' -%}{%- do delta_cdc.standing_relation(this) -%}{%- endif -%}
    {{ return(dbt.is_incremental()) }}
{%- endmacro %}
