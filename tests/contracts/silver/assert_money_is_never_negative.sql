-- Fails when an order has a negative total, or an order line a negative price or no pieces.
-- Why it matters: refunds are orders of status returned, never negative amounts; a negative one is a fault upstream.
-- First action: ask the shop team with the order's id. Not a check of list prices or of opportunities.
select
    'slv_shop_orders' as model_name,
    cast(order_id as string) as row_id,
    total_amount as amount
from {{ ref('slv_shop_orders') }}
where total_amount < 0

union all

select
    'slv_snowflake_orders' as model_name,
    cast(order_id as string) as row_id,
    amount
from {{ ref('slv_snowflake_orders') }}
where amount < 0

union all

select
    'slv_shop_order_items' as model_name,
    concat_ws('/', order_id, line_no) as row_id,
    unit_price as amount
from {{ ref('slv_shop_order_items') }}
where unit_price < 0 or quantity < 1
