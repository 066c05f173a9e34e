-- Each order with its customer as the CRM knew them when it was placed: a point-in-time join on the history.
-- fct_orders carries the answer as customer_key; this is the join behind it, for any other event with a time.
with fct_orders as (
    select * from {{ ref('fct_orders') }}
),

dim_customer as (
    select * from {{ ref('dim_customer') }}
)

select
    fct_orders.order_id,
    fct_orders.ordered_at,
    dim_customer.lifecycle_stage as lifecycle_stage_then,
    customers_now.lifecycle_stage as lifecycle_stage_now
from fct_orders
left join dim_customer
    on fct_orders.customer_id = dim_customer.customer_id
    and fct_orders.ordered_at >= dim_customer.applies_from
    and fct_orders.ordered_at < coalesce(dim_customer.valid_to, timestamp '9999-12-31 23:59:59')
left join dim_customer as customers_now
    on fct_orders.customer_id = customers_now.customer_id
    and customers_now.is_current
