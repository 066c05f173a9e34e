-- Grain: one order as it stands now. Merge of the orders that changed and of those whose customer's history changed, so
-- that customer_key is always the version at ordered_at. A deleted order leaves.
-- depends_on: {{ ref('slv_contacts_history') }}
{{ config(
    unique_key='order_id',
    replace_by='order_id',
    partition_by='order_month',
    meta={'zorder_by': 'order_id'},
) }}

with slv_shop_orders as (
    select * from {{ ref('slv_shop_orders') }}
),

dim_customer as (
    select * from {{ ref('dim_customer') }}
),

{% if is_incremental() -%}
{% set touched -%}
    select order_id from ({{ delta_cdc.changed_keys('slv_shop_orders') }})
    union all
    select slv_shop_orders.order_id
    from {{ ref('slv_shop_orders') }} as slv_shop_orders
    left semi join ({{ delta_cdc.changed_keys('slv_contacts_history') }}) as changed_contacts
        on slv_shop_orders.customer_id = changed_contacts.contact_id
{%- endset -%}
touched_orders as (
    select * from {{ delta_cdc.touched_keys(touched) }}
),

{% endif -%}
orders as (
    select
        slv_shop_orders.order_id,
        slv_shop_orders.customer_id,
        coalesce(dim_customer.customer_key, 'unknown') as customer_key,
        slv_shop_orders.status,
        slv_shop_orders.currency,
        slv_shop_orders.total_amount,
        slv_shop_orders.status in ('cancelled', 'returned') as is_cancelled_or_returned,
        slv_shop_orders.ordered_at,
        cast(slv_shop_orders.ordered_at as date) as order_date,
        cast(date_trunc('month', slv_shop_orders.ordered_at) as date) as order_month
    from slv_shop_orders
    {%- if is_incremental() %}
    left semi join touched_orders on slv_shop_orders.order_id = touched_orders.order_id
    {%- endif %}
    left join dim_customer
        on slv_shop_orders.customer_id = dim_customer.customer_id
        and slv_shop_orders.ordered_at >= dim_customer.applies_from
        and slv_shop_orders.ordered_at < coalesce(dim_customer.valid_to, timestamp '9999-12-31 23:59:59')
)

select * from orders
