-- Grain: one account as it stands now. Merge of the accounts that changed; a deleted account leaves.
-- Does not keep history: slv_accounts_history does.
-- depends_on: {{ ref('slv_accounts_history') }}
{{ config(
    unique_key='account_id',
    replace_by='account_id',
) }}

with slv_accounts as (
    select * from {{ ref('slv_accounts') }}
),

{% if is_incremental() -%}
changed_accounts as (
    select * from {{ delta_cdc.touched_keys(
        'select account_id from (' ~ delta_cdc.changed_keys('slv_accounts_history') ~ ')'
    ) }}
),

{% endif -%}
accounts as (
    select
        slv_accounts.account_id,
        slv_accounts.name as account_name,
        slv_accounts.industry,
        slv_accounts.owner as account_owner,
        slv_accounts.annual_revenue,
        slv_accounts.valid_from as changed_at
    from slv_accounts
    {%- if is_incremental() %}
    left semi join changed_accounts on slv_accounts.account_id = changed_accounts.account_id
    {%- endif %}
)

select * from accounts
