{#-- Keys of a CDC upstream that changed since this model's last run, vanished ones included: a query for a CTE.

       with changed_orders as (
           {{ changed_keys('slv_shop_orders') }}
       ), …

     Every key counts as changed when this model's SQL changed, or the upstream was derived anew (a full refresh, changed
     options) or restored to before this model's mark. --#}
{% macro changed_keys(upstream) -%}
    {%- set changes = cdc_changes(ref(upstream)) -%}
    {%- set mark = _applied_batch(upstream) if execute and is_incremental() else -1 -%}
select
    *
from {{ changes }}
where _batch_id > case when (select max(_batch_id) from {{ changes }}) < {{ mark }} then -1 else {{ mark }} end
{%- endmacro %}


{% macro _applied_batch(upstream) -%}
    {%- set applied = upstreams_applied() -%}
    {%- set read = applied.get('read', {}).get(upstream, {}) -%}
    {%- set is_same = applied.get('sql') == _model_hash() and read.get('derived_by') == cdc_derived_by(cdc_storage(ref(upstream))) -%}
    {{ return(read.get('batch', -1) if is_same else -1) }}
{%- endmacro %}
