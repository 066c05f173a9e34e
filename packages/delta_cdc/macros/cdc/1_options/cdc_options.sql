{#-- Validates a CDC model's configuration against its columns and returns everything the other macros need:
     one dictionary, so that the SQL macros below it take data and read no configuration. `settings` is config-like
     (has `get`), `columns` is [{name, type}] of the model's SELECT. Option list and defaults: docs/cdc.md. --#}
{% macro cdc_options(settings, columns, on_schema_change='append_new_columns') -%}
    {%- set names = columns | map(attribute='name') | list -%}
    {%- set o = {
        'strategy': settings.get('incremental_strategy'),
        'unique_key': delta_cdc._cdc_as_list(settings.get('unique_key')),
        'sequence': delta_cdc._cdc_as_list(settings.get('sequence_by')),
        'effective_at': settings.get('effective_at') or none,
        'delete_when': settings.get('delete_when'),
        'truncate_when': settings.get('truncate_when'),
        'watermark': settings.get('watermark') or ('_batch_id' if '_batch_id' in names else none),
        'unsent': settings.get('unsent') or ('_unsent' if '_unsent' in names else none),
        'moved_from': delta_cdc._cdc_as_list(settings.get('moved_from')),
        'except': delta_cdc._cdc_as_list(settings.get('except_columns', ['_op'])),
        'on_tie': settings.get('on_tie') or 'error',
        'full_extracts': settings.get('full_extracts', false),
        'max_delete_share': settings.get('max_delete_share', 0.5),
        'on_schema_change': on_schema_change,
    } -%}
    {%- do delta_cdc._cdc_check_named(o, names, settings) -%}
    {%- do o.update({'limits': delta_cdc.cdc_limits(settings.get('warn_above'), settings.get('fail_above'), o.strategy, o.on_tie)}) -%}
    {%- do delta_cdc._cdc_check_extracts(o, settings) -%}
    {%- set types = {} -%}
    {%- for column in columns -%}{%- do types.update({column.name: column.type}) -%}{%- endfor -%}
    {%- set scd2 = o.strategy == 'cdc_scd2' -%}
    {%- if scd2 and not o.effective_at -%}
        {%- if types[o.sequence[0]] in ['timestamp', 'timestamp_ntz', 'date'] -%}
            {%- do o.update({'effective_at': o.sequence[0]}) -%}
        {%- else -%}
            {%- do delta_cdc._cdc_fail('effective_at', 'a timestamp column (the first sequence_by column is '
                ~ types[o.sequence[0]] ~ ')', 'nothing', "add effective_at='<timestamp column>'") -%}
        {%- endif -%}
    {%- endif -%}
    {%- if o.effective_at and types[o.effective_at] not in ['timestamp', 'timestamp_ntz', 'date'] -%}
        {%- do delta_cdc._cdc_fail('effective_at', 'a timestamp or date column', types[o.effective_at], 'cast it in the SELECT') -%}
    {%- endif -%}
    {%- set stored = names | reject('in', o.except) | list -%}
    {%- set engine = o.unique_key + o.sequence + [o.watermark, o.unsent, o.effective_at] -%}
    {%- set attributes = stored | reject('in', engine) | list -%}
    {#- A name that begins with `_` is lineage, unless an option asks for it: then its values decide what is shown. -#}
    {%- set ignore_null = settings.get('ignore_null_updates') -%}
    {%- set asked = delta_cdc._cdc_as_list(settings.get('track_history')) + (delta_cdc._cdc_as_list(ignore_null) if ignore_null is not sameas true else []) -%}
    {%- set plain, described = [], [] -%}
    {%- for name in attributes -%}
        {%- if not name.startswith('_') -%}{%- do plain.append(name) -%}{%- endif -%}
        {%- if not name.startswith('_') or name in asked -%}{%- do described.append(name) -%}{%- endif -%}
    {%- endfor -%}
    {%- set tracked = delta_cdc._cdc_as_list(settings.get('track_history')) or
        (plain | reject('in', delta_cdc._cdc_as_list(settings.get('track_history_except'))) | list) -%}
    {%- set ignore_null = plain if ignore_null is sameas true else delta_cdc._cdc_as_list(ignore_null) -%}
    {%- set payload = delta_cdc._cdc_distinct(described + (o.moved_from | select('in', attributes) | list) + ([o.unsent] if o.unsent else [])) -%}
    {%- do o.update({'names': names, 'types': types, 'stored': stored, 'attributes': attributes, 'tracked': tracked,
        'ignore_null': ignore_null, 'fill': described if o.unsent else ignore_null, 'payload': payload, 'scd2': scd2,
        'earliest': o.effective_at is not none and o.effective_at not in o.sequence,
        'filled': [], 'batch_type': types[o.watermark] if o.watermark else 'bigint',
        'cluster_by': delta_cdc._cdc_cluster_by(settings, o.unique_key, types)}) -%}
    {%- do delta_cdc._cdc_check_columns(o, settings) -%}
    {{ return(o) }}
{%- endmacro %}


{#-- An option that may be a name, a list or nothing, as a list. --#}
{% macro _cdc_as_list(value) -%}
    {{ return([] if not value else [value] if value is string else value | list) }}
{%- endmacro %}


{#-- Stops the model: what was expected, what was got, and the fix. --#}
{% macro _cdc_fail(option, expected, got, fix) -%}
    {%- do exceptions.raise_compiler_error(
        option ~ ': expected ' ~ expected ~ ', got ' ~ got ~ '. Fix: ' ~ fix ~ ('' if fix.endswith('?') else '.')) -%}
{%- endmacro %}


{#-- Required options are there, and every option that names columns names columns of the SELECT. --#}
{% macro _cdc_check_named(o, names, settings) -%}
    {%- if not o.unique_key -%}{%- do delta_cdc._cdc_fail('unique_key', 'a column or list', 'nothing', "add unique_key='<column>'") -%}{%- endif -%}
    {%- if not o.sequence -%}
        {%- do delta_cdc._cdc_fail('sequence_by', "the column(s) that order one key's changes", 'nothing', "add sequence_by=['<column>']") -%}
    {%- endif -%}
    {%- for option, wanted in [('unique_key', o.unique_key), ('sequence_by', o.sequence), ('effective_at', [o.effective_at]),
            ('watermark', [o.watermark]), ('unsent', [o.unsent]), ('moved_from', o.moved_from),
            ('cluster_by', delta_cdc._cdc_as_list(settings.get('cluster_by'))), ('except_columns', delta_cdc._cdc_as_list(settings.get('except_columns')))] -%}
        {%- for name in wanted if name and name not in names -%}
            {%- do delta_cdc._cdc_fail(option, 'a column of the SELECT (' ~ names | join(', ') ~ ')', name, 'select it or correct the name') -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- if o.on_tie not in ['error', 'warn'] -%}{%- do delta_cdc._cdc_fail('on_tie', "'error' or 'warn'", o.on_tie, 'use one of the two') -%}{%- endif -%}
    {%- if o.on_schema_change not in ['ignore', 'fail', 'append_new_columns', 'sync_all_columns'] -%}
        {%- do delta_cdc._cdc_fail('on_schema_change', 'ignore, fail, append_new_columns or sync_all_columns', o.on_schema_change, 'use one of the four') -%}
    {%- endif -%}
{%- endmacro %}


{#-- Columns the engine cannot work with are refused by name; Spark does not tell upper from lower case. --#}
{% macro _cdc_check_columns(o, settings) -%}
    {%- set made = ['valid_from', 'valid_to', 'is_current'] + (['_batch_id'] if o.watermark != '_batch_id' else []) -%}
    {%- set read = ['_batch_id', '_unsent', '_op', '_arrived_at'] -%}
    {%- for name in o.names -%}
        {%- set lower = name | lower -%}
        {%- if lower.startswith('_cdc_') or lower in made and name not in o.except -%}
            {%- do delta_cdc._cdc_fail('column ' ~ name, 'another name (the engine makes columns of this name)', name, 'rename it in the SELECT') -%}
        {%- elif lower in read and name not in read -%}
            {%- do delta_cdc._cdc_fail('column ' ~ name, lower ~ ' (the engine reads the column of this name)', name, 'write it in lower case, or rename it in the SELECT') -%}
        {%- elif name in o.stored and modules.re.search('[`,;{}()=\\s]', name) -%}
            {%- do delta_cdc._cdc_fail('column ' ~ name, 'a name that Delta stores (no blank, no backtick, none of ,;{}()=)', name, 'rename it in the SELECT') -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name in o.stored if modules.re.search('\\bmap<|(^|[:<,])variant($|[>,])', o.types[name]) -%}
        {%- do delta_cdc._cdc_fail('column ' ~ name, 'a type that can be compared', o.types[name], 'use to_json(' ~ name ~ ')') -%}
    {%- endfor -%}
    {%- set except = delta_cdc._cdc_as_list(settings.get('track_history_except')) -%}
    {%- if except and settings.get('track_history') -%}
        {%- do delta_cdc._cdc_fail('track_history', 'it or track_history_except', 'both', 'remove one of the two') -%}
    {%- endif -%}
    {%- for name in o.tracked + except + o.ignore_null if name not in o.stored -%}
        {%- do delta_cdc._cdc_fail('track_history / ignore_null_updates', 'stored columns (' ~ o.stored | join(', ') ~ ')', name, 'correct the name') -%}
    {%- endfor -%}
    {%- set arrival = [o.watermark, o.unsent] + ([o.effective_at] if o.earliest else []) -%}
    {%- for name in delta_cdc._cdc_as_list(settings.get('track_history')) + o.ignore_null if name in arrival -%}
        {%- do delta_cdc._cdc_fail('track_history / ignore_null_updates', 'columns that hold what happened, not when and how it arrived', name, 'remove it') -%}
    {%- endfor -%}
    {%- for name in o.unique_key + o.sequence + o.moved_from + [o.effective_at] if name and name in o.except -%}
        {%- do delta_cdc._cdc_fail('except_columns', 'columns the engine does not store', name, 'remove it from except_columns') -%}
    {%- endfor -%}
    {%- for name in o.sequence if o.types[name].startswith('string') and name != '_file' -%}
        {%- do exceptions.warn(delta_cdc._cdc_text_sequence(name)) -%}
    {%- endfor -%}
{%- endmacro %}


{#-- `_file` is left out: its order is ingestion's, which knows the names. --#}
{% macro _cdc_text_sequence(name) -%}
sequence_by: {{ name }} is a string and compares as text: '10' comes before '9', and the later change would lose. Fix: a number,
  cast({{ name }} as bigint) as {{ name }}
or, of a PostgreSQL log position such as 16/B374D848,
  cast(conv(split_part({{ name }}, '/', 1), 16, 10) as bigint) * 4294967296 + cast(conv(split_part({{ name }}, '/', 2), 16, 10) as bigint) as {{ name }}
A text of one length (a ULID, an ISO time) is in order; cast a time to a timestamp.
{%- endmacro %}


{#-- Liquid clustering columns: those of the key for which Delta keeps statistics, at most four. --#}
{% macro _cdc_cluster_by(settings, keys, types) -%}
    {%- set chosen = delta_cdc._cdc_as_list(settings.get('cluster_by')) -%}
    {%- if chosen | length > 4 -%}{%- do delta_cdc._cdc_fail('cluster_by', 'at most 4 columns', chosen | join(', '), 'leave some out') -%}{%- endif -%}
    {%- if not chosen -%}
        {%- for key in keys if delta_cdc._cdc_has_literal(types[key]) -%}{%- do chosen.append(key) -%}{%- endfor -%}
    {%- endif -%}
    {{ return(chosen[:4]) }}
{%- endmacro %}
