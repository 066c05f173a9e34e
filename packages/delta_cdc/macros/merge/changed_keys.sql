{#-- Keys of a CDC upstream that changed since this model's last run, vanished ones included: a query for a CTE.

       with changed_orders as (
           {{ delta_cdc.changed_keys('slv_shop_orders') }}
       ), …

     Every key counts as changed when this model is another than at its last run (its SQL as it renders, its keys, contract or
     columns), when an upstream was derived anew (a full refresh, changed options), restored or written by hand, and when a
     seed, a source or a table that dbt rebuilds as a whole has changed. In a unit test the keys are those of the given rows. --#}
{% macro changed_keys(upstream) -%}
    {%- set relation = ref(upstream) -%}
    {%- if model is defined and model.resource_type == 'unit_test' -%}{{ return('select * from ' ~ relation) }}{%- endif -%}
    {%- set changes = delta_cdc.cdc_changes(relation) -%}
    {%- if not execute or context.get('merge_rendering') -%}{{ return('select * from ' ~ changes) }}{%- endif -%}
select
    *
from {{ changes }}
where _batch_id > {{ -1 if delta_cdc.every_key_changed() else delta_cdc.upstreams_applied().read[delta_cdc._cdc_node(relation).unique_id].batch }}
{%- endmacro %}
