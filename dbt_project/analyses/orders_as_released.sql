-- Orders that a tagged release shows otherwise than today's table. The tag is given by dbt's vars:
--   dbt compile --select orders_as_released --vars "$(lakeops table tags release-2026-11 --vars)"
-- Without it, both sides are today's, and there is no row.
with released as (
    select
        order_id,
        status
    from {{ delta_cdc.at_version(ref('fct_orders')) }}
),

today as (
    select
        order_id,
        status
    from {{ ref('fct_orders') }}
)

select
    coalesce(today.order_id, released.order_id) as order_id,
    released.status as status_then,
    today.status as status_today
from released
full outer join today on released.order_id = today.order_id
where not released.status <=> today.status
