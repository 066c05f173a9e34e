{#-- Refuses, before anything is read, runs that would lose changes. --#}
{% macro _cdc_refuse_what_cannot_work(o) -%}
    {%- if target.threads > 1 and not delta_cdc._cdc_has_own_session() -%}
        {%- do delta_cdc._cdc_fail('threads', '1 for a CDC model (the mark and the guard of its commit are settings of the Spark session, which all'
            ~ ' threads share: one model would write the mark of another, and lose changes)', target.threads,
            'install packages/dbt_spark_sessions, which gives each node a session, or run dbt with --threads 1') -%}
    {%- endif -%}
    {%- set feeds = delta_cdc.cdc_feeds(model.depends_on.nodes, graph) -%}
    {%- if feeds | length > 1 and o.watermark -%}
        {%- do delta_cdc._cdc_fail('sources', 'one (the engine keeps one mark in ' ~ o.watermark ~ '; a table that is behind it would not be read)',
            feeds | join(', '), 'make one CDC model per source and join them downstream') -%}
    {%- endif -%}
    {%- if invocation_args_dict.get('sample') -%}
        {%- do delta_cdc._cdc_fail('--sample', 'no sampling on a CDC model (the watermark would move past the rows left out)', '--sample', 'exclude ' ~ this.identifier) -%}
    {%- endif -%}
    {%- if config.get('grants') -%}
        {%- do exceptions.warn(this ~ ': open-source Spark has no GRANT; `grants` is not applied here. Access is governed in the catalog.') -%}
    {%- endif -%}
{%- endmacro %}


{#-- Whether each node's settings are its own: the plugin in packages/dbt_spark_sessions says so on the session. --#}
{% macro _cdc_has_own_session() -%}
    {%- set memory = delta_cdc._cdc_run_memory() -%}
    {%- if 'own session' not in memory -%}
        {%- do memory.update({'own session': run_query('set dbt.session.own').rows[0]['value'] == 'true'}) -%}
    {%- endif -%}
    {{ return(memory['own session']) }}
{%- endmacro %}


{#-- A mark beyond the source's end hides every batch up to it: it was set by hand, or the source was emptied and made anew.
     Asked only where nothing was read, of the sources behind views and ephemeral models too, where a source itself has the column. --#}
{% macro _cdc_refuse_a_mark_ahead(o, low) -%}
    {%- for id in delta_cdc.cdc_feeds(model.depends_on.nodes, graph) if id in graph.sources -%}
        {%- set source = api.Relation.create(schema=graph.sources[id].schema, identifier=graph.sources[id].identifier) -%}
        {#- Of a source that does not stand dbt says no columns. -#}
        {%- if o.watermark in (adapter.get_columns_in_relation(source) | map(attribute='name') | list) -%}
            {%- set end = run_query("select concat('=', cast(max(`" ~ o.watermark ~ "`) as string)) as batch, max(`" ~ o.watermark
                ~ "`) < " ~ low ~ ' as is_behind, cast(' ~ low ~ ' as string) as mark from ' ~ source).rows[0] -%}
            {%- if end['is_behind'] -%}
                {%- do exceptions.raise_compiler_error(this ~ ': ' ~ o.watermark ~ ' is applied up to ' ~ end['mark'] ~ ' and ' ~ source
                    ~ ' ends at ' ~ delta_cdc._cdc_text(end['batch']) ~ ': what comes below would never be read. Nothing was written. Fix, one of:\n'
                    ~ '  - ' ~ source ~ ' was restored: `lakeops ingest run` takes its lost batches again, under higher numbers.\n'
                    ~ '  - it was made anew: run this model with --full-refresh.\n'
                    ~ "  - the mark was set by hand: `alter table " ~ delta_cdc._cdc_sibling(this, 'cdc') ~ " unset tblproperties ('lakehouse.cdc.watermark')`.") -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{#-- A full refresh rebuilds from bronze; it is refused when bronze no longer reaches back to the first stored batch. --#}
{% macro _cdc_refuse_lossy_refresh(o, storage, first_batch) -%}
    {%- if o.watermark and o.watermark in (adapter.get_columns_in_relation(storage) | map(attribute='name') | list) -%}
        {%- set begins = delta_cdc._cdc_text(run_query("select concat('=', cast(min(`" ~ o.watermark ~ "`) as string)) from " ~ storage).rows[0][0]) -%}
        {%- set lossy = begins and (not first_batch or run_query('select ' ~ delta_cdc.cdc_literal(first_batch, o.batch_type) ~ ' > '
            ~ delta_cdc.cdc_literal(begins, o.batch_type)).rows[0][0]) -%}
        {%- if lossy -%}
            {%- do exceptions.raise_compiler_error(this ~ ': --full-refresh refused. The source begins at ' ~ o.watermark ~ ' '
                ~ (first_batch or '(no rows)') ~ ', ' ~ storage ~ ' at ' ~ begins ~ ': a rebuild would lose the history between. '
                ~ 'Fix: restore the source, or drop ' ~ storage ~ ' by hand if that history is to go.') -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{#-- Events that cannot be placed stop the model before anything is written, with the first three of them. --#}
{% macro _cdc_stop_on_bad_events(run) -%}
    {%- set o, profile = run.o, run.profile -%}
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
        {%- do exceptions.raise_compiler_error(this ~ ': ' ~ stops | join('; ') ~ '. The first: ' ~ (delta_cdc._cdc_text(run_query(delta_cdc.cdc_bad_events(o, run.events)).rows[0][0]) or '-')
            ~ '. Nothing was written. Fix: exclude them in the where clause of the model, or quarantine them at ingestion.') -%}
    {%- endif -%}
{%- endmacro %}
