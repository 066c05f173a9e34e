{#-- Schemas are the layers' own names; LAKEHOUSE_SCHEMA_PREFIX keeps developers and CI runs apart. --#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set layer = custom_schema_name or 'ops' -%}
    {%- set prefix = env_var('LAKEHOUSE_SCHEMA_PREFIX', '') -%}
    {{ prefix ~ '_' ~ layer if prefix else layer }}
{%- endmacro %}
