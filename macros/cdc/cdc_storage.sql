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
