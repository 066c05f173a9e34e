-- Grain: one account as it stands now: the open version of slv_accounts_history. A view; nothing is written.
{{ config(materialized='view') }}

with slv_accounts_history as (
    select * from {{ ref('slv_accounts_history') }}
),

current_rows as (
    select
        account_id,
        name,
        industry,
        annual_revenue,
        owner,
        updated_at,
        valid_from,
        _batch_id
    from slv_accounts_history
    where is_current
)

select * from current_rows
