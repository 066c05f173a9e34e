{#-- The Delta table behind a model: `<model>__cdc` for a CDC model (whose own name is a view), the model itself otherwise. --#}
{% macro cdc_storage(relation) -%}
    {%- set node = delta_cdc._cdc_node(relation) -%}
    {%- if node and node.config.incremental_strategy not in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ return(relation) }}
    {%- endif -%}
    {{ return(delta_cdc._cdc_sibling(relation, 'cdc')) }}
{%- endmacro %}


{#-- A relation next to the model: `<model>__<suffix>` in the same schema. --#}
{% macro _cdc_sibling(relation, suffix) -%}
    {{ return(api.Relation.create(
        database=relation.database, schema=relation.schema, identifier=relation.identifier ~ '__' ~ suffix,
        type='view' if suffix == 'changes' else 'table')) }}
{%- endmacro %}


{#-- The manifest's node of a relation, by its own name or, with --defer, by the name it has where it is deferred to. none
     while parsing, and in unit tests, which have no graph. --#}
{% macro _cdc_node(relation) -%}
    {%- if not execute or graph.nodes is not defined -%}{{ return(none) }}{%- endif -%}
    {%- for node in graph.nodes.values() if node.resource_type in ['model', 'snapshot', 'seed'] -%}
        {%- for place in [node, node.get('defer_relation')] if place -%}
            {%- if place.schema == relation.schema and place.alias == relation.identifier -%}{{ return(node) }}{%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(none) }}
{%- endmacro %}


{#-- What dbt's cache has under a name; where it has nothing the metastore is asked, once a run, and what it has goes into the
     cache: there, and in dbt's own materializations, nothing that stands is taken for absent. --#}
{% macro standing_relation(relation) -%}
    {%- set known = load_cached_relation(relation) -%}
    {%- if known is not none or 'absent ' ~ relation in delta_cdc._cdc_run_memory() -%}{{ return(known) }}{%- endif -%}
    {%- set type = delta_cdc.stored_as(relation) -%}
    {%- if type is none -%}
        {%- do delta_cdc._cdc_run_memory().update({'absent ' ~ relation: true}) -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set found = api.Relation.create(schema=relation.schema, identifier=relation.identifier, type=type,
        is_delta=delta_cdc.cdc_described_table(relation).get('Provider') == 'delta') -%}
    {%- do adapter.cache_added(found) -%}
    {{ return(found) }}
{%- endmacro %}


{#-- What stands under a relation's name: 'table', 'view' or none. The metastore is asked directly, and its error is an error:
     dbt's cache of relations is empty for a schema whose listing failed (dbt-labs/dbt-spark#950), and a table that is taken
     for absent would be replaced. --#}
{% macro stored_as(relation) -%}
    {#- Only `run` and `build` make schemas first. -#}
    {%- if flags.WHICH not in ['run', 'build'] and not adapter.check_schema_exists(relation.database, relation.schema) -%}{{ return(none) }}{%- endif -%}
    {%- if delta_cdc._cdc_listed('tables', relation) == 0 -%}{{ return(none) }}{%- endif -%}
    {{ return('view' if delta_cdc._cdc_listed('views', relation) > 0 else 'table') }}
{%- endmacro %}


{#-- How many of these names stand in the schema. Temporary views are the session's and stand in none. --#}
{% macro _cdc_listed(kind, relation, endings=['']) -%}
    {{ return(run_query(delta_cdc.cdc_name_listing(kind, relation, endings)).rows | rejectattr('isTemporary') | list | length) }}
{%- endmacro %}


{% macro cdc_name_listing(kind, relation, endings=['']) -%}
show {{ kind }} in {{ relation.schema }} like '
    {%- for ending in endings -%}{{ relation.identifier }}{{ ending }}{{ '|' if not loop.last }}{%- endfor -%}
'
{%- endmacro %}


{#-- The rows of `describe extended` below the columns: Type, Provider, View Text, … --#}
{% macro cdc_described_table(relation) -%}
    {{ return(delta_cdc._cdc_pairs('describe extended ' ~ relation)) }}
{%- endmacro %}


{#-- Names and values that a statement gives, the first two columns of its rows. --#}
{% macro _cdc_pairs(statement) -%}
    {%- set found = {} -%}
    {%- for row in run_query(statement).rows -%}{%- do found.update({row[0]: row[1]}) -%}{%- endfor -%}
    {{ return(found) }}
{%- endmacro %}


{#-- What this dbt run has asked already. `graph` is the one thing that all nodes of a run share. --#}
{% macro _cdc_run_memory() -%}
    {%- if graph.get('cdc_memory', {}).get('run') != invocation_id -%}
        {%- do graph.update({'cdc_memory': {'run': invocation_id, 'read': {}}}) -%}
    {%- endif -%}
    {{ return(graph['cdc_memory']['read']) }}
{%- endmacro %}
