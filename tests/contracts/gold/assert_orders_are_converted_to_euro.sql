-- Fails when an order that counts as revenue had no rate.
-- Why it matters: it is missing in revenue_eur. First action: look in dlq.fx_rates, then deliver the missing rates.
-- Not a check that the rate is right.
select
    order_date,
    orders_without_rate
from {{ ref('rpt_daily_revenue') }}
where orders_without_rate > 0
