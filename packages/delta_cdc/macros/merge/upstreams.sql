{#-- What a merge model reads: every table and view behind its refs and sources, by the node's id. Views are followed to what
     they read, ephemeral models too. A table is told by its name and its last commit, number and time, so that a table made
     anew under the same name is another; a view by its text. `version` is none where it cannot be told: not Delta, a view
     that no model of this project made, a view with current_date and the like. --#}
{% macro upstreams() -%}
    {%- set found = {} -%}
    {%- do delta_cdc._add_upstreams(model.depends_on.nodes, found) -%}
    {{ return(found) }}
{%- endmacro %}


{#-- Adds these nodes to `found`, and what lies behind views and ephemeral models. --#}
{% macro _add_upstreams(ids, found) -%}
    {%- for id in ids if id not in found -%}
        {%- set node = graph.nodes.get(id) or graph.sources.get(id) -%}
        {%- if not node -%}
            {%- do found.update({id: {'table': id, 'version': none, 'kind': 'other'}}) -%}
        {%- elif node.config.materialized == 'ephemeral' -%}
            {%- do delta_cdc._add_upstreams(node.depends_on.nodes, found) -%}
        {%- else -%}
            {%- do found.update({id: delta_cdc._upstream(node)}) -%}
            {%- if found[id].kind == 'view' -%}{%- do delta_cdc._add_upstreams(node.depends_on.nodes, found) -%}{%- endif -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{#-- One upstream, asked once per dbt run: it is built before any of its readers, and a version that was read earlier than
     the query only makes the next run read again. --#}
{% macro _upstream(node) -%}
    {%- set is_cdc = node.config.get('incremental_strategy') in ['cdc_scd1', 'cdc_scd2'] -%}
    {%- set relation = api.Relation.create(schema=node.schema, identifier=node.alias or node.identifier) -%}
    {%- set table = delta_cdc._cdc_sibling(relation, 'cdc') if is_cdc else relation -%}
    {%- set memory = delta_cdc._cdc_run_memory() -%}
    {%- if table | string not in memory -%}
        {%- set kind = 'cdc' if is_cdc else 'merge' if node.config.get('incremental_strategy') == 'merge' else 'other' -%}
        {%- do memory.update({table | string: delta_cdc._read_upstream(node, table, kind)}) -%}
    {%- endif -%}
    {{ return(memory[table | string]) }}
{%- endmacro %}


{#-- Asks Spark what one upstream is now. --#}
{% macro _read_upstream(node, table, kind) -%}
    {%- set state = {'table': table | string, 'version': none, 'kind': kind} -%}
    {%- set known = none if node.resource_type == 'source' else load_cached_relation(table) -%}
    {%- if node.resource_type != 'source' and known is none and delta_cdc.stored_as(table) is none -%}{{ return(state) }}{%- endif -%}
    {%- set is_delta = node.config.get('file_format') == 'delta' and node.config.materialized != 'view'
        and known is not none and known.is_table and known.is_delta is not sameas false -%}
    {%- set described = {'Provider': 'delta'} if is_delta else delta_cdc.cdc_described_table(table) -%}
    {%- if described.get('Type') == 'VIEW' -%}
        {%- do state.update({'kind': 'view' if node.config.materialized == 'view' else 'other'}) -%}
        {%- if state.kind == 'view' and not delta_cdc.changes_by_itself(described['View Text']) -%}
            {%- do state.update({'version': local_md5(described['View Text'])}) -%}
        {%- endif -%}
    {%- elif described.get('Provider') == 'delta' -%}
        {#- A run of a merge model makes two commits, the merge and its mark. -#}
        {%- set commits = run_query('describe history ' ~ table ~ ' limit ' ~ (2 if kind == 'merge' else 1)).rows -%}
        {%- do state.update({'version': commits[0]['version'] | int ~ '@' ~ commits[0]['timestamp'], 'commits': commits}) -%}
    {%- endif -%}
    {{ return(state) }}
{%- endmacro %}
