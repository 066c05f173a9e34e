{#-- The root project's `incremental`: the two CDC strategies are ours, every other one is dbt-spark's own.
     dbt-spark has a fixed list of strategies and does not dispatch it (dbt-spark 1.11, strategies.sql); delete this override
     when it does. --#}
{% materialization incremental, adapter='spark', supported_languages=['sql', 'python'] -%}
    {%- if config.get('incremental_strategy') in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ run_hooks(pre_hooks) }}
        {%- set message = cdc_apply(sql) -%}
        {%- call noop_statement('main', message, 'CDC', rows_affected=-1) -%}{%- endcall -%}
        {%- set relation = this.incorporate(type='view') -%}
        {{ run_hooks(post_hooks) }}
        {{ return({'relations': [relation]}) }}
    {%- endif -%}
    {{ return(dbt.materialization_incremental_spark()) }}
{%- endmaterialization %}
