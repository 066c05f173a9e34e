{#-- What the storage table already is, compared with the model: schema changes by the four words of on_schema_change, wider
     types, changed options. Changes `o` when columns are to be ignored. Nothing is altered yet: `alters` are the statements that
     cdc_alter_storage runs when nothing can stop the run any more, and `lacking` is what the table's rows are read with until
     then (cdc_stored_rows). Returns these, version, commit, properties, schemas (payload columns by number, the last is
     today's), columns for the view, and whether all keys must be re-derived. --#}
{% macro cdc_reconcile_storage(o, storage, commit) -%}
    {%- set properties = delta_cdc._cdc_pairs('show tblproperties ' ~ storage) -%}
    {%- set then = fromjson(properties.get('lakehouse.cdc.options', '{}')) -%}
    {%- do delta_cdc._cdc_refuse_changed_identity(o, then) -%}

    {%- set types = {} -%}
    {%- set before = [] -%}
    {%- for column in adapter.get_columns_in_relation(storage) -%}
        {%- do types.update({column.name: column.dtype}) -%}
        {%- if not column.name.startswith('_cdc_') -%}{%- do before.append(column.name) -%}{%- endif -%}
    {%- endfor -%}
    {%- set filled = delta_cdc._cdc_stored_fields(o, storage, types.get('_cdc_filled')) -%}
    {%- set alters = delta_cdc._cdc_wider_columns(o, storage, types, filled) -%}
    {%- set new = o.stored | reject('in', before) | list -%}
    {%- set gone = before | reject('in', o.stored) | list -%}
    {%- if o.on_schema_change == 'fail' and (new or gone) -%}
        {%- do delta_cdc._cdc_fail('on_schema_change=fail', 'the stored columns (' ~ before | join(', ') ~ ')',
            'new: ' ~ new | join(', ') ~ '; missing: ' ~ gone | join(', '), 'undo the change, or choose another on_schema_change') -%}
    {%- endif -%}
    {%- if o.on_schema_change == 'ignore' -%}
        {%- for part in ['stored', 'attributes', 'tracked', 'ignore_null', 'fill', 'payload'] -%}
            {%- do o.update({part: o[part] | reject('in', new) | list}) -%}
        {%- endfor -%}
    {%- elif o.scd2 and o.effective_at in new -%}
        {%- do delta_cdc._cdc_fail('effective_at', 'a stored column', o.effective_at ~ ' (stored events lack it)', 'run with --full-refresh') -%}
    {%- endif -%}
    {%- if new | select('in', o.attributes) | list -%}{%- do exceptions.warn(delta_cdc._cdc_text_new_columns(new | select('in', o.attributes) | list)) -%}{%- endif -%}
    {%- set added = delta_cdc._cdc_new_columns(o, storage, new | select('in', o.stored) | list, filled, '_cdc_filled' in types, properties) -%}

    {%- set schemas = fromjson(properties.get('lakehouse.cdc.schemas', '[]')) or [o.payload] -%}
    {%- if schemas[-1] | sort != o.payload | sort -%}{%- set schemas = schemas + [o.payload] -%}{%- endif -%}
    {%- set now = delta_cdc._cdc_shape(o) -%}
    {%- set rederive = namespace(needed=false) -%}
    {%- for part, value in now.shape.items() -%}
        {%- set was = then.get('shape', {}).get(part) -%}
        {%- if value != was and (value is string or value | reject('in', new) | sort != was | default([], true) | sort) -%}
            {%- set rederive.needed = true -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if new or gone or now != then or schemas | length != fromjson(properties.get('lakehouse.cdc.schemas', '[]')) | length -%}
        {%- do properties.update({'changed': true}) -%}
    {%- endif -%}
    {{ return({
        'version': commit['version'] | int, 'commit': commit,
        'properties': properties, 'schemas': schemas, 'schema': schemas | length - 1, 'rederive': rederive.needed,
        'columns': o.stored + (gone if o.on_schema_change != 'sync_all_columns' else []),
        'alters': alters + added, 'lacking': delta_cdc._cdc_lacking(o, types, filled) if alters + added else none,
    }) }}
{%- endmacro %}


{#-- What a reader of a new column should know. --#}
{% macro _cdc_text_new_columns(new) -%}
{{ this }}: new column(s) {{ new | join(', ') }}: NULL for the events that are stored already, filled from the next change on.
Fix: to derive them for the whole history, run the model with --full-refresh.
{%- endmacro %}


{#-- What the stored rows are read with, and without, while the table is as it was: a column that it lacks is NULL. --#}
{% macro _cdc_lacking(o, types, filled) -%}
    {%- set columns, fields = [], [] -%}
    {%- for name in o.stored if name not in types -%}{%- do columns.append('cast(null as ' ~ o.types[name] ~ ') as `' ~ name ~ '`') -%}{%- endfor -%}
    {%- for name in o.fill -%}
        {%- do fields.append("'" ~ delta_cdc._cdc_escape(name) ~ "', cast(" ~ ('_cdc_filled.`' ~ name ~ '`' if name in filled else 'null') ~ ' as ' ~ o.types[name] ~ ')') -%}
    {%- endfor -%}
    {%- set has_struct = '_cdc_filled' in types -%}
    {%- if o.fill -%}
        {%- do columns.append((('case when _cdc_filled is not null then named_struct(' ~ fields | join(', ') ~ ') end') if has_struct
            else 'cast(null as ' ~ delta_cdc._cdc_filled_type(o) ~ ')') ~ ' as _cdc_filled') -%}
    {%- endif -%}
    {{ return({'columns': columns, 'without': '_cdc_filled' if o.fill and has_struct else none} if columns else none) }}
{%- endmacro %}


{#-- The stored rows at the version that the run reads, with today's columns. --#}
{% macro cdc_stored_rows(run) -%}
    {%- set table, lacking = run.storage ~ ' version as of ' ~ run.stored.version, run.stored.get('lacking') -%}
    {%- if not lacking -%}{{ return(table) }}{%- endif -%}
    {%- set kept = '*' ~ (' except (' ~ lacking.without ~ ')' if lacking.without) -%}
    {{ return('(select ' ~ kept ~ ', ' ~ lacking.columns | join(', ') ~ ' from ' ~ table ~ ')') }}
{%- endmacro %}


{#-- Runs what cdc_reconcile_storage has found. Each statement is a commit; another commit among them is another run's. --#}
{% macro cdc_alter_storage(run) -%}
    {%- set alters = run.stored.get('alters') or [] -%}
    {%- for statement in alters -%}{%- do run_query(statement) -%}{%- endfor -%}
    {%- if alters -%}
        {%- do run.stored.update({'alters': []}) -%}
        {%- do run.update({'version': run.version + alters | length}) -%}
        {%- if delta_cdc._cdc_last_commit(run.storage)['version'] | int != run.version -%}{%- do exceptions.raise_compiler_error(delta_cdc._cdc_rival_text(run.storage)) -%}{%- endif -%}
    {%- endif -%}
{%- endmacro %}


{#-- The table's last commit. --#}
{% macro _cdc_last_commit(storage) -%}
    {{ return(run_query('describe history ' ~ storage ~ ' limit 1').rows[0]) }}
{%- endmacro %}


{#-- The fields of the stored struct of filled values, in its order. --#}
{% macro _cdc_stored_fields(o, storage, type) -%}
    {%- set fields = {} -%}
    {%- if type == delta_cdc._cdc_filled_type(o) | replace('`', '') -%}
        {%- for name in o.fill -%}{%- do fields.update({name: o.types[name]}) -%}{%- endfor -%}
    {%- elif type -%}
        {%- for field in delta_cdc._cdc_describe_query('select _cdc_filled.* from ' ~ storage) -%}{%- do fields.update({field.name: field.type}) -%}{%- endfor -%}
    {%- endif -%}
    {{ return(fields) }}
{%- endmacro %}


{#-- Statements that add the model's new columns, and to the struct of filled values those it lacks; sets `o.filled`, the
     struct's fields. --#}
{% macro _cdc_new_columns(o, storage, new, filled, has_struct, properties) -%}
    {%- set added, statements = [], [] -%}
    {%- for name in new -%}{%- do added.append('`' ~ name ~ '` ' ~ o.types[name]) -%}{%- endfor -%}
    {%- for name in o.fill if has_struct and name not in filled -%}{%- do added.append('_cdc_filled.`' ~ name ~ '` ' ~ o.types[name]) -%}{%- endfor -%}
    {%- if o.fill and not has_struct -%}{%- do added.append('_cdc_filled ' ~ delta_cdc._cdc_filled_type(o)) -%}{%- endif -%}
    {%- if 'timestamp_ntz' in added | join and 'delta.feature.timestampNtz' not in properties -%}
        {%- do statements.append(delta_cdc.cdc_set_properties(storage, {'delta.feature.timestampNtz': 'supported'})) -%}
    {%- endif -%}
    {%- if added -%}{%- do statements.append('alter table ' ~ storage ~ ' add columns (' ~ added | join(', ') ~ ')') -%}{%- endif -%}
    {%- set fields = [] -%}
    {%- for name in delta_cdc._cdc_distinct(filled.keys() | list + o.fill) -%}{%- do fields.append({'name': name, 'type': filled.get(name) or o.types[name]}) -%}{%- endfor -%}
    {%- do o.update({'filled': fields}) -%}
    {{ return(statements) }}
{%- endmacro %}


{#-- Statements that change a type in place to one that every stored value fits into, as ingestion does with bronze; any other
     is refused. --#}
{% macro _cdc_wider_columns(o, storage, types, filled) -%}
    {%- set wider, statements = {}, [] -%}
    {%- for name in o.stored if name in types and types[name] != o.types[name] -%}
        {%- if o.on_schema_change == 'fail' or not delta_cdc._cdc_widens(types[name], o.types[name]) -%}
            {%- do delta_cdc._cdc_fail('column ' ~ name, types[name] ~ ', as stored', o.types[name], 'cast it in the SELECT, or run with --full-refresh') -%}
        {%- endif -%}
        {%- do wider.update({'`' ~ name ~ '`': o.types[name]}) -%}
        {%- if name in filled -%}{%- do wider.update({'_cdc_filled.`' ~ name ~ '`': o.types[name]}) -%}{%- endif -%}
    {%- endfor -%}
    {%- if wider -%}{%- do statements.append(delta_cdc.cdc_set_properties(storage, {'delta.enableTypeWidening': 'true'})) -%}{%- endif -%}
    {%- for column, type in wider.items() -%}
        {%- do statements.append('alter table ' ~ storage ~ ' alter column ' ~ column ~ ' type ' ~ type) -%}
    {%- endfor -%}
    {{ return(statements) }}
{%- endmacro %}


{#-- The widenings that a contract takes as a minor change (python_ops/lake/contracts/compatibility.py). --#}
{% macro _cdc_widens(old, new) -%}
    {%- set before = modules.re.findall('[0-9]+', old) | map('int') | list -%}
    {%- set after = modules.re.findall('[0-9]+', new) | map('int') | list -%}
    {%- if old.startswith('decimal(') and new.startswith('decimal(') -%}
        {{ return(after[1] >= before[1] and after[0] - after[1] >= before[0] - before[1]) }}
    {%- endif -%}
    {{ return((old, new) == ('int', 'bigint')) }}
{%- endmacro %}


{#-- Stored events were read with these; another meaning needs them read again. --#}
{% macro _cdc_refuse_changed_identity(o, then) -%}
    {%- for part, value in delta_cdc._cdc_shape(o).identity.items() if then and then.identity.get(part) != value -%}
        {%- do delta_cdc._cdc_fail(part, then.identity.get(part) ~ ', as the stored events were read', value, 'run with --full-refresh') -%}
    {%- endfor -%}
{%- endmacro %}


{#-- What the stored rows depend on. `identity`: what the raw events mean. `shape`: how derived columns follow from them. --#}
{% macro _cdc_shape(o) -%}
    {{ return({
        'identity': {'unique_key': o.unique_key, 'sequence_by': o.sequence, 'delete_when': 'a full extract lacks the key' if o.full_extracts else (o.delete_when or '').split() | join(' '),
            'truncate_when': (o.truncate_when or '').split() | join(' '), 'watermark': o.watermark or ''},
        'shape': {'strategy': o.strategy, 'effective_at': o.effective_at or '', 'tracked': o.tracked if o.scd2 else [],
            'ignore_null': o.ignore_null, 'fill': o.fill, 'unsent': o.unsent or '', 'moved_from': o.moved_from},
    }) }}
{%- endmacro %}


{#-- `derived_by`: the dbt invocation that last derived every key; readers that keep a mark take all keys as changed then. --#}
{% macro _cdc_storage_properties(o, stored) -%}
    {%- set derived_anew = stored.version is none or stored.rederive -%}
    {{ return({
        'lakehouse.cdc.options': tojson(delta_cdc._cdc_shape(o), sort_keys=true),
        'lakehouse.cdc.schemas': tojson(stored.schemas),
        'lakehouse.cdc.derived_by': invocation_id if derived_anew else stored.properties.get('lakehouse.cdc.derived_by', ''),
    }) }}
{%- endmacro %}


{#-- The SQL of the two views, and the hash by which the storage table remembers it; a view keeps the types of its making. --#}
{% macro _cdc_views(o, storage, stored) -%}
    {%- set comments = {} -%}
    {%- if config.persist_column_docs() -%}
        {%- for name, column in model.columns.items() -%}{%- do comments.update({name: column.description}) -%}{%- endfor -%}
    {%- endif -%}
    {%- set view_sql = delta_cdc.cdc_view(o, this, storage, stored.get('columns', o.stored), comments, model.description if config.persist_relation_docs() else '') -%}
    {%- set changes_sql = delta_cdc.cdc_changes_view(o, delta_cdc._cdc_sibling(this, 'changes'), storage) -%}
    {%- set types = [] -%}
    {%- for name in o.stored -%}{%- do types.append(o.types[name]) -%}{%- endfor -%}
    {{ return({'statements': [view_sql, changes_sql], 'hash': local_md5(view_sql ~ changes_sql ~ types | join(', '))}) }}
{%- endmacro %}


{#-- Properties of a new storage table. Where no view is there yet, the views' hash is among them, which saves a commit: a
     crash before the views leaves them missing, and a missing view is made whatever the hash says. --#}
{% macro _cdc_new_properties(o, storage, stored) -%}
    {%- set properties = delta_cdc._cdc_storage_properties(o, stored) -%}
    {%- if delta_cdc._cdc_listed('tables', this, ['', '__changes']) == 0 -%}
        {%- do properties.update({'lakehouse.cdc.views': delta_cdc._cdc_views(o, storage, stored).hash}) -%}
    {%- endif -%}
    {{ return(properties) }}
{%- endmacro %}


{#-- Whether both views stand: as dbt listed them when it began, else as the metastore says. --#}
{% macro _cdc_has_views() -%}
    {%- set known = [] -%}
    {%- for relation in [this, delta_cdc._cdc_sibling(this, 'changes')] -%}
        {%- set listed = load_cached_relation(relation) -%}
        {%- if listed is not none and listed.is_view -%}{%- do known.append(listed) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(known | length == 2 or delta_cdc._cdc_listed('views', this, ['', '__changes']) == 2) }}
{%- endmacro %}


{#-- The two views, rewritten only when their text changes or one is missing; then the storage table's properties too, last,
     so that a crash before it only repeats the work. --#}
{% macro cdc_keep_views(run) -%}
    {%- set o, storage, stored = run.o, run.storage, run.stored -%}
    {%- set views = delta_cdc._cdc_views(o, storage, stored) -%}
    {%- set properties = stored.get('properties', {}) -%}
    {%- set is_other = not run.is_as_noted and properties.get('lakehouse.cdc.views') != views.hash -%}
    {%- if is_other or not delta_cdc._cdc_has_views() -%}
        {%- if delta_cdc.stored_as(this) == 'table' -%}
            {%- do log(this ~ ' was a table; it becomes a view on ' ~ storage, info=true) -%}
            {%- do adapter.drop_relation(this.incorporate(type='table')) -%}
        {%- endif -%}
        {%- for statement in views.statements -%}{%- do run_query(statement) -%}{%- endfor -%}
    {%- endif -%}
    {%- if is_other or properties.get('changed') -%}
        {%- set all = delta_cdc._cdc_storage_properties(o, stored) -%}
        {%- do all.update({'lakehouse.cdc.views': views.hash}) -%}
        {%- do properties.update(all) -%}
        {%- do delta_cdc._cdc_commit_properties(run, all) -%}
    {%- endif -%}
{%- endmacro %}
