{#-- Applies the new events of a CDC model: the runner behind both strategies. Every statement's SQL comes from the macros
     beside this one; here is only their order. Returns the counts, and the message for dbt's console line.

       1 validate, 2 read what is applied, 3 stage the new events (source evaluated once) and see how far they reach,
       4 touched keys and their ranges, 5 timeline, 6 one MERGE, 7 views --#}
{% macro cdc_apply(model_sql) -%}
    {%- set clock = namespace(last=modules.datetime.datetime.now(), steps=[]) -%}
    {%- set storage = _cdc_sibling(this, 'cdc') -%}
    {%- set temporary = (this.schema ~ '__' ~ this.identifier) -%}
    {%- set o = cdc_options(config, _cdc_describe_query(model_sql), model.unrendered_config.get('on_schema_change', 'append_new_columns')) -%}
    {%- do _cdc_refuse_what_cannot_work(o) -%}
    {%- do cdc_check_contract(o, model_sql) -%}
    {%- do _cdc_drop_temporary(temporary) -%}
    {%- do cdc_release_session() -%}

    {%- set exists = stored_as(storage) is not none -%}
    {%- set first_load = not exists or should_full_refresh() -%}
    {%- set stored = {'schemas': [o.payload], 'version': none} if first_load else cdc_reconcile_storage(o, storage) -%}
    {%- set applied = {'mark': none, 'run': 1, 'truncates': 0} if first_load else _cdc_applied(o, storage, stored) -%}
    {%- set low = _cdc_low(o, applied, stored) -%}
    {%- do _cdc_lap(clock, 'marks') -%}

    {%- set staged = temporary ~ '__cdc_staged' -%}
    {%- do run_query('cache lazy table ' ~ staged ~ ' as ' ~ cdc_stage(o, model_sql, low)) -%}
    {%- set profile = run_query(cdc_stage_profile(o, staged)).rows[0] -%}
    {%- if not first_load and o.watermark and profile['rows_read'] == 0 and not stored.rederive -%}
        {%- if low is not none -%}{%- do _cdc_refuse_a_mark_ahead(o, low, temporary) -%}{%- endif -%}
        {%- do _cdc_drop_temporary(temporary) -%}
        {%- do cdc_keep_views(o, storage, stored) -%}
        {{ return({'counts': {'read': 0}, 'message': 'nothing new' ~ _cdc_seconds(clock)}) }}
    {%- endif -%}
    {%- set marks = _cdc_marks(o, applied, low, profile) -%}
    {%- set stage = temporary ~ '__cdc_stage' -%}
    {%- do run_query(cdc_bounded_stage(o, stage, staged, marks.high)) -%}
    {%- do _cdc_stop_on_bad_events(o, profile, temporary) -%}
    {%- if should_full_refresh() and exists -%}
        {%- do _cdc_refuse_lossy_refresh(o, storage, _cdc_text(profile['first_batch']), temporary) -%}
    {%- endif -%}
    {%- do _cdc_lap(clock, 'stage') -%}

    {%- set counts = {'read': profile['rows_read'], 'inserted': 0, 'updated': 0, 'newest': none} -%}
    {%- if first_load or profile['rows_read'] > 0 or stored.rederive -%}
        {%- set plan = cdc_plan(o, storage, stage, temporary, stored, marks, profile, first_load) -%}
        {%- set diff = temporary ~ '__cdc_diff' -%}
        {%- do run_query('cache lazy table ' ~ diff ~ ' as ' ~ cdc_timeline(
            o, plan.state, stage, marks.high_or_run, stored.schemas, plan.truncations, plan.chains, plan.moves)) -%}
        {%- do counts.update(_cdc_count_diff(o, diff, cdc_tied_columns(o, plan.state, stage, diff), temporary)) -%}
        {%- do _cdc_lap(clock, 'timeline') -%}
        {%- if first_load -%}
            {%- do stored.update({'properties': _cdc_new_properties(o, storage, stored)}) -%}
            {%- do _cdc_load_all(o, storage, diff, marks, profile, stored, exists) -%}
        {%- elif counts.inserted + counts.updated > 0 -%}
            {%- do _cdc_note_commit(o, marks, profile) -%}
            {%- do _cdc_merge_once(o, storage, diff, plan.predicate, counts, stored.version, temporary) -%}
        {%- endif -%}
        {%- if plan.moves -%}{%- do _cdc_drop_scratch() -%}{%- endif -%}
        {%- do _cdc_lap(clock, 'write') -%}
    {%- endif -%}

    {%- do _cdc_remember_mark(storage, marks, counts.newest) -%}
    {%- do cdc_keep_views(o, storage, stored) -%}
    {%- do _cdc_drop_temporary(temporary) -%}
    {%- do _cdc_lap(clock, 'views') -%}
    {%- set told = _cdc_told(counts) -%}
    {{ return({'counts': told, 'message': _cdc_message(told) ~ _cdc_seconds(clock)}) }}
{%- endmacro %}


{#-- Which rows of the storage table the timeline reads, and under which literal predicates. --#}
{% macro cdc_plan(o, storage, stage, temporary, stored, marks, profile, first_load) -%}
    {%- set pinned = none if first_load else '(select * from ' ~ storage ~ ' version as of ' ~ stored.version ~ ')' -%}
    {%- set has_truncates = o.truncate_when and (profile['truncates'] > 0 or marks.truncates) -%}
    {%- set truncations = cdc_truncations(o, pinned, stage) if has_truncates else none -%}
    {%- set everything = first_load or stored.rederive or profile['truncates'] > 0 -%}
    {%- set touched = namespace(name='(select ' ~ _cdc_columns(o.unique_key) ~ ' from ' ~ stage ~ ' where not _cdc_truncate)') -%}

    {%- set moves = _cdc_find_moves(o, pinned, stage, temporary) if o.moved_from and o.fill else none -%}
    {%- set taken = namespace(moves=moves) -%}
    {%- if moves and not everything -%}
        {%- if _cdc_any_moved(o, touched.name, moves) -%}
            {%- set touched.name = '(' ~ touched.name[1:-1] ~ ' union all ' ~ cdc_moved_keys(o, moves) ~ ')' -%}
        {%- else -%}
            {%- set taken.moves = none -%}
        {%- endif -%}
    {%- endif -%}

    {%- set ranges = [] if everything else _cdc_find_ranges(o, touched.name) -%}
    {%- set predicate = cdc_range_predicate(_cdc_range_key(o), o.types[_cdc_range_key(o)], ranges, 'stored', has_truncates) if ranges else 'true' -%}
    {%- set state = pinned ~ ' as stored' if everything and pinned else none if first_load
        else cdc_state(o, storage, stored.version, touched.name, predicate, has_truncates) -%}
    {%- set chains = _cdc_find_chains(o, state, stage, stored.schemas, truncations, taken.moves) if taken.moves else none -%}
    {{ return({'state': state, 'predicate': predicate, 'truncations': truncations, 'moves': taken.moves, 'chains': chains}) }}
{%- endmacro %}


{#-- Stored events of the touched keys; stored truncates belong to every key. --#}
{% macro cdc_state(o, storage, version, touched, predicate, has_truncates) -%}
(
    select stored.*
    from {{ storage }} version as of {{ version }} as stored
    left semi join {{ touched }} as touched on {{ _cdc_equal(o.unique_key, 'stored', 'touched') }}
    where {{ predicate }}
    {%- if has_truncates %}
    union all
    select * from {{ storage }} version as of {{ version }} where `{{ o.unique_key[0] }}` is null and _cdc_truncate
    {%- endif %}
) as state
{%- endmacro %}


{#-- Every truncate once, stored or new. --#}
{% macro cdc_truncations(o, pinned, stage) -%}
{%- set columns -%}{{ _cdc_columns(o.sequence) }}{{ ', `' ~ o.effective_at ~ '` as _cdc_truncated_at' if o.scd2 }}{%- endset -%}
(
    select {{ _cdc_columns(o.sequence) }}{{ ', min(_cdc_truncated_at) as _cdc_truncated_at' if o.scd2 }}
    from (
        {% if pinned -%}
        select {{ columns }} from {{ pinned }} where `{{ o.unique_key[0] }}` is null and _cdc_truncate
        union all
        {% endif -%}
        select {{ columns }} from {{ stage }} where _cdc_truncate
    )
    group by {{ _cdc_columns(o.sequence) }}
)
{%- endmacro %}


{#-- What the storage table's rows say, without reading them when its last commit is ours and says it (its note). After any
     other commit, maintenance, RESTORE and statements by hand among them, the rows are asked. --#}
{% macro _cdc_applied(o, storage, stored) -%}
    {%- set note = stored.commit_note or '' -%}
    {%- if note.startswith('{"lakehouse.cdc":') -%}{{ return(fromjson(note)['lakehouse.cdc']) }}{%- endif -%}
    {{ return(run_query(
        'select ' ~ ("concat('=', cast(max(`" ~ o.watermark ~ "`) as string))" if o.watermark else 'cast(null as string)') ~ ' as mark,'
        ~ (' cast(null as bigint)' if o.watermark else ' coalesce(max(_cdc_batch_id), 0) + 1') ~ ' as run,'
        ~ ' count_if(`' ~ o.unique_key[0] ~ '` is null) as truncates from ' ~ storage).rows[0].dict()) }}
{%- endmacro %}


{#-- The highest watermark applied, as a literal; none before the first load. --#}
{% macro _cdc_low(o, applied, stored) -%}
    {%- set lows = [] -%}
    {%- for text in [_cdc_text(applied['mark']), stored.get('properties', {}).get('lakehouse.cdc.watermark')] if o.watermark and text -%}
        {%- do lows.append(cdc_literal(text, o.batch_type)) -%}
    {%- endfor -%}
    {{ return(none if not lows else lows[0] if lows | length == 1 else 'greatest(' ~ lows | join(', ') ~ ')') }}
{%- endmacro %}


{#-- A mark beyond the source's end hides every batch up to it: it was set by hand, or the source was emptied and made anew.
     Asked only where nothing was read, of the sources behind views and ephemeral models too, where a source itself has the column. --#}
{% macro _cdc_refuse_a_mark_ahead(o, low, temporary) -%}
    {%- for id in cdc_feeds(model.depends_on.nodes, graph) if id in graph.sources -%}
        {%- set source = api.Relation.create(schema=graph.sources[id].schema, identifier=graph.sources[id].identifier) -%}
        {%- if stored_as(source) is not none and o.watermark in (adapter.get_columns_in_relation(source) | map(attribute='name') | list) -%}
            {%- set end = run_query("select concat('=', cast(max(`" ~ o.watermark ~ "`) as string)) as batch, max(`" ~ o.watermark
                ~ "`) < " ~ low ~ ' as is_behind, cast(' ~ low ~ ' as string) as mark from ' ~ source).rows[0] -%}
            {%- if end['is_behind'] -%}
                {%- do _cdc_drop_temporary(temporary) -%}
                {%- do exceptions.raise_compiler_error(this ~ ': ' ~ o.watermark ~ ' is applied up to ' ~ end['mark'] ~ ' and ' ~ source
                    ~ ' ends at ' ~ _cdc_text(end['batch']) ~ ': what comes below would never be read. Nothing was written. Fix, one of:\n'
                    ~ '  - ' ~ source ~ ' was restored: `lakeops ingest run` takes its lost batches again, under higher numbers.\n'
                    ~ '  - it was made anew: run this model with --full-refresh.\n'
                    ~ "  - the mark was set by hand: `alter table " ~ _cdc_sibling(this, 'cdc') ~ " unset tblproperties ('lakehouse.cdc.watermark')`.") -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{#-- How far this run reads (`high`), the batch of rows that change without an event of their key, and whether truncates
     are stored. --#}
{% macro _cdc_marks(o, applied, low, profile) -%}
    {%- set high_text = _cdc_text(profile['last_batch']) -%}
    {%- set high = cdc_literal(high_text, o.batch_type) if high_text else none -%}
    {{ return({
        'high': high, 'high_text': high_text, 'truncates': applied['truncates'] > 0,
        'high_or_run': high or low or 'cast(null as ' ~ o.batch_type ~ ')' if o.watermark else applied['run'],
    }) }}
{%- endmacro %}


{#-- Puts that note on the session, for the one commit that follows: how far this run has read. --#}
{% macro _cdc_note_commit(o, marks, profile) -%}
    {%- set note = {
        'mark': '=' ~ marks.high_text if marks.high_text else none,
        'run': none if o.watermark else marks.high_or_run + 1,
        'truncates': 1 if marks.truncates or profile['truncates'] > 0 else 0,
    } -%}
    {%- if (note.mark or note.run) and ';' not in tojson(note) -%}
        {%- do run_query('set spark.databricks.delta.commitInfo.userMetadata = ' ~ tojson({'lakehouse.cdc': note})) -%}
    {%- endif -%}
{%- endmacro %}


{#-- A batch of pure duplicates inserts nothing, so the storage table's highest batch does not move: then, and only then, the
     mark is kept as a table property, so that the batch is not read for ever. RESTORE takes it back with the rows. --#}
{% macro _cdc_remember_mark(storage, marks, newest) -%}
    {%- if marks.high_text and newest != marks.high_text -%}
        {%- do _cdc_set_properties(storage, {'lakehouse.cdc.watermark': marks.high_text}) -%}
    {%- endif -%}
{%- endmacro %}


{#-- A full refresh replaces the table in one commit. A first load replaces nothing: it makes an empty table, which fails where
     there is one, and inserts into it. (`create table … as` alone would not do: it refuses the files that a killed one left.)
     Killed in between, the next run finds an empty table. The insert is guarded like a MERGE: if another run has filled the
     table first, Delta skips it, and that run has read as much of the source or more. --#}
{% macro _cdc_load_all(o, storage, diff, marks, profile, stored, exists) -%}
    {%- if not exists -%}
        {%- do run_query(cdc_create_storage(o, storage, cdc_first_rows(o, diff, none), stored.properties)) -%}
        {%- do _cdc_guard(storage, 0) -%}
    {%- endif -%}
    {%- do _cdc_note_commit(o, marks, profile) -%}
    {%- set rows = cdc_first_rows(o, diff, profile['rows_read']) -%}
    {%- if exists -%}
        {%- do run_query(cdc_create_storage(o, storage, rows, stored.properties, replace=true)) -%}
    {%- elif profile['rows_read'] > 0 -%}
        {%- do run_query('insert into ' ~ storage ~ '\n' ~ rows) -%}
    {%- endif -%}
    {%- do cdc_release_session() -%}
{%- endmacro %}


{#-- The MERGE, guarded: its Delta transaction number is the version that was read plus one. If another run has committed in
     between, Delta skips this MERGE and returns nothing, and the model fails instead of applying a stale timeline. --#}
{% macro _cdc_merge_once(o, storage, diff, predicate, counts, version, temporary) -%}
    {%- do _cdc_guard(storage, version) -%}
    {%- set merged = run_query(cdc_merge(o, storage, diff, predicate, counts.updated > 0)) -%}
    {%- do cdc_release_session() -%}
    {%- if merged.rows | length == 0 -%}
        {%- do _cdc_drop_temporary(temporary) -%}
        {%- do exceptions.raise_compiler_error(
            storage ~ ': another run changed this table while this one was reading it. Nothing was written. Fix: run the model again.') -%}
    {%- endif -%}
{%- endmacro %}


{% macro _cdc_guard(storage, version) -%}
    {%- do run_query("set spark.databricks.delta.write.txnAppId = cdc:" ~ storage.schema ~ '.' ~ storage.identifier) -%}
    {%- do run_query("set spark.databricks.delta.write.txnVersion = " ~ (version + 1)) -%}
{%- endmacro %}


{#-- Takes the transaction number and the note off the session. Jinja has no `finally`: after a MERGE that failed they would
     stay, and a later write to one table under that number could be skipped as done. So it also runs at the start of every
     CDC model and in dbt_project.yml's on-run-end. --#}
{% macro cdc_release_session() -%}
    {%- if execute -%}
        {%- do run_query('reset spark.databricks.delta.write.txnAppId') -%}
        {%- do run_query('reset spark.databricks.delta.write.txnVersion') -%}
        {%- do run_query('reset spark.databricks.delta.commitInfo.userMetadata') -%}
    {%- endif -%}
{%- endmacro %}


{#-- Counts of the timeline; ties stop the model here, before anything is written. --#}
{% macro _cdc_count_diff(o, diff, tied_columns, temporary) -%}
    {%- set row = run_query(
        "select coalesce(sum(_cdc_new_copies), 0) - count_if(_cdc_insert) as duplicates, count_if(_cdc_insert) as inserted,"
        ~ " count_if(_cdc_update) as updated, count_if(_cdc_tied and _cdc_new_copies > 0) as ties, count_if(_cdc_clamped) as clamped,"
        ~ " count_if(_cdc_late) as late, count_if(_cdc_insert and _cdc_deleted) as deletes, count_if(_cdc_opens) as opened,"
        ~ " count_if(_cdc_closes) as closed, count_if(_cdc_update and not _cdc_opens and not _cdc_closes) as moved,"
        ~ (" concat('=', cast(max(case when _cdc_insert then `" ~ o.watermark ~ "` end) as string))" if o.watermark else " cast(null as string)")
        ~ " as newest, concat('=', cast(slice(collect_list(case when _cdc_tied and _cdc_new_copies > 0 then struct("
        ~ _cdc_columns(o.unique_key + o.sequence) ~ ") end), 1, 3) as string)) as examples from " ~ diff).rows[0] -%}
    {%- set counts = dict(row.dict()) -%}
    {%- do counts.update({'newest': _cdc_text(row['newest'])}) -%}
    {%- if row['ties'] > 0 and o.on_tie == 'warn' -%}
        {%- do exceptions.warn(this ~ ': ' ~ row['ties'] ~ ' tie(s) resolved by on_tie=warn. The first: ' ~ _cdc_text(row['examples'])) -%}
    {%- elif row['ties'] > 0 -%}
        {%- set differ = _cdc_text(run_query(tied_columns).rows[0][0]) or 'what deletes or truncates' -%}
        {%- set told -%}
{{ this }}: {{ row['ties'] }} tie(s): events with the same key and sequence, and different payloads. They differ in: {{ differ }}. The first: {{ _cdc_text(row['examples']) }}.
Expected one payload per key and sequence. Nothing was written. Fix, one of:
  - if such a column does not describe the change (a time of reading, say), leave it out of the SELECT or give it a name that begins with `_`.
  - exclude the wrong event in the model's where clause; if the wrong one is stored already, also
    `delete from {{ _cdc_sibling(this, 'cdc') }} where <key and sequence>`; the next run re-derives the key. No full refresh is needed.
  - config(on_tie='warn'): a delete wins, else a stable hash of the payload, the same in every order and batching.
        {%- endset -%}
        {%- do _cdc_drop_temporary(temporary) -%}
        {%- do exceptions.raise_compiler_error(told) -%}
    {%- endif -%}
    {{ return(counts) }}
{%- endmacro %}


{#-- Which columns the tied events differ in, asked only when there are ties. --#}
{% macro cdc_tied_columns(o, state, stage, diff) -%}
with events as (
    {%- for relation in [state, stage] if relation %}
    select {{ _cdc_columns(_cdc_distinct(o.unique_key + o.sequence + o.payload)) }} from {{ relation }}
    {{- ' union all' if not loop.last }}
    {%- endfor %}
),

tied as (
    select distinct {{ _cdc_columns(o.unique_key + o.sequence) }} from {{ diff }} where _cdc_tied and _cdc_new_copies > 0
),

differing as (
    select
        {%- for name in o.payload %}
        not (min(struct(events.`{{ name }}`)) <=> max(struct(events.`{{ name }}`))) as `{{ name }}`,
        {%- endfor %}
        count(*) as copies
    from events
    inner join tied on {{ _cdc_equal(o.unique_key + o.sequence, 'events', 'tied') }}
    group by {{ _cdc_columns(o.unique_key + o.sequence, 'events') }}
)

select concat('=', nullif(concat_ws(', '
    {%- for name in o.payload %}, max(case when `{{ name }}` then '{{ _cdc_escape(name) }}' end){% endfor -%}
), ''))
from differing
{%- endmacro %}


{% macro _cdc_stop_on_bad_events(o, profile, temporary) -%}
    {%- set stops = [] -%}
    {%- if profile['null_keys'] -%}{%- do stops.append(profile['null_keys'] ~ ' event(s) without a key (' ~ o.unique_key | join(', ') ~ ')') -%}{%- endif -%}
    {%- if profile['null_sequences'] -%}{%- do stops.append(profile['null_sequences'] ~ ' event(s) without a sequence (' ~ o.sequence | join(', ') ~ ')') -%}{%- endif -%}
    {%- if profile['null_effective'] -%}{%- do stops.append(profile['null_effective'] ~ ' event(s) without ' ~ o.effective_at) -%}{%- endif -%}
    {%- if profile['null_watermarks'] -%}{%- do stops.append(profile['null_watermarks'] ~ ' event(s) without ' ~ o.watermark) -%}{%- endif -%}
    {%- if profile['in_future'] and o.on_tie == 'error' -%}
        {%- do stops.append(profile['in_future'] ~ ' event(s) whose ' ~ o.effective_at ~ ' is more than a day after their arrival'
            ~ " (if the clock of ingestion was wrong, config(on_tie='warn') takes them)") -%}
    {%- elif profile['in_future'] -%}
        {%- do exceptions.warn(this ~ ': ' ~ profile['in_future'] ~ ' event(s) are effective more than a day after their arrival; later versions start no earlier.') -%}
    {%- endif -%}
    {%- if stops -%}
        {%- do _cdc_drop_temporary(temporary) -%}
        {%- do exceptions.raise_compiler_error(this ~ ': ' ~ stops | join('; ') ~ '. The first: ' ~ (_cdc_text(profile['examples']) or '-')
            ~ '. Nothing was written. Fix: exclude them in the where clause of the model, or quarantine them at ingestion.') -%}
    {%- endif -%}
{%- endmacro %}


{% macro _cdc_refuse_what_cannot_work(o) -%}
    {%- if target.threads > 1 and not _cdc_has_own_session() -%}
        {%- do _cdc_fail('threads', '1 for a CDC model (the mark and the guard of its commit are settings of the Spark session, which all'
            ~ ' threads share: one model would write the mark of another, and lose changes)', target.threads,
            'install packages/dbt_spark_sessions, which gives each node a session, or run dbt with --threads 1') -%}
    {%- endif -%}
    {%- set feeds = cdc_feeds(model.depends_on.nodes, graph) -%}
    {%- if feeds | length > 1 and o.watermark -%}
        {%- do _cdc_fail('sources', 'one (the engine keeps one mark in ' ~ o.watermark ~ '; a table that is behind it would not be read)',
            feeds | join(', '), 'make one CDC model per source and join them downstream') -%}
    {%- endif -%}
    {%- if invocation_args_dict.get('sample') -%}
        {%- do _cdc_fail('--sample', 'no sampling on a CDC model (the watermark would move past the rows left out)', '--sample', 'exclude ' ~ this.identifier) -%}
    {%- endif -%}
    {%- if config.get('grants') -%}
        {%- do exceptions.warn(this ~ ': open-source Spark has no GRANT; `grants` is not applied here. Access is governed in the catalog.') -%}
    {%- endif -%}
{%- endmacro %}


{#-- Whether this node's settings are its own: the plugin in packages/dbt_spark_sessions says so on the session. --#}
{% macro _cdc_has_own_session() -%}
    {{ return(run_query('set dbt.session.own').rows[0]['value'] == 'true') }}
{%- endmacro %}


{#-- A full refresh rebuilds from bronze; it is refused when bronze no longer reaches back to the first stored batch. --#}
{% macro _cdc_refuse_lossy_refresh(o, storage, first_batch, temporary) -%}
    {%- if o.watermark and o.watermark in (adapter.get_columns_in_relation(storage) | map(attribute='name') | list) -%}
        {%- set begins = _cdc_text(run_query("select concat('=', cast(min(`" ~ o.watermark ~ "`) as string)) from " ~ storage).rows[0][0]) -%}
        {%- set lossy = begins and (not first_batch or run_query('select ' ~ cdc_literal(first_batch, o.batch_type) ~ ' > '
            ~ cdc_literal(begins, o.batch_type)).rows[0][0]) -%}
        {%- if lossy -%}
            {%- do _cdc_drop_temporary(temporary) -%}
            {%- do exceptions.raise_compiler_error(this ~ ': --full-refresh refused. The source begins at ' ~ o.watermark ~ ' '
                ~ (first_batch or '(no rows)') ~ ', ' ~ storage ~ ' at ' ~ begins ~ ': a rebuild would lose the history between. '
                ~ 'Fix: restore the source, or drop ' ~ storage ~ ' by hand if that history is to go.') -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{% macro _cdc_describe_query(model_sql) -%}
    {%- set columns = [] -%}
    {%- for row in run_query('describe query\n' ~ model_sql).rows -%}
        {%- do columns.append({'name': row[0], 'type': row[1]}) -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}


{#-- Dropping a temporary view also frees its cache. --#}
{% macro _cdc_drop_temporary(temporary) -%}
    {%- for row in run_query("show views like '" ~ temporary ~ "__cdc_*'").rows if row['isTemporary'] -%}
        {%- do run_query('drop view if exists ' ~ row['viewName']) -%}
    {%- endfor -%}
{%- endmacro %}


{% macro _cdc_set_properties(storage, properties) -%}
    {%- do run_query('alter table ' ~ storage ~ ' set tblproperties (' ~ _cdc_properties(properties) ~ ')') -%}
{%- endmacro %}


{% macro _cdc_lap(clock, step) -%}
    {%- set now = modules.datetime.datetime.now() -%}
    {%- do clock.steps.append(step ~ ' ' ~ '%.1f' % (now - clock.last).total_seconds()) -%}
    {%- set clock.last = now -%}
{%- endmacro %}


{% macro _cdc_seconds(clock) -%}
    {{ return(' [' ~ clock.steps | join(', ') ~ ' s]') }}
{%- endmacro %}


{#-- The counts that are told, as whole numbers: those that are not 0, and how much was read. --#}
{% macro _cdc_told(counts) -%}
    {%- set told = {} -%}
    {%- for name in ['read', 'duplicates', 'inserted', 'updated', 'opened', 'closed', 'moved', 'deletes', 'late', 'ties', 'clamped'] if counts.get(name) or name == 'read' -%}
        {%- do told.update({name: counts.get(name) | int}) -%}
    {%- endfor -%}
    {{ return(told) }}
{%- endmacro %}


{% macro _cdc_message(told) -%}
    {%- set parts = [] -%}
    {%- for name, count in told.items() -%}{%- do parts.append(name ~ ' ' ~ count) -%}{%- endfor -%}
    {{ return(parts | join(', ')) }}
{%- endmacro %}
