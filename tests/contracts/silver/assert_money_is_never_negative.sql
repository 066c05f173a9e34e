-- Fails when an order line has a negative price or no pieces.
-- Why it matters: refunds are orders of status returned, never negative lines; a negative one is a fault upstream.
-- First action: ask the shop team with the order's id. Not a check of list prices or of opportunities.
select
    order_id,
    line_no,
    quantity,
    unit_price
from {{ ref('slv_shop_order_items') }}
where unit_price < 0 or quantity < 1
