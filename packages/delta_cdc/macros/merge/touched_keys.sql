{#-- The keys that a run of a merge model is about, as a relation that both the model's query and the merge read: with
     `replace_by`, rows of a touched key that the query no longer gives are deleted.

       {% if is_incremental() %}
       touched as (
           select * from {{ delta_cdc.touched_keys(query) }}
       ),
       {% endif %}

     While dbt runs the model it is a cached temporary view, evaluated once; elsewhere (compile, docs, unit tests, a run with
     nothing new, which reads no row) the query itself. --#}
{% macro touched_keys(query) -%}
    {%- if execute and model.resource_type == 'model' and not config.get('replace_by') -%}
        {%- do delta_cdc._cdc_fail('replace_by', 'the key of touched_keys(), whose rows the query replaces', 'nothing', "add replace_by='<key>' to config()") -%}
    {%- endif -%}
    {%- set runs = execute and flags.WHICH in ['run', 'build'] and model.resource_type == 'model' and not context.get('merge_rendering') -%}
    {%- if runs and delta_cdc.is_incremental() and (delta_cdc.leaves_no_mark() or not delta_cdc.upstreams_unchanged(delta_cdc.upstreams())) -%}
        {%- set view = delta_cdc._touched_view(this) -%}
        {%- do delta_cdc._cdc_drop_temporary(view) -%}
        {%- do run_query('cache lazy table ' ~ view ~ ' as select distinct * from (' ~ query ~ ') where ' ~ delta_cdc._all_present(config.get('replace_by'))) -%}
        {{ return(view) }}
    {%- endif -%}
    {{ return('(' ~ query ~ ')') }}
{%- endmacro %}


{#-- `replace_by='<key>'` means the keys of touched_keys(): a query that does not read them is refused. `compiled` is the query. --#}
{% macro _check_touched(target, replace_by, compiled) -%}
    {%- if compiled and replace_by and replace_by != '*' and delta_cdc._touched_view(target) not in compiled -%}
        {%- do delta_cdc._cdc_fail('replace_by', 'touched_keys() in the query under is_incremental(), or ' ~ "'*'", replace_by,
            "read {{ delta_cdc.touched_keys(…) }} there, or write replace_by='*' where the query gives the whole table") -%}
    {%- endif -%}
{%- endmacro %}


{#-- Name of the temporary view of touched keys. --#}
{% macro _touched_view(relation) -%}
    {{ return(relation.schema ~ '__' ~ relation.identifier ~ '__touched') }}
{%- endmacro %}


{#-- Condition: none of these columns is NULL. --#}
{% macro _all_present(names) -%}
    {%- for name in ([names] if names is string else names) -%}
        `{{ name }}` is not null{{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
