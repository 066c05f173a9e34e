-- Fails when the daily report, the customers' report and the orders disagree on how many orders are revenue.
-- Why it matters: a join that multiplies or drops orders falsifies both reports. First action: look for a currency with
-- two rates on one day in slv_fx_rates_daily, or a customer with two current versions in dim_customer.
-- Not a check of the rates.
with orders as (
    select count(*) as order_count from {{ ref('fct_orders') }} where not is_cancelled_or_returned
),

daily as (
    select coalesce(sum(order_count), 0) as order_count from {{ ref('rpt_daily_revenue') }}
),

customers as (
    select coalesce(sum(order_count), 0) as order_count from {{ ref('rpt_customer_value') }}
)

select
    orders.order_count as in_orders,
    daily.order_count as in_daily_revenue,
    customers.order_count as in_customer_value
from orders
cross join daily
cross join customers
where orders.order_count <> daily.order_count or orders.order_count <> customers.order_count
