{#-- Writes only the column comments that changed, in one statement, after the table is asked once. dbt-spark describes it and
     writes every comment on every run, a Delta commit each (dbt-spark 1.11, adapters.sql, spark__persist_docs); delete this
     override when it compares first. --#}
{% macro spark__persist_docs(relation, model, for_relation, for_columns) -%}
    {%- if for_columns and config.persist_column_docs() and model.columns -%}
        {%- set given = {} -%}
        {%- for row in run_query('describe table ' ~ relation).rows if row[0] and not row[0].startswith('#') and row[0] not in given -%}
            {%- do given.update({row[0]: row[2] or ''}) -%}
        {%- endfor -%}
        {%- set columns, changed = validate_doc_columns(relation, model.columns, given.keys() | list), [] -%}
        {%- for name, column in columns.items() if column.description and given.get(name) != column.description -%}
            {%- do changed.append(name) -%}
        {%- endfor -%}
        {%- if changed -%}
            {%- do run_query(delta_cdc.alter_column_comments(relation, changed, columns)) -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{% macro alter_column_comments(relation, names, column_dict) -%}
alter table {{ relation }} alter column
    {%- for name in names %}
    `{{ name }}` comment '{{ delta_cdc._cdc_escape(column_dict[name].description) }}'{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}
