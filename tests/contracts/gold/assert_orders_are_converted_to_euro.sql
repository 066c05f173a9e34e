-- Fails when an order that counts as revenue had no rate.
-- Why it matters: it is missing in revenue_eur. First action: look in dlq.fx_rates, then deliver the missing rates.
-- Not a check that the rate is right.
select
    channel,
    currency,
    order_date,
    count(*) as orders_without_rate
from {{ ref('fct_orders_all_channels') }}
where amount_eur is null and not is_cancelled_or_returned
group by channel, currency, order_date
