{#-- dbt-spark's, but the first load of an incremental model or a snapshot never replaces: where a table stands under its name
     after all, `create table` fails, and its rows stay. Only --full-refresh replaces, and a snapshot never. Delete this
     override when dbt-spark does not take a failed listing for an empty schema (dbt-labs/dbt-spark#950). --#}
{% macro spark__create_table_as(temporary, relation, compiled_code, language='sql') -%}
    {%- set statement = dbt.spark__create_table_as(temporary, relation, compiled_code, language) -%}
    {%- set kind = model.config.materialized -%}
    {%- if not temporary and (kind == 'snapshot' or (kind == 'incremental' and not should_full_refresh())) -%}
        {{ return(statement | replace('create or replace table ' ~ relation, 'create table ' ~ relation, 1)) }}
    {%- endif -%}
    {{ return(statement) }}
{%- endmacro %}
