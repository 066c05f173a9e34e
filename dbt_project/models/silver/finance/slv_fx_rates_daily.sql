-- Grain: one currency on one day, weekends and holidays included, from the first rate to a week after the last.
-- A view: a day without a rate has the last one before it. EUR is listed with rate 1.
{{ config(materialized='view') }}

with slv_fx_rates as (
    select * from {{ ref('slv_fx_rates') }}
),

intervals as (
    select
        currency,
        units_per_eur,
        rate_date as rate_published_on,
        rate_date as applies_from,
        coalesce(
            lead(rate_date) over (partition by currency order by rate_date),
            date_add(rate_date, 8)
        ) as applies_until
    from slv_fx_rates
),

days as (
    select
        explode(sequence(applies_from, date_sub(applies_until, 1))) as rate_date,
        currency,
        units_per_eur,
        rate_published_on
    from intervals
),

euro as (
    select distinct
        rate_date,
        'EUR' as currency,
        cast(1 as decimal(18, 8)) as units_per_eur,
        rate_date as rate_published_on
    from days
),

with_euro as (
    select rate_date, currency, units_per_eur, rate_published_on from days
    union all
    select rate_date, currency, units_per_eur, rate_published_on from euro
)

select * from with_euro
