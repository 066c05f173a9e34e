{#-- Applies the new events of a CDC model: the runner behind both strategies. Every statement's SQL comes from the macros
     in the numbered folders; here is only their order. Returns the counts, the message for dbt's console line, and the
     statements that make the model's views.

       1 validate, 2 read what is applied, 3 stage the new events (source evaluated once) and survey them,
       4 one MERGE: of the events in order (5_timeline/in_order.sql), else of their keys' whole timeline
         (5_timeline/cdc_timeline.sql), 5 views

     `run` is what the steps hand on: options `o`, `storage`, `exists`, `first_load`, `stored` (cdc_reconcile_storage;
     where the last commit's note says that the table `is_as_noted`, only once there is something to apply), the table's last
     `commit` and `version`, what is `applied` (cdc_applied) and its mark `low`, the cached events `staged`, their `profile`, how
     far they are read (`marks`) and, read so far, `stage`; `diff` and `found` are names of the long way's temporary views. --#}
{% macro cdc_apply(model_sql) -%}
    {%- set clock = namespace(last=modules.datetime.datetime.now(), steps=[]) -%}
    {%- set o = delta_cdc.cdc_options(config, delta_cdc._cdc_describe_query(model_sql), model.unrendered_config.get('on_schema_change', 'append_new_columns')) -%}
    {%- do delta_cdc._cdc_refuse_what_cannot_work(o) -%}
    {%- do delta_cdc.cdc_check_contract(o, model_sql) -%}
    {%- set run = delta_cdc._cdc_begin(o) -%}
    {%- set is_old_news = delta_cdc._cdc_is_old_news(run, model_sql) -%}
    {%- do delta_cdc._cdc_lap(clock, 'marks') -%}

    {%- set profile = {'rows_read': 0} if is_old_news else delta_cdc._cdc_stage_events(run, model_sql) -%}
    {%- if o.watermark and not run.first_load and profile['rows_read'] == 0 and not run.stored.rederive -%}
        {%- if not is_old_news and run.low is not none -%}{%- do delta_cdc._cdc_refuse_a_mark_ahead(o, run.low) -%}{%- endif -%}
        {%- do delta_cdc.cdc_alter_storage(run) -%}
        {%- do delta_cdc.cdc_keep_views(run) -%}
        {%- if not is_old_news -%}{%- do delta_cdc._cdc_drop_staged(run) -%}{%- endif -%}
        {{ return({'counts': {'read': 0}, 'message': 'nothing new' ~ delta_cdc._cdc_seconds(clock), 'views': delta_cdc._cdc_views(o, run.storage, run.stored).statements}) }}
    {%- endif -%}
    {%- do run.update({'profile': profile, 'marks': delta_cdc._cdc_marks(o, run.applied, run.low, profile)}) -%}
    {%- do run.update({'stage': delta_cdc.cdc_bounded_stage(o, run.events, run.marks.high)}) -%}
    {%- do delta_cdc._cdc_stop_on_bad_events(run) -%}
    {%- if o.full_extracts -%}{%- do delta_cdc._cdc_stop_on_bad_extracts(run) -%}{%- endif -%}
    {%- set in_order = delta_cdc.cdc_may_go_in_order(run) -%}
    {%- if run.is_as_noted and not (in_order and delta_cdc._cdc_is_schema_noted(run)) -%}
        {%- do run.update({'stored': delta_cdc.cdc_reconcile_storage(o, run.storage, run.commit), 'is_as_noted': false}) -%}
    {%- endif -%}
    {%- do delta_cdc._cdc_lap(clock, 'stage') -%}

    {%- set counts = delta_cdc.cdc_apply_in_order(run) if in_order else delta_cdc.cdc_apply_timeline(run, clock) -%}
    {%- do delta_cdc.cdc_alter_storage(run) -%}
    {%- do delta_cdc._cdc_lap(clock, 'write') -%}

    {%- do delta_cdc._cdc_remember_mark(run, counts.newest) -%}
    {%- do delta_cdc.cdc_keep_views(run) -%}
    {%- do delta_cdc._cdc_drop_staged(run) -%}
    {%- do delta_cdc._cdc_lap(clock, 'views') -%}
    {%- set told = delta_cdc._cdc_told(counts) -%}
    {{ return({
        'counts': told, 'message': delta_cdc._cdc_message(told) ~ ((', in one pass' if run.first_load else ', in order') if in_order) ~ delta_cdc._cdc_seconds(clock),
        'views': delta_cdc._cdc_views(o, run.storage, run.stored).statements,
    }) }}
{%- endmacro %}


{#-- Whether nothing is new, by one look at the source, where the table and its views are of this very model. --#}
{% macro _cdc_is_old_news(run, model_sql) -%}
    {%- if not run.is_as_noted or run.low is none -%}{{ return(false) }}{%- endif -%}
    {%- set news = run_query(delta_cdc.cdc_news(run.o, model_sql, run.low)).rows[0] -%}
    {%- if news['rows_read'] == 0 and news['rows_at_mark'] == 0 -%}{%- do delta_cdc._cdc_refuse_a_mark_ahead(run.o, run.low) -%}{%- endif -%}
    {%- do run.update({'is_small': news['rows_read'] <= 20000}) -%}
    {{ return(news['rows_read'] == 0) }}
{%- endmacro %}


{#-- Caches the new events and returns their profile. Those of a first load are surveyed as they are: in order, they are read once
     more by the statement that writes them, and no million rows wait in memory. Rows and keys of full extracts are cached by
     themselves, so that source and storage are read once. --#}
{% macro _cdc_stage_events(run, model_sql) -%}
    {%- set o = run.o -%}
    {%- set query = delta_cdc.cdc_stage(o, model_sql, run.low, run.is_small) -%}
    {%- if run.first_load and o.watermark and not o.full_extracts and delta_cdc._cdc_has_reach(o) -%}
        {%- do run.update({'events': '(\n' ~ query ~ '\n) as staged'}) -%}
        {%- set profile = run_query(delta_cdc.cdc_survey(o, run.events, none, is_first=true)).rows[0].dict() -%}
        {%- if profile['in_order'] -%}{{ return(profile) }}{%- endif -%}
    {%- endif -%}
    {%- set arrived = run.staged ~ ('_rows' if o.full_extracts else '') -%}
    {%- do run_query('cache lazy table ' ~ arrived ~ ' as ' ~ query) -%}
    {%- do run.update({'events': run.staged}) -%}
    {%- if o.full_extracts -%}
        {%- set members, stored = run.staged ~ '_members', none if run.first_load else delta_cdc.cdc_stored_rows(run) -%}
        {%- do run_query('cache lazy table ' ~ members ~ ' as ' ~ delta_cdc.cdc_extract_members(o, arrived, stored)) -%}
        {%- do run_query('cache lazy table ' ~ run.staged ~ ' as ' ~ delta_cdc.cdc_extracted_events(o, arrived, members)) -%}
    {%- endif -%}
    {{ return(run_query(
        delta_cdc.cdc_survey(o, run.staged, run.applied.reach) if o.watermark and not run.first_load else delta_cdc.cdc_stage_profile(o, run.staged)).rows[0].dict()) }}
{%- endmacro %}


{#-- Drops what is cached of the new events. --#}
{% macro _cdc_drop_staged(run) -%}
    {%- for name in [''] + (['_members', '_rows'] if run.o.full_extracts else []) -%}{%- do delta_cdc._cdc_drop_temporary(run.staged ~ name) -%}{%- endfor -%}
{%- endmacro %}


{#-- What is there before the new events are read. --#}
{% macro _cdc_begin(o) -%}
    {%- if not delta_cdc._cdc_has_own_session() -%}{%- do delta_cdc._cdc_reset_session() -%}{%- endif -%}
    {%- set storage = delta_cdc._cdc_sibling(this, 'cdc') -%}
    {%- set exists = delta_cdc.standing_relation(storage) is not none -%}
    {%- set first_load = not exists or should_full_refresh() -%}
    {%- set commit = none if first_load else delta_cdc._cdc_last_commit(storage) -%}
    {%- set note = {} if first_load else delta_cdc.cdc_read_note(commit, storage) -%}
    {%- set is_as_noted = not first_load and delta_cdc.cdc_is_as_noted(o, storage, note) -%}
    {%- if first_load -%}
        {%- set stored, applied = {'schemas': [o.payload], 'schema': 0, 'version': none}, {'mark': none, 'run': 1, 'truncates': 0, 'reach': none, 'rows': 0} -%}
    {%- elif is_as_noted -%}
        {%- set stored, applied = {'version': note.version, 'properties': {}, 'rederive': false, 'schema': note.get('schema')}, dict(note, is_noted=true) -%}
    {%- else -%}
        {%- set stored = delta_cdc.cdc_reconcile_storage(o, storage, commit) -%}
        {%- set applied = delta_cdc.cdc_applied(o, storage, stored) -%}
    {%- endif -%}
    {%- set temporary = this.schema ~ '__' ~ this.identifier ~ '__cdc_' ~ local_md5(invocation_id ~ this)[:8] -%}
    {{ return({
        'o': o, 'storage': storage, 'exists': exists, 'first_load': first_load, 'stored': stored, 'version': stored.version,
        'applied': applied, 'marks': none, 'is_as_noted': is_as_noted, 'commit': commit, 'is_small': false, 'inserted': 0, 'is_guarded': false,
        'low': delta_cdc._cdc_low(o, applied, stored), 'staged': temporary ~ '_staged', 'diff': temporary ~ '_diff', 'found': temporary ~ '_moves',
    }) }}
{%- endmacro %}


{#-- Whether a run goes the short way: never after a commit that is not a noted one, which may have changed rows by hand. --#}
{% macro cdc_may_go_in_order(run) -%}
    {%- if run.first_load -%}{{ return(run.profile.get('in_order')) }}{%- endif -%}
    {#- MERGE cannot plan a source whose events were found by reading its own target, as deletes of full extracts are. -#}
    {{ return(run.profile.get('in_order') and run.applied.is_noted and not run.stored.rederive and not run.stored.get('alters') and not run.o.full_extracts) }}
{%- endmacro %}


{#-- Whether the note of the last commit tells all of the table that the short way asks: the number of its schema, and that the
     stored struct of filled values is today's. --#}
{% macro _cdc_is_schema_noted(run) -%}
    {%- if run.stored.schema is none -%}{{ return(false) }}{%- endif -%}
    {%- do run.o.update({'filled': delta_cdc._cdc_fields_to_fill(run.o)}) -%}
    {{ return(true) }}
{%- endmacro %}


{#-- The short way: every open version of a touched key is closed or, as a run goes on, hidden; so the counts are those of MERGE. --#}
{% macro cdc_apply_in_order(run) -%}
    {%- set o, profile = run.o, run.profile -%}
    {%- set counts = {
        'read': profile['rows_read'], 'inserted': profile['rows_read'], 'updated': 0, 'opened': profile['opened'], 'closed': 0,
        'deletes': profile['deletes'], 'clamped': profile['clamped'], 'newest': run.marks.high_text,
    } -%}
    {%- if run.first_load and should_full_refresh() and run.exists -%}{%- do delta_cdc._cdc_refuse_lossy_refresh(o, run.storage, delta_cdc._cdc_text(profile['first_batch'])) -%}{%- endif -%}
    {%- do counts.update({'warned': delta_cdc.cdc_hold_to_limits(o, counts)}) -%}
    {%- do run.update({'inserted': counts.inserted}) -%}
    {%- if run.first_load -%}
        {%- do run.stored.update({'properties': delta_cdc._cdc_new_properties(o, run.storage, run.stored)}) -%}
        {%- do delta_cdc._cdc_load_all(run, '(\n' ~ delta_cdc.cdc_timeline_in_order(run, none) ~ '\n) as timeline', is_placed=true) -%}
        {{ return(counts) }}
    {%- endif -%}
    {%- set predicate = delta_cdc.cdc_range_predicate(delta_cdc._cdc_range_key(o), o.types[delta_cdc._cdc_range_key(o)], delta_cdc._cdc_listed_ranges(profile['ranges']), 'stored') -%}
    {%- set touched = delta_cdc._cdc_find_touched(run) -%}
    {%- if touched -%}{%- set predicate = predicate ~ ' and ' ~ touched -%}{%- endif -%}
    {%- set timeline = delta_cdc.cdc_timeline_in_order(run, predicate) -%}
    {#- Few rows are sent to where the table's are; MERGE cannot know how few, and would sort the table's for the join. -#}
    {%- set source = '(select ' ~ ('/*+ broadcast(timeline) */ ' if profile['rows_read'] <= 100000) ~ '* from (\n' ~ timeline ~ '\n) as timeline)' -%}
    {%- set derived = ['_cdc_batch_id', '_cdc_valid_from', '_cdc_valid_to', '_cdc_visible'] + (['_cdc_filled'] if o.fill else []) -%}
    {%- set merged = delta_cdc._cdc_merge_once(run, delta_cdc.cdc_merge(o, run.storage, source, predicate, derived)) -%}
    {%- if touched and not delta_cdc._cdc_has_own_session() -%}{%- do run_query('drop temporary variable ' ~ run.staged ~ '_keys') -%}{%- endif -%}
    {%- do counts.update({'inserted': merged['num_inserted_rows'], 'updated': merged['num_updated_rows'], 'closed': merged['num_updated_rows']}) -%}
    {{ return(counts) }}
{%- endmacro %}


{#-- The long way, right for events in any order: the whole timeline of every touched key. Returns the counts. --#}
{% macro cdc_apply_timeline(run, clock) -%}
    {%- set o, profile, stored = run.o, run.profile, run.stored -%}
    {%- if should_full_refresh() and run.exists -%}{%- do delta_cdc._cdc_refuse_lossy_refresh(o, run.storage, delta_cdc._cdc_text(profile['first_batch'])) -%}{%- endif -%}
    {%- set counts = {'read': profile['rows_read'], 'inserted': 0, 'updated': 0, 'newest': none} -%}
    {%- if run.first_load or profile['rows_read'] > 0 or stored.rederive -%}
        {%- set plan = delta_cdc.cdc_plan(run) -%}
        {%- do run_query('cache lazy table ' ~ run.diff ~ ' as ' ~ delta_cdc.cdc_timeline(run, plan)) -%}
        {%- do counts.update(delta_cdc._cdc_count_diff(o, run.diff, delta_cdc.cdc_tied_columns(o, plan.state, run.stage, run.diff))) -%}
        {%- do counts.update({'warned': delta_cdc.cdc_hold_to_limits(o, counts)}) -%}
        {%- do run.update({'inserted': counts.inserted}) -%}
        {%- do delta_cdc._cdc_lap(clock, 'timeline') -%}
        {%- if run.first_load -%}
            {%- do stored.update({'properties': delta_cdc._cdc_new_properties(o, run.storage, stored)}) -%}
            {%- do delta_cdc._cdc_load_all(run, run.diff) -%}
        {%- elif counts.inserted + counts.updated > 0 -%}
            {%- do delta_cdc._cdc_merge_once(run, delta_cdc.cdc_merge(o, run.storage, run.diff, plan.predicate, delta_cdc._cdc_physical_columns(o) if counts.updated > 0 else [])) -%}
        {%- endif -%}
        {%- if plan.moves -%}{%- do delta_cdc._cdc_drop_scratch() -%}{%- endif -%}
        {%- do delta_cdc._cdc_drop_temporary(run.diff) -%}
    {%- endif -%}
    {{ return(counts) }}
{%- endmacro %}


{#-- Dropping a temporary view also frees its cache; a node's own session does it when the node is done. Names are this run's
     own: what a failed one leaves is dropped by on-run-end. --#}
{% macro _cdc_drop_temporary(name) -%}
    {%- if not delta_cdc._cdc_has_own_session() -%}{%- do run_query('drop view if exists ' ~ name) -%}{%- endif -%}
{%- endmacro %}


{#-- Names and types of a query's columns. --#}
{% macro _cdc_describe_query(model_sql) -%}
    {%- set columns = [] -%}
    {%- for row in run_query('describe query\n' ~ model_sql).rows -%}
        {%- do columns.append({'name': row[0], 'type': row[1]}) -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}


{#-- SQL that sets table properties, in a commit of its own. --#}
{% macro cdc_set_properties(storage, properties) -%}
    {{ return('alter table ' ~ storage ~ ' set tblproperties (' ~ delta_cdc._cdc_properties(properties) ~ ')') }}
{%- endmacro %}


{#-- Notes the seconds since the step before. --#}
{% macro _cdc_lap(clock, step) -%}
    {%- set now = modules.datetime.datetime.now() -%}
    {%- do clock.steps.append(step ~ ' ' ~ '%.1f' % (now - clock.last).total_seconds()) -%}
    {%- set clock.last = now -%}
{%- endmacro %}


{#-- The seconds of each step, for the console line. --#}
{% macro _cdc_seconds(clock) -%}
    {{ return(' [' ~ clock.steps | join(', ') ~ ' s]') }}
{%- endmacro %}


{#-- The counts that are told, as whole numbers: those that are not 0, and how much was read. --#}
{% macro _cdc_told(counts) -%}
    {%- set told = {} -%}
    {%- for name in ['read', 'duplicates', 'inserted', 'updated', 'opened', 'closed', 'moved', 'deletes', 'late', 'ties', 'clamped', 'warned'] if counts.get(name) or name == 'read' -%}
        {%- do told.update({name: counts.get(name) | int}) -%}
    {%- endfor -%}
    {{ return(told) }}
{%- endmacro %}


{#-- The counts as a text. --#}
{% macro _cdc_message(told) -%}
    {%- set parts = [] -%}
    {%- for name, count in told.items() -%}{%- do parts.append(name ~ ' ' ~ count) -%}{%- endfor -%}
    {{ return(parts | join(', ')) }}
{%- endmacro %}
