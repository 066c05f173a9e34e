{#-- What became of one key's events, and why. For `dbt run-operation cdc_explain`; it writes nothing.

       1 find the CDC model and its options, 2 check the key, 3 read the storage table, through the engine's own steps as far
         as the clamp, and what the model's SELECT gives of the key, 4 one line per event. --#}
{% macro cdc_explain(model, key, values=false) -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set node = delta_cdc._cdc_model_to_explain(model) -%}
    {%- set storage = delta_cdc._cdc_sibling(api.Relation.create(database=none, schema=node.schema, identifier=node.alias), 'cdc') -%}
    {%- if delta_cdc.stored_as(storage) is none -%}
        {%- do delta_cdc._cdc_fail('cdc_explain', 'the storage table ' ~ storage, 'no table of this name', 'run dbt build --select ' ~ node.name ~ ' first') -%}
    {%- endif -%}
    {%- set model_sql = render(node.raw_code) -%}
    {%- set o = delta_cdc.cdc_options(node.config, delta_cdc._cdc_describe_query(model_sql), node.config.get('on_schema_change', 'append_new_columns')) -%}
    {%- set schemas = delta_cdc._cdc_as_it_is_stored(o, storage) -%}
    {%- set condition = delta_cdc.cdc_key_condition(o, key) -%}

    {%- set events = delta_cdc._cdc_json_rows(delta_cdc.cdc_explained_events(o, storage, schemas, condition)) -%}
    {%- set arrivals = delta_cdc._cdc_json_rows(delta_cdc.cdc_explained_arrivals(o, storage, model_sql, schemas, condition)) -%}
    {%- if not events and not arrivals -%}
        {%- do delta_cdc._cdc_fail('key', 'a key with an event in ' ~ storage ~ ' or in the SELECT of ' ~ node.name, 'a key without one',
            'check the value and its type (' ~ delta_cdc._cdc_key_types(o) ~ ')') -%}
    {%- endif -%}
    {%- set moves = delta_cdc._cdc_json_rows(delta_cdc.cdc_explained_moves(o, storage, key)) if o.moved_from and o.fill else [] -%}
    {%- set lines = delta_cdc._cdc_aligned(delta_cdc._cdc_explanation(o, events, arrivals, moves, values)) -%}
    {%- set which = o.unique_key | join(', ') ~ ' ' ~ key if values else 'one key of ' ~ o.unique_key | join(', ') ~ '; values are not shown (values: true shows them)' -%}
    {%- do log(node.name ~ ' (' ~ o.strategy ~ '), ' ~ which, info=true) -%}
    {%- for line in lines -%}{%- do log(line, info=true) -%}{%- endfor -%}
{%- endmacro %}


{#-- The CDC model of a name: the model itself, or the one that a view or table of this name reads. --#}
{% macro _cdc_model_to_explain(name) -%}
    {%- set strategies = ['cdc_scd1', 'cdc_scd2'] -%}
    {%- set named, ours = [], [] -%}
    {%- for node in graph.nodes.values() if node.resource_type == 'model' -%}
        {%- if node.config.incremental_strategy in strategies -%}{%- do ours.append(node.name) -%}{%- endif -%}
        {%- if name in [node.name, node.alias] -%}{%- do named.append(node) -%}{%- endif -%}
    {%- endfor -%}
    {%- if not named -%}
        {%- do delta_cdc._cdc_fail('model', 'a CDC model (' ~ ours | sort | join(', ') ~ ')', name,
            'did you mean ' ~ delta_cdc._nearest(name | string, ours | sort) ~ '?' if ours else 'add a CDC model') -%}
    {%- endif -%}
    {%- set found = [] -%}
    {%- for node in named -%}
        {%- for id in [node.unique_id] + node.depends_on.nodes if graph.nodes.get(id, {}).get('config', {}).get('incremental_strategy') in strategies -%}
            {%- do found.append(graph.nodes[id]) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- if named[0].config.incremental_strategy not in strategies and found | length != 1 -%}
        {%- do delta_cdc._cdc_fail('model', 'a model with incremental_strategy cdc_scd1 or cdc_scd2, or one that reads exactly one such model',
            name ~ ', which reads ' ~ (found | map(attribute='name') | join(', ') or 'none'), 'name one of ' ~ ours | sort | join(', ')) -%}
    {%- endif -%}
    {{ return(found[0]) }}
{%- endmacro %}


{#-- Leaves out of the options columns that the storage table does not have yet; returns its payload columns by number. --#}
{% macro _cdc_as_it_is_stored(o, storage) -%}
    {%- set properties = delta_cdc._cdc_pairs('show tblproperties ' ~ storage) -%}
    {%- do delta_cdc._cdc_refuse_changed_identity(o, fromjson(properties.get('lakehouse.cdc.options', '{}'))) -%}
    {%- set there = adapter.get_columns_in_relation(storage) | map(attribute='name') | list -%}
    {%- for part in ['stored', 'attributes', 'tracked', 'ignore_null', 'fill', 'payload'] -%}
        {%- do o.update({part: o[part] | select('in', there) | list}) -%}
    {%- endfor -%}
    {%- if '_cdc_filled' not in there -%}{%- do o.update({'fill': []}) -%}{%- endif -%}
    {{ return(fromjson(properties.get('lakehouse.cdc.schemas', '[]')) or [o.payload]) }}
{%- endmacro %}


{#-- A key as a SQL condition. It is a value (of a key of one column), a list in the order of `unique_key`, or a mapping. --#}
{% macro cdc_key_condition(o, key, alias=none) -%}
    {%- set expected = delta_cdc._cdc_key_types(o) -%}
    {%- set fix = 'write ' ~ ('key: <value>' if o.unique_key | length == 1 else 'key: {' ~ o.unique_key | join(': <value>, ') ~ ': <value>}') -%}
    {%- if key is mapping -%}
        {%- set given = key -%}
    {%- else -%}
        {%- set listed = [key] if key is string or key is not iterable else key | list -%}
        {%- if listed | length != o.unique_key | length -%}{%- do delta_cdc._cdc_fail('key', expected, listed | length ~ ' value(s)', fix) -%}{%- endif -%}
        {%- set given = dict(zip(o.unique_key, listed)) -%}
    {%- endif -%}
    {%- if given.keys() | sort != o.unique_key | sort -%}{%- do delta_cdc._cdc_fail('key', expected, given.keys() | join(', ') or 'nothing', fix) -%}{%- endif -%}
    {%- set parts = [] -%}
    {%- for name in o.unique_key -%}
        {%- set text, type = given[name] | string, o.types[name] -%}
        {%- set form = '-?[0-9]+' if type in ['tinyint', 'smallint', 'int', 'bigint'] else '-?[0-9]+([.][0-9]+)?' if type.startswith('decimal')
            else '[0-9]{4}-[0-9]{2}-[0-9]{2}.*' if type in ['date', 'timestamp', 'timestamp_ntz'] else '(?s).*' -%}
        {%- if given[name] is none or (given[name] is iterable and given[name] is not string) or not modules.re.fullmatch(form, text) -%}
            {%- do delta_cdc._cdc_fail('key', expected, 'a value of ' ~ name ~ ' that is no ' ~ type, fix) -%}
        {%- endif -%}
        {%- do parts.append((alias ~ '.' if alias else '') ~ '`' ~ name ~ '` = ' ~ (delta_cdc.cdc_literal(text, type) if delta_cdc._cdc_has_literal(type)
            else "cast('" ~ delta_cdc._cdc_escape(text) ~ "' as " ~ type ~ ')')) -%}
    {%- endfor -%}
    {{ return(parts | join(' and ')) }}
{%- endmacro %}


{#-- The key's columns with their types, for messages. --#}
{% macro _cdc_key_types(o) -%}
    {%- set parts = [] -%}
    {%- for name in o.unique_key -%}{%- do parts.append(name ~ ' ' ~ o.types[name]) -%}{%- endfor -%}
    {{ return(parts | join(', ')) }}
{%- endmacro %}


{#-- Rows of a query of one JSON column, as lists. --#}
{% macro _cdc_json_rows(sql) -%}
    {%- set rows = [] -%}
    {%- for row in run_query(sql).rows -%}{%- do rows.append(fromjson(delta_cdc._cdc_text(row['said']))) -%}{%- endfor -%}
    {{ return(rows) }}
{%- endmacro %}
