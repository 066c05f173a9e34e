-- Fails when a change in bronze, up to the batch that silver has applied, is not among silver's stored events.
-- Why it matters: a lost change is a wrong row for ever. First action: `dbt build --full-refresh -s <model>`, and keep
-- the old storage table's history (`describe history`) for the analysis.
-- A change is what the model's own config says: one key at one position of its sequence, the generation included.
-- A model that was never built has lost nothing: `dbt build -s slv_fx_rates` on a new lake runs this test too.
-- Not a check of values: tests/e2e/test_recording.py compares those with the source database.
{% set readers = {
    'crm_accounts': 'slv_accounts_history',
    'crm_contacts': 'slv_contacts_history',
    'crm_opportunities': 'slv_opportunities_history',
    'fx_rates': 'slv_fx_rates',
    'kafka_events': 'slv_kafka_events',
    'redshift_behavior': 'slv_redshift_behavior',
    'shop_order_items': 'slv_shop_order_items',
    'shop_orders': 'slv_shop_orders',
    'shop_products': 'slv_products_history',
    'snowflake_orders': 'slv_snowflake_orders',
} %}
with counts as (
    select '' as model_name, 0 as delivered, 0 as stored
    {% for source_name, model_name in readers.items() -%}
    {% set changes, storage = source('bronze', source_name), delta_cdc.cdc_storage(ref(model_name)) -%}
    {% set options = graph.nodes['model.' ~ project_name ~ '.' ~ model_name].config if execute else {} -%}
    {% if execute and delta_cdc.standing_relation(storage) is not none -%}
    union all
    select
        '{{ model_name }}' as model_name,
        (
            select count(*)
            from (
                select distinct {{ (delta_cdc._cdc_as_list(options.unique_key) + delta_cdc._cdc_as_list(options.sequence_by)) | join(', ') }}
                from {{ changes }}
                where _batch_id <= (select coalesce(max(_batch_id), 0) from {{ storage }})
            ) as changes
        ) as delivered,
        (select count(*) from {{ storage }}) as stored
    {% endif -%}
    {% endfor %}
)

select *
from counts
where delivered <> stored
