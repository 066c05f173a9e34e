-- Fails when fct_order_items has not exactly the lines of silver, with the same quantities and amounts.
-- Why it matters: product revenue is a sum over it. First action: `dbt build --full-refresh -s fct_order_items`.
-- Not a comparison with the order's total: the source's totals include what lines do not show.
with silver as (
    select
        count(*) as order_lines,
        sum(quantity) as pieces,
        sum(quantity * unit_price) as amount
    from {{ ref('slv_shop_order_items') }}
),

gold as (
    select
        count(*) as order_lines,
        sum(quantity) as pieces,
        sum(line_amount) as amount
    from {{ ref('fct_order_items') }}
)

select
    silver.order_lines as silver_lines,
    gold.order_lines as gold_lines
from silver
cross join gold
where not (
    silver.order_lines <=> gold.order_lines
    and silver.pieces <=> gold.pieces
    and silver.amount <=> gold.amount
)
