-- Grain: one opportunity as it stands now: the open version of slv_opportunities_history. A view; nothing is written.
{{ config(materialized='view') }}

with slv_opportunities_history as (
    select * from {{ ref('slv_opportunities_history') }}
),

current_rows as (
    select
        opportunity_id,
        account_id,
        stage,
        amount,
        close_date,
        updated_at,
        valid_from,
        _batch_id
    from slv_opportunities_history
    where is_current
)

select * from current_rows
