-- Fails when a business metric, as declared, differs from the same figure computed from silver's orders and rates.
-- Why it matters: a metric is read without its SQL. First action: compare the measure in _sales__metrics.yml with the
-- difference shown here. An order's amount in EUR is rounded to six digits, and here each day's.
-- Not a check of the orders or the rates themselves.
-- depends_on: {{ ref('fct_orders_all_channels') }}
with all_channels as (
    select
        customer_id,
        currency,
        total_amount,
        cast(ordered_at as date) as order_date
    from {{ ref('slv_shop_orders') }}
    where status not in ('cancelled', 'returned')
    union all
    select
        cast(null as string) as customer_id,
        currency,
        amount as total_amount,
        cast(ordered_at as date) as order_date
    from {{ ref('slv_snowflake_orders') }}
    where status not in ('cancelled', 'returned')
),

-- Converted by day and currency, where fct_orders_all_channels converts each order.
daily as (
    select
        currency,
        order_date,
        count(*) as order_count,
        sum(total_amount) as total_amount
    from all_channels
    group by currency, order_date
),

converted as (
    select
        sum(daily.order_count) as order_count,
        sum(case when rates.units_per_eur is not null then daily.order_count else 0 end) as orders_with_rate,
        coalesce(sum(daily.total_amount / rates.units_per_eur), 0) as revenue
    from daily
    left join {{ ref('slv_fx_rates_daily') }} as rates
        on daily.currency = rates.currency
        and daily.order_date = rates.rate_date
),

customers as (
    select count(distinct customer_id) as active_customers from all_channels
),

expected as (
    select
        converted.order_count,
        converted.orders_with_rate,
        customers.active_customers,
        converted.revenue,
        converted.revenue / nullif(converted.orders_with_rate, 0) as average_order_value
    from converted
    cross join customers
),

compared as (
    {%- for name in ['revenue', 'order_count', 'orders_with_rate', 'active_customers', 'average_order_value'] %}
    select
        '{{ name }}' as metric,
        {{ metric(name) }} as declared,
        {{ name }} as expected,
        {{ '0.000001 * order_count' if name in ['revenue', 'average_order_value'] else '0' }} as may_differ
    from expected
    {{- ' union all' if not loop.last }}
    {%- endfor %}
)

select * from compared
where abs(coalesce(declared, 0) - coalesce(expected, 0)) > may_differ
