-- Grain: one day with orders. Merge; the query gives the whole table, because a late rate or order may touch any day.
-- Cancelled and returned orders are not revenue. Amounts are in EUR by the rate of the day; on weekends by the last one
-- before it.
{{ config(
    unique_key='order_date',
    replace_by='*',
) }}

with fct_orders as (
    select * from {{ ref('fct_orders') }}
),

slv_fx_rates_daily as (
    select * from {{ ref('slv_fx_rates_daily') }}
),

converted as (
    select
        fct_orders.order_date,
        fct_orders.total_amount / slv_fx_rates_daily.units_per_eur as amount_eur
    from fct_orders
    left join slv_fx_rates_daily
        on fct_orders.currency = slv_fx_rates_daily.currency
        and fct_orders.order_date = slv_fx_rates_daily.rate_date
    where not fct_orders.is_cancelled_or_returned
),

daily as (
    select
        order_date,
        cast(count(*) as bigint) as order_count,
        cast(count_if(amount_eur is null) as bigint) as orders_without_rate,
        cast(round(sum(amount_eur), 2) as decimal(22, 2)) as revenue_eur
    from converted
    group by order_date
)

select * from daily
