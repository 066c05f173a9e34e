-- Grain: one day with visits. Merge; the query gives the whole table, because a late event may touch any day.
-- A visit that skips a step, such as a cart filled from the search, has passed it.
{{ config(
    unique_key='session_date',
    replace_by='*',
) }}

with fct_sessions as (
    select * from {{ ref('fct_sessions') }}
),

funnel as (
    select
        session_date,
        cast(count(*) as bigint) as session_count,
        cast(count(customer_id) as bigint) as signed_in_count,
        cast(count_if(furthest_step >= 1) as bigint) as product_count,
        cast(count_if(furthest_step >= 2) as bigint) as cart_count,
        cast(count_if(furthest_step >= 3) as bigint) as checkout_count,
        cast(count_if(furthest_step >= 4) as bigint) as purchase_count
    from fct_sessions
    group by session_date
)

select * from funnel
