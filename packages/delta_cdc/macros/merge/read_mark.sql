{#-- What a merge model has read, kept as one property of its table: {sql, read: {upstream: {table, version, batch, derived_by}},
     derived_by}. It is taken before the model's query runs and written after the merge: a run that dies in between computes
     the same again, and what arrives in between is read again. RESTORE of the model takes it back with the rows. --#}
{% macro upstreams_applied() -%}
    {#- Rendering the query and writing it are two contexts, and one reading of the mark. -#}
    {%- set memory, name = delta_cdc._cdc_run_memory(), 'applied by ' ~ this -%}
    {%- if name not in memory -%}
        {%- set value = run_query("show tblproperties " ~ this ~ " ('lakehouse.upstreams')").rows[0]['value'] -%}
        {%- do memory.update({name: fromjson(value) if value and value.startswith('{') else {}}) -%}
    {%- endif -%}
    {{ return(memory[name]) }}
{%- endmacro %}


{#-- Whether nothing that this model reads has changed since its last run, its own SQL included. --#}
{% macro upstreams_unchanged(now) -%}
    {%- set applied = delta_cdc.upstreams_applied() -%}
    {%- set read = applied.get('read', {}) -%}
    {%- if delta_cdc.model_hash() is none or applied.get('sql') != delta_cdc.model_hash() or read | length != now | length -%}{{ return(false) }}{%- endif -%}
    {%- for id, state in now.items() if not delta_cdc._is_unchanged(state, read.get(id)) -%}{{ return(false) }}{%- endfor -%}
    {{ return(true) }}
{%- endmacro %}


{#-- Whether an upstream is as it was at the last run. --#}
{% macro _is_unchanged(state, was) -%}
    {{ return(was and state.version is not none and was.get('table') == state.table and was.get('version') == state.version) }}
{%- endmacro %}


{#-- Whether a run has to take every key as changed: the model is another, or an upstream may have changed on any key. Where
     upstreams are models of merged keys, what they did key by key is in the marks of the CDC models behind them. --#}
{% macro every_key_changed() -%}
    {%- if 'merge_every_key' not in context -%}
        {%- do context.update({'merge_every_key': delta_cdc._asks_for_every_key()}) -%}
    {%- endif -%}
    {{ return(context['merge_every_key']) }}
{%- endmacro %}


{#-- The same, asked anew. --#}
{% macro _asks_for_every_key() -%}
    {%- if delta_cdc.leaves_no_mark() or not delta_cdc.is_incremental() -%}{{ return(true) }}{%- endif -%}
    {%- set applied = delta_cdc.upstreams_applied() -%}
    {%- if delta_cdc.model_hash() is none or applied.get('sql') != delta_cdc.model_hash() -%}{{ return(true) }}{%- endif -%}
    {%- for id, state in delta_cdc.upstreams().items() -%}
        {%- set was = applied.read.get(id) -%}
        {%- set is_same_table = was and state.version is not none and was.table == state.table -%}
        {%- if not delta_cdc._is_unchanged(state, was) and not (is_same_table and delta_cdc._derived_by(state, was) == was.derived_by) -%}
            {{ return(true) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{%- endmacro %}


{#-- What last changed an upstream on any key at all: of a CDC or a merge model the run that derived all its rows, unless its
     table was restored or written by hand since `was` was read; of anything else its version. Asked after the version. --#}
{% macro _derived_by(state, was=none) -%}
    {%- if state.kind not in ['cdc', 'merge'] or state.version is none -%}{{ return(state.version) }}{%- endif -%}
    {%- if was and not delta_cdc._only_merged_since(state, was) -%}{{ return(state.version) }}{%- endif -%}
    {%- if 'derived_by' not in state and state.kind == 'cdc' -%}
        {%- do state.update({'derived_by': delta_cdc.cdc_derived_by(state.table)}) -%}
    {%- elif 'derived_by' not in state -%}
        {%- set mark = run_query("show tblproperties " ~ state.table ~ " ('lakehouse.upstreams')").rows[0]['value'] -%}
        {%- do state.update({'derived_by': fromjson(mark).get('derived_by') if mark and mark.startswith('{') else state.version}) -%}
    {%- endif -%}
    {{ return(state.derived_by) }}
{%- endmacro %}


{#-- RESTORE takes rows back, and the marks of its readers stay: so the commits since then are looked at, once. --#}
{% macro _only_merged_since(state, was) -%}
    {%- if was.version is none -%}{{ return(false) }}{%- endif -%}
    {%- if state.get('merged_since') != was.version -%}
        {%- set now, then = state.version.split('@')[0] | int, was.version.split('@')[0] | int -%}
        {%- set merged = [] -%}
        {%- set commits = [] if now <= then else state.commits if now - then <= state.commits | length
            else run_query('describe history ' ~ state.table ~ ' limit ' ~ (now - then)).rows -%}
        {%- for commit in commits -%}
            {%- if then < commit['version'] | int <= now and commit['operation'] in [
                    'MERGE', 'OPTIMIZE', 'VACUUM START', 'VACUUM END', 'SET TBLPROPERTIES', 'UNSET TBLPROPERTIES', 'ADD COLUMNS',
                    'CHANGE COLUMN', 'CHANGE COLUMNS', 'UPGRADE PROTOCOL', 'REORG', 'CLUSTER BY', 'COMPUTE STATS'] -%}
                {%- do merged.append(commit['version']) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- if not merged or merged | length != now - then -%}{{ return(false) }}{%- endif -%}
        {%- do state.update({'merged_since': was.version}) -%}
    {%- endif -%}
    {{ return(true) }}
{%- endmacro %}


{#-- Adds to what upstreams() returned how far each CDC model's batches go, and what derived its rows; read only when a run has
     something to do. --#}
{% macro add_upstream_batches(now) -%}
    {%- for state in now.values() if state.version is not none -%}
        {%- do delta_cdc._derived_by(state) -%}
        {%- if state.kind == 'cdc' and 'batch' not in state -%}
            {#- A later row's batch is above the mark of the last commit, if that is a noted one; else the rows are asked. -#}
            {%- set mark = delta_cdc.cdc_read_note(state.commits[0], state.table).get('mark') or '' -%}
            {%- set batch = mark[1:] if modules.re.fullmatch('=[0-9]+', mark) else run_query('select coalesce(max(_cdc_batch_id), 0) from '
                ~ state.table ~ ' version as of ' ~ state.version.split('@')[0]).rows[0][0] -%}
            {%- do state.update({'batch': batch | int}) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{#-- Writes what was read. `every_key`: all rows were computed anew, so whoever reads this table by keys reads all of it. --#}
{% macro remember_upstreams(now, every_key) -%}
    {%- set read = {} -%}
    {%- for id, state in now.items() -%}
        {%- do read.update({id: {'table': state.table, 'version': state.version, 'batch': state.get('batch'), 'derived_by': delta_cdc._derived_by(state)}}) -%}
    {%- endfor -%}
    {%- set value = tojson({
        'sql': delta_cdc.model_hash(), 'read': read, 'derived_by': invocation_id if every_key else delta_cdc.upstreams_applied().get('derived_by'),
    }, sort_keys=true) -%}
    {%- do run_query("alter table " ~ this ~ " set tblproperties ('lakehouse.upstreams' = '" ~ value ~ "')") -%}
{%- endmacro %}


{#-- Takes the mark away before rows are written that it would not tell of: the next run reads everything. --#}
{% macro forget_upstreams() -%}
    {%- do run_query("alter table " ~ this ~ " unset tblproperties if exists ('lakehouse.upstreams')") -%}
{%- endmacro %}


{#-- --empty and --sample read a part of what is there. dbt 1.11 has no SAMPLE among `flags`. --#}
{% macro reads_a_part() -%}
    {{ return(flags.EMPTY is true or invocation_args_dict.get('sample') is not none) }}
{%- endmacro %}


{#-- … and --defer another environment's tables: none of them says anything about the tables of this one. --#}
{% macro leaves_no_mark() -%}
    {{ return(delta_cdc.reads_a_part() or flags.DEFER is true) }}
{%- endmacro %}
