-- Grain: one product as it stands now: the open version of slv_products_history. A view; nothing is written.
{{ config(materialized='view') }}

with slv_products_history as (
    select * from {{ ref('slv_products_history') }}
),

current_rows as (
    select
        product_id,
        sku,
        name,
        category,
        list_price,
        active,
        updated_at,
        valid_from,
        _batch_id
    from slv_products_history
    where is_current
)

select * from current_rows
