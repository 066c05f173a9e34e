{#-- Keys of a CDC upstream that changed since this model's last run, vanished ones included: a query for a CTE.

       with changed_orders as (
           {{ changed_keys('slv_shop_orders') }}
       ), …

     An upstream that was restored or rebuilt to before this model's mark counts as changed as a whole. --#}
{% macro changed_keys(upstream) -%}
    {%- set changes = cdc_changes(ref(upstream)) -%}
    {%- set mark = upstreams_applied().get('read', {}).get(upstream, {}).get('batch', -1) if execute and is_incremental() else -1 -%}
select
    *
from {{ changes }}
where _batch_id > case when (select max(_batch_id) from {{ changes }}) < {{ mark }} then -1 else {{ mark }} end
{%- endmacro %}
