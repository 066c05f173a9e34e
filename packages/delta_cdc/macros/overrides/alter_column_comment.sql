{#-- Writes only the column comments that changed. dbt-spark writes every one on every run, a Delta commit each (dbt-spark
     1.11, adapters.sql, spark__alter_column_comment); delete this override when it compares first. --#}
{% macro spark__alter_column_comment(relation, column_dict) -%}
    {%- set given = {} -%}
    {%- for row in run_query('describe table ' ~ relation).rows if row[0] and not row[0].startswith('#') -%}
        {%- do given.update({row[0]: row[2] or ''}) -%}
    {%- endfor -%}
    {%- set changed = [] -%}
    {%- for name, column in column_dict.items() if column.description and given.get(name) != column.description -%}
        {%- do changed.append(name) -%}
    {%- endfor -%}
    {%- if changed -%}
        {%- do run_query(delta_cdc.alter_column_comments(relation, changed, column_dict)) -%}
    {%- endif -%}
{%- endmacro %}


{% macro alter_column_comments(relation, names, column_dict) -%}
alter table {{ relation }} alter column
    {%- for name in names %}
    `{{ name }}` comment '{{ delta_cdc._cdc_escape(column_dict[name].description) }}'{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}
