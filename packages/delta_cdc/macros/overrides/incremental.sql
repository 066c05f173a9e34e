{#-- The root project's `incremental`: the two CDC strategies are ours; a merge model whose upstreams have not changed is not
     run; everything else is dbt-spark's own. dbt-spark has a fixed list of strategies and does not dispatch it (dbt-spark
     1.11, strategies.sql); delete this override when it does. --#}
{% materialization incremental, adapter='spark', supported_languages=['sql', 'python'] -%}
    {%- set strategy = config.get('incremental_strategy') -%}
    {%- do delta_cdc._check_strategy(strategy) -%}
    {%- if strategy in ['cdc_scd1', 'cdc_scd2', 'merge'] -%}{%- do delta_cdc.check_config_keys(model.config, strategy) -%}{%- endif -%}
    {%- if strategy in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ run_hooks(pre_hooks) }}
        {%- set done = delta_cdc.cdc_apply(sql) -%}
        {#-- dbt's response has no field for counts; `code` is a free text, so they are there as JSON, for run_results.json. The
             body is not run: dbt writes it to target/run, where readers of the lake find the views as they were made. --#}
        {%- call noop_statement('main', done.message, tojson(done.counts), rows_affected=-1) -%}{{ done.views | join(';\n') }}{%- endcall -%}
        {%- set relation = this.incorporate(type='view') -%}
        {{ run_hooks(post_hooks) }}
        {{ return({'relations': [relation]}) }}
    {%- endif -%}
    {%- do delta_cdc.standing_relation(this) -%}
    {%- if strategy != 'merge' -%}{{ return(dbt.materialization_incremental_spark()) }}{%- endif -%}

    {%- if delta_cdc.leaves_no_mark() -%}
        {%- if delta_cdc.is_incremental() and not flags.EMPTY -%}{%- do delta_cdc.forget_upstreams() -%}{%- endif -%}
        {%- set result = dbt.materialization_incremental_spark() -%}
    {%- else -%}
        {%- set now = delta_cdc.upstreams() -%}
        {%- if delta_cdc.is_incremental() and delta_cdc.upstreams_unchanged(now) -%}
            {%- do delta_cdc._drop_merge_views() -%}
            {%- call noop_statement('main', 'nothing new', 'MERGE', rows_affected=0) -%}{%- endcall -%}
            {{ return({'relations': [this.incorporate(type='table')]}) }}
        {%- endif -%}
        {%- do delta_cdc.add_upstream_batches(now) -%}
        {%- set every_key = config.get('replace_by') in [none, '*'] or delta_cdc.every_key_changed() -%}
        {%- set result = dbt.materialization_incremental_spark() -%}
        {%- do delta_cdc.drop_after_merge(this, context.get('merge_plan')) -%}
        {%- do delta_cdc.remember_upstreams(now, every_key) -%}
    {%- endif -%}
    {%- do delta_cdc._drop_merge_views() -%}
    {{ return(result) }}
{%- endmaterialization %}


{#-- Temporary views are the session's: they would stay for the next dbt command in it, and `docs generate` fails on them. A
     node's own session takes them with it. --#}
{% macro _drop_merge_views() -%}
    {%- for view in [delta_cdc._touched_view(this), make_temp_relation(this).include(schema=false)] -%}
        {%- do delta_cdc._cdc_drop_temporary(view) -%}
    {%- endfor -%}
{%- endmacro %}
