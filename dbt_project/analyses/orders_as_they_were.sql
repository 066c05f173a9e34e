-- Orders that the first version of the table showed otherwise than today's: Delta time travel.
-- Two times, do not mix them: `version as of` is when the lake knew, valid_from and valid_to are when it was so.
-- A CDC model is a view; its table is the one that cdc_storage() names. It has hidden rows: filter on _cdc_visible.
with before as (
    select
        order_id,
        status
    from {{ delta_cdc.cdc_storage(ref('slv_shop_orders')) }} version as of 0
    where _cdc_visible
),

today as (
    select
        order_id,
        status
    from {{ ref('slv_shop_orders') }}
)

select
    coalesce(today.order_id, before.order_id) as order_id,
    before.status as status_before,
    today.status as status_today
from before
full outer join today on before.order_id = today.order_id
where not before.status <=> today.status
