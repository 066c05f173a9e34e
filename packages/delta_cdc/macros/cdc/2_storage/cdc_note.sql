{#-- What is applied, kept in the note of the commit that applied it (`userMetadata`): the table's name and version, the highest
     watermark (`mark`) or number of the next run, whether truncates are stored, how far sequence and effective time `reach`,
     what `model` the table and its views are of, the number of the `schema` of new rows (none where the table has more than
     the model) and how many `rows` it has. While that commit is the table's last, all of it is known without reading a row. --#}

{#-- What the note says; after any other commit, maintenance, RESTORE and statements by hand among them, in a copy of another
     table, and where options have changed what a reach is, what the rows say. `is_noted`: every stored row is as this engine
     left it. --#}
{% macro cdc_applied(o, storage, stored) -%}
    {%- set note = delta_cdc.cdc_read_note(stored.commit, storage) -%}
    {%- if note and not stored.rederive and (note.get('reach') or not delta_cdc._cdc_has_reach(o)) -%}
        {{ return(dict(note, is_noted=true)) }}
    {%- endif -%}
    {%- set row = run_query(delta_cdc.cdc_applied_rows(o, storage)).rows[0].dict() -%}
    {{ return(dict(row, reach=delta_cdc._cdc_read_reach(row), is_noted=false)) }}
{%- endmacro %}


{#-- The note of a table's last commit; nothing where it has none, or one that tells of another table or version. --#}
{% macro cdc_read_note(commit, storage) -%}
    {%- set text = commit['userMetadata'] or '' -%}
    {%- set note = fromjson(text)['lakehouse.cdc'] if text.startswith('{"lakehouse.cdc":') else {} -%}
    {{ return(note if note.get('table') == storage | string and note.get('version') == commit['version'] | int else {}) }}
{%- endmacro %}


{#-- Whether the table and its views are of this very model, so that a run with nothing to apply has nothing to compare. --#}
{% macro cdc_is_as_noted(o, storage, note) -%}
    {%- if not note.get('model') or (delta_cdc._cdc_has_reach(o) and not note.get('reach')) -%}{{ return(false) }}{%- endif -%}
    {{ return(note.model == delta_cdc._cdc_model_of(o, tojson(delta_cdc._cdc_shape(o), sort_keys=true), delta_cdc._cdc_views(o, storage, {}).hash)) }}
{%- endmacro %}


{#-- The model that a note tells of: options and views as the table's properties have them, not as the run is about to write. --#}
{% macro _cdc_model_of(o, options, views) -%}
    {{ return(local_md5([options, views, o.on_schema_change, tojson(o.payload | sort)] | join('|'))) }}
{%- endmacro %}


{% macro cdc_applied_rows(o, storage) -%}
select
    {{ "concat('=', cast(max(`" ~ o.watermark ~ "`) as string))" if o.watermark else 'cast(null as string)' }} as mark,
    {{ 'cast(null as bigint)' if o.watermark else 'coalesce(max(_cdc_batch_id), 0) + 1' }} as run,
    {{ delta_cdc._cdc_reach_of_rows(o) }} as reach,
    count(*) as rows,
    count_if(`{{ o.unique_key[0] }}` is null) as truncates
from {{ storage }}
{%- endmacro %}


{#-- How far events reach, as a JSON list of texts: the highest sequence, then for scd2 the latest effective time (`sequence`
     and `effective` are aggregates), of those before too, where `applied` is such a list. NULL where a type has no literal,
     or no watermark tells which events are new. --#}
{% macro _cdc_reach(o, sequence, effective, applied=none) -%}
    {%- if not delta_cdc._cdc_has_reach(o) -%}cast(null as string)
    {%- else -%}
    {%- if applied -%}
        {%- set sequence = 'greatest(' ~ sequence ~ ', ' ~ delta_cdc._cdc_reached_sequence(o, applied) ~ ')' -%}
        {%- set effective = 'greatest(' ~ effective ~ ', ' ~ delta_cdc._cdc_reached_time(o, applied) ~ ')' -%}
    {%- endif -%}
    {%- set texts = [] -%}
    {%- for name in o.sequence -%}{%- do texts.append(delta_cdc._cdc_lasting_text(sequence ~ '.`' ~ name ~ '`', o.types[name])) -%}{%- endfor -%}
    {%- if o.scd2 -%}{%- do texts.append(delta_cdc._cdc_lasting_text(effective, o.types[o.effective_at])) -%}{%- endif -%}
    {{ delta_cdc._cdc_json('array(' ~ texts | join(', ') ~ ')') }}
    {%- endif -%}
{%- endmacro %}


{#-- The same of rows that have the columns. --#}
{% macro _cdc_reach_of_rows(o) -%}
    {{ delta_cdc._cdc_reach(o, 'max(struct(' ~ delta_cdc._cdc_columns(o.sequence) ~ '))', 'max(`' ~ o.effective_at ~ '`)') }}
{%- endmacro %}


{#-- A time without a zone is left out: as a start of a version it may not be in the order that it has as an event. --#}
{% macro _cdc_has_reach(o) -%}
    {%- if o.scd2 and o.types[o.effective_at] == 'timestamp_ntz' -%}{{ return(false) }}{%- endif -%}
    {%- for name in o.sequence + ([o.effective_at] if o.scd2 else []) if not delta_cdc._cdc_has_literal(o.types[name]) -%}{{ return(false) }}{%- endfor -%}
    {{ return(o.watermark is not none) }}
{%- endmacro %}


{#-- none where a value is missing: nothing is applied, or the types have no literal. --#}
{% macro _cdc_read_reach(row) -%}
    {%- set reach = fromjson(delta_cdc._cdc_text(row['reach']) or '[null]') -%}
    {{ return(none if none in reach else reach) }}
{%- endmacro %}


{#-- The highest applied sequence, as a struct of literals. --#}
{% macro _cdc_reached_sequence(o, reach) -%}
struct({% for name in o.sequence %}{{ delta_cdc._cdc_from_lasting_text(reach[loop.index0], o.types[name]) }} as `{{ name }}`{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}


{#-- The highest applied effective time, as a literal. --#}
{% macro _cdc_reached_time(o, reach) -%}
    {{ delta_cdc._cdc_from_lasting_text(reach[-1], o.types[o.effective_at]) if o.scd2 }}
{%- endmacro %}


{#-- A text that a later session reads as the same value, whatever its time zone. --#}
{% macro _cdc_lasting_text(value, type) -%}
    cast({{ 'unix_micros(' ~ value ~ ')' if type == 'timestamp' else value }} as string)
{%- endmacro %}


{#-- A value's literal from its text in a note. --#}
{% macro _cdc_from_lasting_text(text, type) -%}
    {%- if type == 'timestamp' -%}timestamp_micros({{ text }}L)
    {%- elif type.startswith('decimal') -%}cast({{ delta_cdc.cdc_literal(text, type) }} as {{ type }})
    {%- else -%}{{ delta_cdc.cdc_literal(text, type) }}
    {%- endif -%}
{%- endmacro %}


{#-- The highest watermark applied, as a literal; none before the first load. --#}
{% macro _cdc_low(o, applied, stored) -%}
    {%- set lows = [] -%}
    {%- for text in [delta_cdc._cdc_text(applied['mark']), stored.get('properties', {}).get('lakehouse.cdc.watermark')] if o.watermark and text -%}
        {%- do lows.append(delta_cdc.cdc_literal(text, o.batch_type)) -%}
    {%- endfor -%}
    {{ return(none if not lows else lows[0] if lows | length == 1 else 'greatest(' ~ lows | join(', ') ~ ')') }}
{%- endmacro %}


{#-- How far this run reads (`high`), the batch of rows that change without an event of their key, and whether truncates
     are stored. --#}
{% macro _cdc_marks(o, applied, low, profile) -%}
    {%- set high_text = delta_cdc._cdc_text(profile['last_batch']) -%}
    {%- set high = delta_cdc.cdc_literal(high_text, o.batch_type) if high_text else none -%}
    {{ return({
        'high': high, 'high_text': high_text, 'truncates': applied['truncates'] > 0,
        'high_or_run': high or low or 'cast(null as ' ~ o.batch_type ~ ')' if o.watermark else applied['run'],
    }) }}
{%- endmacro %}


{#-- The note of the commit that makes `version`; none where there is nothing to say, or Spark would read it as two statements
     or substitute a variable. --#}
{% macro cdc_note(run, version) -%}
    {%- set marks, profile, properties = run.marks, run.profile, run.stored.get('properties', {}) -%}
    {%- set note = {
        'table': run.storage | string,
        'version': version,
        'mark': '=' ~ marks.high_text if marks.high_text else none,
        'run': none if run.o.watermark else (marks.high_or_run + 1) | int,
        'truncates': 1 if marks.truncates or profile['truncates'] > 0 else 0,
        'reach': delta_cdc._cdc_read_reach(profile),
        'model': run.applied.model if run.is_as_noted else delta_cdc._cdc_model_of(run.o, properties.get('lakehouse.cdc.options'), properties.get('lakehouse.cdc.views')),
        'schema': run.stored.schema if not properties.get('changed') and run.o.filled | map(attribute='name') | list in [[], run.o.fill] else none,
        'rows': (run.applied.rows + run.inserted) | int if run.applied.get('rows') is not none else none,
    } -%}
    {%- set text = tojson({'lakehouse.cdc': note}) -%}
    {{ return(text if (note.mark or note.run) and ';' not in text and '$' not in text else none) }}
{%- endmacro %}


{#-- A batch of pure duplicates inserts nothing, so the storage table's highest batch does not move: then, and only then, the
     mark is kept as a table property, so that the batch is not read for ever. RESTORE takes it back with the rows. --#}
{% macro _cdc_remember_mark(run, newest) -%}
    {%- if run.marks.high_text and newest != run.marks.high_text -%}
        {%- do delta_cdc._cdc_commit_properties(run, {'lakehouse.cdc.watermark': run.marks.high_text}) -%}
    {%- endif -%}
{%- endmacro %}


{#-- Properties of the storage table, in a commit that says again what is applied. Not so after a first load, whose insert may
     have been skipped for that of another run: there the next run asks the rows. --#}
{% macro _cdc_commit_properties(run, properties) -%}
    {%- set note = delta_cdc._cdc_note_setting(run, run.version + 1) if run.marks and (run.exists or not run.first_load) else {} -%}
    {%- if run.is_guarded -%}{%- do delta_cdc._cdc_reset_session() -%}{%- do run.update({'is_guarded': false}) -%}{%- endif -%}
    {%- do delta_cdc._cdc_set_session(note) -%}
    {%- do run_query(delta_cdc.cdc_set_properties(run.storage, properties)) -%}
    {%- do run.update({'version': run.version + 1}) -%}
    {%- if note -%}{%- do delta_cdc._cdc_reset_session() -%}{%- endif -%}
{%- endmacro %}
