-- Fails when a business metric, as declared, differs from the same figure computed from silver's orders and rates.
-- Why it matters: a metric is read without its SQL. First action: compare the measure in _sales__metrics.yml with the
-- difference shown here. Revenue is rounded by day, so half a cent a day may differ.
-- Not a check of the orders or the rates themselves.
-- depends_on: {{ ref('rpt_daily_revenue') }}, {{ ref('fct_orders') }}
with sold as (
    select
        orders.customer_id,
        cast(orders.ordered_at as date) as order_date,
        orders.total_amount / rates.units_per_eur as amount_eur
    from {{ ref('slv_shop_orders') }} as orders
    left join {{ ref('slv_fx_rates_daily') }} as rates
        on orders.currency = rates.currency
        and cast(orders.ordered_at as date) = rates.rate_date
    where orders.status not in ('cancelled', 'returned')
),

expected as (
    select
        count(distinct order_date) as order_days,
        count(*) as order_count,
        count(amount_eur) as orders_with_rate,
        count(distinct customer_id) as active_customers,
        coalesce(sum(amount_eur), 0) as revenue,
        sum(amount_eur) / nullif(count(amount_eur), 0) as average_order_value
    from sold
),

compared as (
    {%- for name in ['revenue', 'order_count', 'orders_with_rate', 'active_customers', 'average_order_value'] %}
    select
        '{{ name }}' as metric,
        {{ metric(name) }} as declared,
        {{ name }} as expected,
        {{ 'order_days * 0.005' if name in ['revenue', 'average_order_value'] else '0' }} as may_differ
    from expected
    {{- ' union all' if not loop.last }}
    {%- endfor %}
)

select * from compared
where abs(coalesce(declared, 0) - coalesce(expected, 0)) > may_differ
