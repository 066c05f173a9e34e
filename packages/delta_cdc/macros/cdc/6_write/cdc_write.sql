{#-- A full refresh replaces the table in one commit. A first load replaces nothing: it makes an empty table, which fails where
     there is one, and inserts into it. (`create table … as` alone would not do: it refuses the files that a killed one left.)
     Killed in between, the next run finds an empty table. The insert is guarded like a MERGE: if another run has filled the
     table first, Delta skips it, and that run has read as much of the source or more. --#}
{% macro _cdc_load_all(run, source, is_placed=false) -%}
    {%- set o, storage, properties = run.o, run.storage, run.stored.properties -%}
    {%- set rows = delta_cdc.cdc_first_rows(o, source, run.profile['rows_read'], is_placed) -%}
    {%- if run.exists -%}
        {%- do run.update({'version': run_query('describe history ' ~ storage ~ ' limit 1').rows[0]['version'] | int + 1}) -%}
        {%- do delta_cdc._cdc_set_session(delta_cdc._cdc_note_setting(run, run.version)) -%}
        {%- do run_query(delta_cdc.cdc_create_storage(o, storage, rows, properties, replace=true)) -%}
        {%- do delta_cdc._cdc_reset_session() -%}
    {%- else -%}
        {%- do run_query(delta_cdc.cdc_create_storage(o, storage, delta_cdc.cdc_first_rows(o, source, none), properties)) -%}
        {%- if run.profile['rows_read'] > 0 -%}
            {%- do delta_cdc._cdc_set_session(dict(delta_cdc._cdc_guard(storage, 1), **delta_cdc._cdc_note_setting(run, 1))) -%}
            {%- do run_query('insert into ' ~ storage ~ '\n' ~ rows) -%}
            {%- do delta_cdc._cdc_reset_session() -%}
        {%- endif -%}
        {%- do run.update({'version': 1 if run.profile['rows_read'] > 0 else 0}) -%}
    {%- endif -%}
{%- endmacro %}


{#-- A MERGE, guarded: its Delta transaction number is the version that was read plus one. If another run has committed in
     between, Delta skips this MERGE and returns nothing, and the model fails instead of applying a stale timeline. --#}
{% macro _cdc_merge_once(run, merge) -%}
    {%- do delta_cdc.cdc_alter_storage(run) -%}
    {%- do run.update({'version': run.version + 1}) -%}
    {%- do delta_cdc._cdc_set_session(dict(delta_cdc._cdc_guard(run.storage, run.version), **delta_cdc._cdc_note_setting(run, run.version))) -%}
    {%- set merged = run_query(merge) -%}
    {#- A session of the node's own ends with it: nothing but a hook could still write under this number. -#}
    {%- if delta_cdc._cdc_has_own_session() and not (post_hooks is defined and post_hooks) -%}{%- do run.update({'is_guarded': true}) -%}
    {%- else -%}{%- do delta_cdc._cdc_reset_session() -%}
    {%- endif -%}
    {%- if merged.rows | length == 0 -%}{%- do exceptions.raise_compiler_error(delta_cdc._cdc_rival_text(run.storage)) -%}{%- endif -%}
    {{ return(merged.rows[0]) }}
{%- endmacro %}


{#-- Settings of the transaction number that only one run can write. --#}
{% macro _cdc_guard(storage, version) -%}
    {{ return({'spark.databricks.delta.write.txnAppId': 'cdc:' ~ storage.schema ~ '.' ~ storage.identifier, 'spark.databricks.delta.write.txnVersion': version}) }}
{%- endmacro %}


{#-- The setting that puts the note on the next commit. --#}
{% macro _cdc_note_setting(run, version) -%}
    {%- set note = delta_cdc.cdc_note(run, version) -%}
    {{ return({'spark.databricks.delta.commitInfo.userMetadata': note} if note else {}) }}
{%- endmacro %}


{#-- Sets all of these on the session, in one statement. --#}
{% macro _cdc_set_session(settings) -%}
    {%- set statements = [] -%}
    {%- for name, value in settings.items() -%}{%- do statements.append('set ' ~ name ~ ' = ' ~ value) -%}{%- endfor -%}
    {%- if statements -%}{%- do run_query(delta_cdc.cdc_script(statements)) -%}{%- endif -%}
{%- endmacro %}


{#-- Takes the transaction number and the note off the session. Jinja has no `finally`: after a MERGE that failed they would
     stay, and a later write to one table under that number could be skipped as done. So, where a node has no session of its
     own, it also runs at the start of every CDC model. --#}
{% macro _cdc_reset_session() -%}
    {%- do run_query(delta_cdc.cdc_script([
        'reset spark.databricks.delta.write.txnAppId',
        'reset spark.databricks.delta.write.txnVersion',
        'reset spark.databricks.delta.commitInfo.userMetadata',
    ])) -%}
{%- endmacro %}


{#-- The same after a run's last node, in dbt_project.yml's on-run-end, and the temporary views that failed models left. --#}
{% macro cdc_release_session() -%}
    {%- if execute -%}
        {%- do delta_cdc._cdc_reset_session() -%}
        {%- for row in run_query("show views like '*__cdc_*'").rows if row['isTemporary'] -%}
            {%- do run_query('drop view if exists ' ~ row['viewName']) -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}


{#-- Several statements as one: a round trip instead of one each. --#}
{% macro cdc_script(statements) -%}
begin
    {%- for statement in statements %}
    execute immediate '{{ delta_cdc._cdc_escape(statement) }}';
    {%- endfor %}
end
{%- endmacro %}
