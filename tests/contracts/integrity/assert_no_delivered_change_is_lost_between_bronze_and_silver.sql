-- Fails when a change in bronze, up to the batch that silver has applied, is not among silver's stored events.
-- Why it matters: a lost change is a wrong row for ever. First action: `dbt build --full-refresh -s <model>`, and keep
-- the old storage table's history (`describe history`) for the analysis.
-- Not a check of values: tests/e2e/test_recording.py compares those with the source database.
{% set pairs = [
    ('crm_accounts', 'slv_accounts_history'),
    ('crm_contacts', 'slv_contacts_history'),
    ('crm_opportunities', 'slv_opportunities_history'),
    ('shop_products', 'slv_products_history'),
    ('shop_orders', 'slv_shop_orders'),
    ('shop_order_items', 'slv_shop_order_items'),
] %}
{% set keys = {
    'crm_accounts': 'account_id',
    'crm_contacts': 'contact_id',
    'crm_opportunities': 'opportunity_id',
    'shop_products': 'product_id',
    'shop_orders': 'order_id',
    'shop_order_items': 'order_id, line_no',
} %}
with counts as (
    {% for source_name, model_name in pairs -%}
    select
        '{{ model_name }}' as model_name,
        (
            select count(distinct struct({{ keys[source_name] }}), _source_lsn)
            from {{ source('bronze', source_name) }}
            where _batch_id <= (select coalesce(max(_batch_id), 0) from {{ cdc_storage(ref(model_name)) }})
        ) as delivered,
        (select count(*) from {{ cdc_storage(ref(model_name)) }}) as stored
    {{ 'union all' if not loop.last }}
    {% endfor %}
)

select *
from counts
where delivered <> stored
