-- Grain: one visit of the web site. Merge of the visits that have new events, so a late event counts where it belongs.
-- Does not move an event: one that were delivered again under another visit would count in both.
{{ config(
    unique_key='session_id',
    replace_by='session_id',
) }}

with slv_redshift_behavior as (
    select * from {{ ref('slv_redshift_behavior') }}
),

{% if is_incremental() -%}
{% set touched -%}
    select slv_redshift_behavior.session_id
    from {{ ref('slv_redshift_behavior') }} as slv_redshift_behavior
    left semi join ({{ delta_cdc.changed_keys('slv_redshift_behavior') }}) as changed_events
        on slv_redshift_behavior.event_id = changed_events.event_id
{%- endset -%}
touched_sessions as (
    select * from {{ delta_cdc.touched_keys(touched) }}
),

{% endif -%}
events as (
    select
        slv_redshift_behavior.session_id,
        slv_redshift_behavior.user_id,
        slv_redshift_behavior.page,
        slv_redshift_behavior.duration_ms,
        slv_redshift_behavior.occurred_at,
        struct(slv_redshift_behavior.occurred_at, slv_redshift_behavior.event_id) as place,
        slv_redshift_behavior.event_type = 'view' and slv_redshift_behavior.sku is not null as is_product_view,
        case
            when slv_redshift_behavior.event_type = 'purchase' then 4
            when slv_redshift_behavior.event_type = 'checkout' then 3
            when slv_redshift_behavior.event_type = 'add_to_cart' then 2
            when slv_redshift_behavior.event_type = 'view' and slv_redshift_behavior.sku is not null then 1
            else 0
        end as step
    from slv_redshift_behavior
    {%- if is_incremental() %}
    left semi join touched_sessions on slv_redshift_behavior.session_id = touched_sessions.session_id
    {%- endif %}
),

sessions as (
    select
        session_id,
        max_by(user_id, case when user_id is not null then place end) as customer_id,
        min_by(page, place) as landing_page,
        cast(count(*) as bigint) as event_count,
        cast(count_if(is_product_view) as bigint) as product_view_count,
        max(step) as furthest_step,
        cast(sum(coalesce(duration_ms, 0)) as bigint) as duration_ms,
        max(step) = 4 as has_purchased,
        min(occurred_at) as started_at,
        max(occurred_at) as last_event_at,
        cast(min(occurred_at) as date) as session_date
    from events
    group by session_id
)

select * from sessions
