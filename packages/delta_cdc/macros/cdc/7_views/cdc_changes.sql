{#-- The `__changes` view of a CDC model: the keys touched by each batch, vanished ones included. --#}
{% macro cdc_changes(relation) -%}
    {%- if execute -%}
        {%- set node = delta_cdc._cdc_node(relation) -%}
        {%- if not node or node.config.incremental_strategy not in ['cdc_scd1', 'cdc_scd2'] -%}
            {%- do exceptions.raise_compiler_error(
                "cdc_changes: expected a model with incremental_strategy cdc_scd1 or cdc_scd2, got " ~ relation
                ~ ". Fix: pass ref() of the CDC model itself, not of a view on it.") -%}
        {%- endif -%}
    {%- endif -%}
    {{ return(delta_cdc._cdc_sibling(relation, 'changes')) }}
{%- endmacro %}
