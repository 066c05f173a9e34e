{#-- The two that dbt takes from a root project alone, and `clone`: packages/delta_cdc has them (its README says why). --#}
{% materialization incremental, adapter='spark', supported_languages=['sql', 'python'] -%}
    {{ return(delta_cdc.materialization_incremental_spark()) }}
{%- endmaterialization %}

{% materialization clone, adapter='spark' -%}
    {{ return(delta_cdc.materialization_clone_spark()) }}
{%- endmaterialization %}

{% macro is_incremental() -%}
    {{ return(delta_cdc.is_incremental()) }}
{%- endmacro %}
