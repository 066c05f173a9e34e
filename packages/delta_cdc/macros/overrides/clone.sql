{#-- dbt-spark's `clone`; of a CDC model it clones the storage table and makes the two views on it. dbt's own would make a view
     on the other environment's view, and the next run would be a first load. Delete this override when a clone can be had of
     a materialization's own. --#}
{% materialization clone, adapter='spark' -%}
    {%- if not defer_relation or config.get('incremental_strategy') not in ['cdc_scd1', 'cdc_scd2'] -%}
        {{ return(dbt.materialization_clone_spark()) }}
    {%- endif -%}
    {%- set storage, theirs = delta_cdc._cdc_sibling(this, 'cdc'), delta_cdc._cdc_sibling(defer_relation, 'cdc') -%}
    {%- if delta_cdc.standing_relation(storage) is not none and not flags.FULL_REFRESH -%}
        {%- do log('Relation ' ~ storage ~ ' already exists', info=true) -%}
        {{ return({'relations': []}) }}
    {%- endif -%}
    {%- call statement('main') -%}{{ create_or_replace_clone(storage, theirs) }}{%- endcall -%}
    {%- set made = [storage] -%}
    {%- for mine, other in [(this.incorporate(type='view'), defer_relation), (delta_cdc._cdc_sibling(this, 'changes'), delta_cdc._cdc_sibling(defer_relation, 'changes'))] -%}
        {%- set text = delta_cdc.cdc_described_table(other)['View Text'] | replace(theirs | string, storage | string) -%}
        {%- do run_query('create or replace view ' ~ mine ~ ' as ' ~ text) -%}
        {%- do made.append(mine) -%}
    {%- endfor -%}
    {{ return({'relations': made}) }}
{%- endmaterialization %}
