-- Grain: one order of the shop or of a marketplace as it stands now. Merge of the orders that changed, and of those
-- that a changed rate converts. A deleted shop order leaves. Buyers of marketplaces are no customers of the CRM.
-- depends_on: {{ ref('slv_fx_rates') }}
{{ config(
    unique_key='order_key',
    replace_by='order_key',
    partition_by='order_month',
) }}

with slv_shop_orders as (
    select * from {{ ref('slv_shop_orders') }}
),

slv_snowflake_orders as (
    select * from {{ ref('slv_snowflake_orders') }}
),

slv_fx_rates_daily as (
    select * from {{ ref('slv_fx_rates_daily') }}
),

{% if is_incremental() -%}
{#- A rate applies from its day to the next one, and ends the one before it. EUR has rates on all others' days. -#}
{% set touched_rates -%}
    select
        currency,
        min(applies_from) as applies_from
    from (
        select
            explode(array(rates.currency, 'EUR')) as currency,
            rates.previous_date as applies_from
        from (
            select
                rate_date,
                currency,
                coalesce(lag(rate_date) over (partition by currency order by rate_date), rate_date) as previous_date
            from {{ ref('slv_fx_rates') }}
        ) as rates
        left semi join ({{ delta_cdc.changed_keys('slv_fx_rates') }}) as changed_rates
            on rates.rate_date = changed_rates.rate_date
            and rates.currency = changed_rates.currency
    ) as changed_days
    group by currency
{%- endset -%}
{% set touched -%}
    select concat('shop-', order_id) as order_key from ({{ delta_cdc.changed_keys('slv_shop_orders') }})
    union all
    select order_id as order_key from ({{ delta_cdc.changed_keys('slv_snowflake_orders') }})
    union all
    select concat('shop-', slv_shop_orders.order_id) as order_key
    from {{ ref('slv_shop_orders') }} as slv_shop_orders
    left semi join ({{ touched_rates }}) as touched_rates
        on slv_shop_orders.currency = touched_rates.currency
        and cast(slv_shop_orders.ordered_at as date) >= touched_rates.applies_from
    union all
    select slv_snowflake_orders.order_id as order_key
    from {{ ref('slv_snowflake_orders') }} as slv_snowflake_orders
    left semi join ({{ touched_rates }}) as touched_rates
        on slv_snowflake_orders.currency = touched_rates.currency
        and cast(slv_snowflake_orders.ordered_at as date) >= touched_rates.applies_from
{%- endset -%}
touched_orders as (
    select * from {{ delta_cdc.touched_keys(touched) }}
),

{% endif -%}
all_channels as (
    select
        concat('shop-', order_id) as order_key,
        customer_id,
        'shop' as channel,
        status,
        currency,
        total_amount,
        ordered_at
    from slv_shop_orders
    union all
    select
        order_id as order_key,
        cast(null as string) as customer_id,
        marketplace as channel,
        status,
        currency,
        amount as total_amount,
        ordered_at
    from slv_snowflake_orders
),

orders as (
    select
        all_channels.order_key,
        all_channels.customer_id,
        all_channels.channel,
        all_channels.status,
        all_channels.currency,
        all_channels.total_amount,
        cast(all_channels.total_amount / slv_fx_rates_daily.units_per_eur as decimal(22, 6)) as amount_eur,
        all_channels.status in ('cancelled', 'returned') as is_cancelled_or_returned,
        all_channels.ordered_at,
        cast(all_channels.ordered_at as date) as order_date,
        cast(date_trunc('month', all_channels.ordered_at) as date) as order_month
    from all_channels
    {%- if is_incremental() %}
    left semi join touched_orders on all_channels.order_key = touched_orders.order_key
    {%- endif %}
    left join slv_fx_rates_daily
        on all_channels.currency = slv_fx_rates_daily.currency
        and cast(all_channels.ordered_at as date) = slv_fx_rates_daily.rate_date
)

select * from orders
