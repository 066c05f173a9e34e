-- Fails when fct_orders has not exactly the orders of silver, with the same amounts.
-- Why it matters: every revenue figure is a sum over fct_orders.
-- First action: `dbt build --full-refresh -s fct_orders+`.
-- Not a check of the customer's version: assert_orders_have_the_customer_version_of_their_time does that.
with silver as (
    select count(*) as orders, sum(total_amount) as amount from {{ ref('slv_shop_orders') }}
),

gold as (
    select count(*) as orders, sum(total_amount) as amount from {{ ref('fct_orders') }}
)

select
    silver.orders as silver_orders,
    gold.orders as gold_orders,
    silver.amount as silver_amount,
    gold.amount as gold_amount
from silver
cross join gold
where not (silver.orders <=> gold.orders and silver.amount <=> gold.amount)
