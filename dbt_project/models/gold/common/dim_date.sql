-- Grain: one day of 2020 to 2030. Merge; the query gives the whole table.
-- Has no fiscal calendar.
{{ config(
    unique_key='date_day',
    replace_by='*',
) }}

with days as (
    select explode(sequence(date '2020-01-01', date '2030-12-31')) as date_day
),

described as (
    select
        date_day,
        year(date_day) as year_number,
        month(date_day) as month_number,
        day(date_day) as day_of_month,
        weekday(date_day) + 1 as iso_weekday,
        cast(date_trunc('month', date_day) as date) as month_start_date,
        cast(date_trunc('week', date_day) as date) as week_start_date,
        weekday(date_day) >= 5 as is_weekend
    from days
)

select * from described
