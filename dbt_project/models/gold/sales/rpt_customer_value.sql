-- Grain: one customer who has ordered, as the orders name them, known to the CRM or not. Merge; the query gives the
-- whole table. Cancelled and returned orders are not revenue; an order without a rate counts as an order and
-- not as revenue.
{{ config(
    unique_key='customer_id',
    replace_by='*',
) }}

with fct_orders as (
    select * from {{ ref('fct_orders') }}
),

dim_customer as (
    select * from {{ ref('dim_customer') }}
),

slv_fx_rates_daily as (
    select * from {{ ref('slv_fx_rates_daily') }}
),

per_customer as (
    select
        fct_orders.customer_id,
        cast(count(*) as bigint) as order_count,
        cast(round(coalesce(sum(fct_orders.total_amount / slv_fx_rates_daily.units_per_eur), 0), 2) as decimal(22, 2))
            as revenue_eur,
        min(fct_orders.order_date) as first_order_date,
        max(fct_orders.order_date) as last_order_date
    from fct_orders
    left join slv_fx_rates_daily
        on fct_orders.currency = slv_fx_rates_daily.currency
        and fct_orders.order_date = slv_fx_rates_daily.rate_date
    where not fct_orders.is_cancelled_or_returned
    group by fct_orders.customer_id
),

customers as (
    select
        per_customer.customer_id,
        dim_customer.account_id,
        dim_customer.lifecycle_stage,
        per_customer.order_count,
        per_customer.revenue_eur,
        dim_customer.customer_id is not null as is_known,
        per_customer.first_order_date,
        per_customer.last_order_date
    from per_customer
    left join dim_customer
        on per_customer.customer_id = dim_customer.customer_id
        and dim_customer.is_current
)

select * from customers
