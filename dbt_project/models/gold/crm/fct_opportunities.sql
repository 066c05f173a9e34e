-- Grain: one opportunity as it stands now. Merge of the opportunities that changed; a deleted one leaves.
-- Amounts have no currency in the source and are not converted.
-- depends_on: {{ ref('slv_opportunities_history') }}
{{ config(
    unique_key='opportunity_id',
    replace_by='opportunity_id',
) }}

with slv_opportunities as (
    select * from {{ ref('slv_opportunities') }}
),

{% if is_incremental() -%}
changed_opportunities as (
    select * from {{ delta_cdc.touched_keys(
        'select opportunity_id from (' ~ delta_cdc.changed_keys('slv_opportunities_history') ~ ')'
    ) }}
),

{% endif -%}
opportunities as (
    select
        slv_opportunities.opportunity_id,
        slv_opportunities.account_id,
        slv_opportunities.stage,
        slv_opportunities.amount,
        slv_opportunities.stage in ('closed won', 'closed lost') as is_closed,
        slv_opportunities.stage = 'closed won' as is_won,
        slv_opportunities.close_date,
        slv_opportunities.valid_from as changed_at
    from slv_opportunities
    {%- if is_incremental() %}
    left semi join changed_opportunities
        on slv_opportunities.opportunity_id = changed_opportunities.opportunity_id
    {%- endif %}
)

select * from opportunities
