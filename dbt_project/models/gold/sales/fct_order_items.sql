-- Grain: one line of one order as it stands now. Merge of the orders whose lines, head or products changed; the lines
-- of each are replaced as a set. A line without its order has no order columns and the unknown product.
-- depends_on: {{ ref('slv_products_history') }}
{{ config(
    unique_key=['order_id', 'line_no'],
    replace_by='order_id',
    partition_by='order_month',
    meta={'zorder_by': 'order_id'},
) }}

with slv_shop_order_items as (
    select * from {{ ref('slv_shop_order_items') }}
),

slv_shop_orders as (
    select * from {{ ref('slv_shop_orders') }}
),

dim_product as (
    select * from {{ ref('dim_product') }}
),

{% if is_incremental() -%}
{% set touched -%}
    select order_id from ({{ delta_cdc.changed_keys('slv_shop_order_items') }})
    union all
    select order_id from ({{ delta_cdc.changed_keys('slv_shop_orders') }})
    union all
    select slv_shop_order_items.order_id
    from {{ ref('slv_shop_order_items') }} as slv_shop_order_items
    left semi join ({{ delta_cdc.changed_keys('slv_products_history') }}) as changed_products
        on slv_shop_order_items.product_id = changed_products.product_id
{%- endset -%}
touched_orders as (
    select * from {{ delta_cdc.touched_keys(touched) }}
),

{% endif -%}
order_items as (
    select
        slv_shop_order_items.order_id,
        slv_shop_order_items.line_no,
        slv_shop_order_items.product_id,
        coalesce(dim_product.product_key, 'unknown') as product_key,
        slv_shop_orders.currency,
        slv_shop_order_items.quantity,
        slv_shop_order_items.unit_price,
        cast(slv_shop_order_items.quantity * slv_shop_order_items.unit_price as decimal(22, 2)) as line_amount,
        slv_shop_orders.ordered_at,
        cast(date_trunc('month', slv_shop_orders.ordered_at) as date) as order_month
    from slv_shop_order_items
    {%- if is_incremental() %}
    left semi join touched_orders on slv_shop_order_items.order_id = touched_orders.order_id
    {%- endif %}
    left join slv_shop_orders on slv_shop_order_items.order_id = slv_shop_orders.order_id
    left join dim_product
        on slv_shop_order_items.product_id = dim_product.product_id
        and slv_shop_orders.ordered_at >= dim_product.applies_from
        and slv_shop_orders.ordered_at < coalesce(dim_product.valid_to, timestamp '9999-12-31 23:59:59')
)

select * from order_items
