-- Grain: one contact as it stands now: the open version of slv_contacts_history. A view; nothing is written.
{{ config(materialized='view') }}

with slv_contacts_history as (
    select * from {{ ref('slv_contacts_history') }}
),

current_rows as (
    select
        contact_id,
        account_id,
        email,
        first_name,
        last_name,
        phone,
        lifecycle_stage,
        notes,
        updated_at,
        marketing_opt_in,
        valid_from,
        _batch_id
    from slv_contacts_history
    where is_current
)

select * from current_rows
