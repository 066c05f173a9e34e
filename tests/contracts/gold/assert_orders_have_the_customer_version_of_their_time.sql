-- Fails when an order names another customer version than the one that silver's history has for ordered_at.
-- Why it matters: the customer's stage at the time of the order is what marketing is judged by; a late change must
-- correct orders that were loaded before it. First action: `dbt build --full-refresh -s dim_customer+`.
-- Not a check that the customer exists: orders of contacts that the CRM does not know have the unknown member.
with expected as (
    select
        orders.order_id,
        coalesce(max(customers.customer_key), 'unknown') as customer_key
    from {{ ref('slv_shop_orders') }} as orders
    left join {{ ref('dim_customer') }} as customers
        on orders.customer_id = customers.customer_id
        and orders.ordered_at >= customers.applies_from
        and orders.ordered_at < coalesce(customers.valid_to, timestamp '9999-12-31 23:59:59')
    group by orders.order_id
)

select
    fct_orders.order_id,
    fct_orders.customer_key,
    expected.customer_key as expected_customer_key
from {{ ref('fct_orders') }} as fct_orders
left join expected on fct_orders.order_id = expected.order_id
where not (fct_orders.customer_key <=> expected.customer_key)
