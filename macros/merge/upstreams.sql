{#-- What a merge model has read: the Delta version and, for a CDC model, the highest batch of each table behind its refs. It
     is kept as one table property, read at the start of a run and written after the merge, so a run that dies in between
     computes the same again. RESTORE of the model takes it back with the rows. --#}
{% macro upstreams() -%}
    {%- set found = {} -%}
    {%- for node in _upstream_nodes(model) -%}
        {%- set relation = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias) -%}
        {%- set is_cdc = node.config.get('incremental_strategy') in ['cdc_scd1', 'cdc_scd2'] -%}
        {%- set storage = cdc_storage(relation) -%}
        {%- set version = run_query('describe history ' ~ storage ~ ' limit 1').rows[0]['version'] | int -%}
        {%- do found.update({node.name: {'version': version, 'storage': storage | string, 'is_cdc': is_cdc, 'batch': none, 'derived_by': none}}) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}


{#-- The tables behind a model's refs: views are followed to what they read. --#}
{% macro _upstream_nodes(reader) -%}
    {%- set found = [] -%}
    {%- for id in reader.depends_on.nodes if id in graph.nodes -%}
        {%- set node = graph.nodes[id] -%}
        {%- if node.config.materialized == 'view' -%}
            {%- for behind in _upstream_nodes(node) if behind not in found -%}{%- do found.append(behind) -%}{%- endfor -%}
        {%- elif node not in found -%}
            {%- do found.append(node) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}


{#-- What the last run of this model read: {upstream: {version, batch, derived_by}} and the hash of its SQL. {} at the
     beginning. --#}
{% macro upstreams_applied() -%}
    {%- set value = run_query("show tblproperties " ~ this ~ " ('lakehouse.upstreams')").rows[0]['value'] -%}
    {{ return(fromjson(value) if value and value.startswith('{') else {}) }}
{%- endmacro %}


{#-- Whether nothing that this model reads has changed since its last run, its own SQL included. --#}
{% macro upstreams_unchanged(now) -%}
    {%- set applied = upstreams_applied() -%}
    {%- if applied.get('sql') != _model_hash() or applied.get('read', {}) | length != now | length -%}{{ return(false) }}{%- endif -%}
    {%- for name, state in now.items() if applied.read.get(name, {}).get('version') != state.version -%}
        {{ return(false) }}
    {%- endfor -%}
    {{ return(true) }}
{%- endmacro %}


{#-- Writes what was read. `now` was taken before the model's query ran: what arrived in between is read again next time. --#}
{% macro remember_upstreams(now) -%}
    {%- set read = {} -%}
    {%- for name, state in now.items() -%}
        {%- do read.update({name: {'version': state.version, 'batch': state.batch, 'derived_by': state.derived_by}}) -%}
    {%- endfor -%}
    {%- set value = tojson({'sql': _model_hash(), 'read': read}, sort_keys=true) -%}
    {%- do run_query("alter table " ~ this ~ " set tblproperties ('lakehouse.upstreams' = '" ~ value ~ "')") -%}
{%- endmacro %}


{#-- Adds the highest batch of each CDC upstream, and what derived it; read only when a run has something to do. --#}
{% macro add_upstream_batches(now) -%}
    {%- for state in now.values() if state.is_cdc -%}
        {%- do state.update({'derived_by': cdc_derived_by(state.storage), 'batch': run_query(
            'select coalesce(max(_cdc_batch_id), 0) from ' ~ state.storage ~ ' version as of ' ~ state.version).rows[0][0] | int}) -%}
    {%- endfor -%}
{%- endmacro %}


{#-- Hash of what gives the model its rows: its SQL, its keys, and the SQL of the views between it and its upstreams. --#}
{% macro _model_hash() -%}
    {{ return(local_md5(model.raw_code ~ tojson(config.model.config.get('unique_key')) ~ config.get('replace_by', '') ~ _views_between(model) | join)) }}
{%- endmacro %}


{% macro _views_between(reader) -%}
    {%- set found = [] -%}
    {%- for id in reader.depends_on.nodes if id in graph.nodes and graph.nodes[id].config.materialized == 'view' -%}
        {%- do found.append(graph.nodes[id].raw_code) -%}
        {%- do found.extend(_views_between(graph.nodes[id])) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}
