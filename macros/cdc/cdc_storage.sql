{#-- The Delta table behind a model: `<model>__cdc` for a CDC model (whose own name is a view), the model itself otherwise. --#}
{% macro cdc_storage(relation) -%}
    {%- set node = _cdc_node(relation) -%}
    {%- if node and node.config.incremental_strategy not in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ return(relation) }}
    {%- endif -%}
    {{ return(_cdc_sibling(relation, 'cdc')) }}
{%- endmacro %}


{#-- A relation next to the model: `<model>__<suffix>` in the same schema. --#}
{% macro _cdc_sibling(relation, suffix) -%}
    {{ return(api.Relation.create(
        database=relation.database, schema=relation.schema, identifier=relation.identifier ~ '__' ~ suffix,
        type='view' if suffix == 'changes' else 'table')) }}
{%- endmacro %}


{#-- The manifest's node of a relation, or none while parsing. --#}
{% macro _cdc_node(relation) -%}
    {%- if not execute -%}{{ return(none) }}{%- endif -%}
    {%- for node in graph.nodes.values() if node.resource_type in ['model', 'snapshot', 'seed'] -%}
        {%- if node.schema == relation.schema and node.alias == relation.identifier -%}
            {{ return(node) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(none) }}
{%- endmacro %}


{#-- What stands under a relation's name: 'table', 'view' or none. The metastore is asked directly, and its error is an error:
     dbt's cache of relations is empty for a schema whose listing failed (dbt-labs/dbt-spark#950), and a table that is taken
     for absent would be replaced. --#}
{% macro stored_as(relation) -%}
    {#- Only `run` and `build` make schemas first. -#}
    {%- if flags.WHICH not in ['run', 'build'] and not adapter.check_schema_exists(relation.database, relation.schema) -%}{{ return(none) }}{%- endif -%}
    {%- if _cdc_listed('tables', relation) == 0 -%}{{ return(none) }}{%- endif -%}
    {{ return('view' if _cdc_listed('views', relation) > 0 else 'table') }}
{%- endmacro %}


{#-- How many of these names stand in the schema. Temporary views are the session's and stand in none. --#}
{% macro _cdc_listed(kind, relation, endings=['']) -%}
    {{ return(run_query(cdc_name_listing(kind, relation, endings)).rows | rejectattr('isTemporary') | list | length) }}
{%- endmacro %}


{% macro cdc_name_listing(kind, relation, endings=['']) -%}
show {{ kind }} in {{ relation.schema }} like '
    {%- for ending in endings -%}{{ relation.identifier }}{{ ending }}{{ '|' if not loop.last }}{%- endfor -%}
'
{%- endmacro %}
