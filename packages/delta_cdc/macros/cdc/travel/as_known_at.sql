{#-- What a model showed when no more was known than at a moment, or up to a batch, as a subquery for a from clause.
     A CDC model stores every event, so its timeline is derived again from those that had arrived; VACUUM does not matter.
     Any other table is read by Delta's time travel, as far back as its files are kept. --#}
{% macro as_known_at(relation, timestamp=none, batch=none) -%}
    {%- if not execute -%}{{ return(relation) }}{%- endif -%}
    {%- set node = delta_cdc._cdc_travelled('as_known_at', relation) -%}
    {%- if (timestamp is none) == (batch is none) -%}
        {%- do delta_cdc._cdc_fail('as_known_at', 'a timestamp or a batch', 'neither' if batch is none else 'both', 'give one of them') -%}
    {%- endif -%}
    {%- if node.config.incremental_strategy not in ['cdc_scd1', 'cdc_scd2'] -%}
        {%- if timestamp is none -%}
            {%- do delta_cdc._cdc_fail('as_known_at', 'a CDC model, which stores the batch of every event', node.name, 'give a timestamp, or a version to at_version') -%}
        {%- endif -%}
        {{ return('(select * from ' ~ relation ~ ' timestamp as of ' ~ delta_cdc._cdc_moment(timestamp) ~ ')') }}
    {%- endif -%}
    {%- set storage = delta_cdc.cdc_storage(relation) -%}
    {%- set run = delta_cdc._cdc_stored_run(node, storage) -%}
    {%- set known = '(select * from ' ~ storage ~ ' where ' ~ delta_cdc._cdc_known(node, run.o, timestamp, batch) ~ ')' -%}
    {%- set plan = {
        'state': known, 'moves': none, 'chains': none,
        'truncations': delta_cdc.cdc_truncations(run.o, known, run.stage) if run.o.truncate_when else none,
    } -%}
    {%- if run.o.moved_from and run.o.fill -%}{%- do delta_cdc._cdc_inline_moves(run, plan) -%}{%- endif -%}
    {{ return('(\n' ~ delta_cdc.cdc_known_rows(run, plan) ~ '\n)') }}
{%- endmacro %}


{#-- SQL of the rows that the view would show of the events in `plan.state`; without `_batch_id`, which tells of runs. --#}
{% macro cdc_known_rows(run, plan) -%}
{%- set o = run.o -%}
with
{{ delta_cdc.cdc_segmented(run, plan) }},

{{ delta_cdc._cdc_filled(o, plan.chains) }},

{{ delta_cdc._cdc_runs(o) if o.scd2 else delta_cdc._cdc_last_states(o) }}

select
    {%- for name in o.stored if name not in [o.unsent, o.watermark] %}
    {{ delta_cdc._cdc_time(o) if name == o.effective_at else delta_cdc._cdc_value(o, name) }} as `{{ name }}`{{ ',' if not loop.last or o.scd2 }}
    {%- endfor %}
    {%- if o.scd2 %}
    _cdc_now_from as valid_from,
    _cdc_now_to as valid_to,
    _cdc_now_to is null as is_current
    {%- endif %}
from placed_in_time
where _cdc_now_visible and not _cdc_synthetic
{%- endmacro %}


{#-- A run's options and stored state as the table's own properties say them; its stage has no events. --#}
{% macro _cdc_stored_run(node, storage) -%}
    {%- if node.config.get('full_extracts') -%}
        {%- do delta_cdc._cdc_fail('as_known_at', 'a model of changes', node.name ~ ', a model of full extracts, whose deletes follow from all extracts together',
            'use at_version with a version from describe history ' ~ storage) -%}
    {%- endif -%}
    {%- set properties = delta_cdc._cdc_pairs('show tblproperties ' ~ storage) -%}
    {%- set shape = fromjson(properties.get('lakehouse.cdc.options', '{}')).get('shape', {}) -%}
    {%- set columns, names = [], [] -%}
    {%- for column in adapter.get_columns_in_relation(storage) if not column.name.startswith('_cdc_') -%}
        {%- do columns.append({'name': column.name, 'type': column.dtype}) -%}
        {%- do names.append(column.name) -%}
    {%- endfor -%}
    {%- for name in delta_cdc._cdc_as_list(node.config.get('except_columns')) -%}{%- do columns.append({'name': name, 'type': 'string'}) -%}{%- endfor -%}
    {%- set o = delta_cdc.cdc_options(node.config, columns) -%}
    {%- do o.update({'stored': names, 'tracked': shape.get('tracked') or [], 'fill': shape.get('fill') or [], 'ignore_null': shape.get('ignore_null') or []}) -%}
    {%- set schemas = fromjson(properties.get('lakehouse.cdc.schemas', '[]')) or [o.payload] -%}
    {%- do o.update({'payload': schemas[-1]}) -%}
    {{ return({'o': o, 'stored': {'schemas': schemas}, 'stage': delta_cdc._cdc_no_events(o, storage)}) }}
{%- endmacro %}


{#-- The condition that an event was known. --#}
{% macro _cdc_known(node, o, timestamp, batch) -%}
    {%- if timestamp is not none -%}
        {%- if '_arrived_at' not in o.stored -%}
            {%- do delta_cdc._cdc_fail('as_known_at', 'a model that stores when its events arrived', node.name ~ ', without a column _arrived_at',
                'give a batch, or select _arrived_at in the model and run it once with --full-refresh') -%}
        {%- endif -%}
        {{ return('_arrived_at <= ' ~ delta_cdc._cdc_moment(timestamp)) }}
    {%- endif -%}
    {%- if not o.watermark -%}
        {%- do delta_cdc._cdc_fail('batch', 'a model with a watermark', node.name ~ ', which has none', 'give a timestamp') -%}
    {%- endif -%}
    {%- if batch is boolean or (o.batch_type in ['int', 'bigint'] and not modules.re.fullmatch('[0-9]+', batch | string)) -%}
        {%- do delta_cdc._cdc_fail('batch', 'a ' ~ o.batch_type, batch, 'give a value of the column ' ~ o.watermark) -%}
    {%- endif -%}
    {{ return('`' ~ o.watermark ~ '` <= ' ~ delta_cdc.cdc_literal(batch | string, o.batch_type)) }}
{%- endmacro %}


{#-- Key changes among the known events, as subqueries of the plan; each look at a longer chain doubles their text. --#}
{% macro _cdc_inline_moves(run, plan) -%}
    {%- set moves = '(' ~ delta_cdc.cdc_moves(run.o, plan.state, run.stage) ~ ')' -%}
    {%- if run_query('select count(*) as moves from ' ~ moves ~ ' as moves').rows[0]['moves'] > 0 -%}
        {%- do plan.update({'moves': moves}) -%}
        {%- set now = namespace(chains='(' ~ delta_cdc.cdc_chains(run, plan) ~ ')', more=true) -%}
        {%- for step in range(4) if now.more -%}
            {%- set now.more = run_query(delta_cdc.cdc_unfinished_chains(run.o, now.chains)).rows[0][0] > 0 -%}
            {%- if now.more and loop.last -%}
                {%- do delta_cdc._cdc_fail('as_known_at', 'keys that changed at most 8 times in a row', 'a key that changed more often', 'use at_version') -%}
            {%- endif -%}
            {%- if now.more -%}{%- set now.chains = '(' ~ delta_cdc.cdc_lengthen_chains(run.o, now.chains) ~ ')' -%}{%- endif -%}
        {%- endfor -%}
        {%- do plan.update({'chains': now.chains}) -%}
    {%- endif -%}
{%- endmacro %}
