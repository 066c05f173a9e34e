-- Grain: one account on one day on which its people used an app. Merge of the accounts with new events: a late event
-- counts on its day. Does not move an event: one that were delivered again for another account would count for both.
{{ config(
    unique_key=['account_id', 'usage_date'],
    replace_by='account_id',
) }}

with slv_kafka_events as (
    select * from {{ ref('slv_kafka_events') }}
),

{% if is_incremental() -%}
{% set touched -%}
    select coalesce(slv_kafka_events.account_id, 'unknown') as account_id
    from {{ ref('slv_kafka_events') }} as slv_kafka_events
    left semi join ({{ delta_cdc.changed_keys('slv_kafka_events') }}) as changed_events
        on slv_kafka_events.event_id = changed_events.event_id
{%- endset -%}
touched_accounts as (
    select * from {{ delta_cdc.touched_keys(touched) }}
),

{% endif -%}
usage as (
    select
        coalesce(slv_kafka_events.account_id, 'unknown') as account_id,
        cast(slv_kafka_events.occurred_at as date) as usage_date,
        cast(count(*) as bigint) as event_count,
        cast(count(distinct slv_kafka_events.contact_id) as bigint) as contact_count,
        cast(count_if(slv_kafka_events.event_type = 'login') as bigint) as login_count,
        cast(count_if(slv_kafka_events.event_type = 'invoice_opened') as bigint) as invoice_opened_count,
        cast(count_if(slv_kafka_events.event_type = 'trial_started') as bigint) as trial_started_count,
        max(slv_kafka_events.occurred_at) as last_event_at
    from slv_kafka_events
    {%- if is_incremental() %}
    left semi join touched_accounts
        on coalesce(slv_kafka_events.account_id, 'unknown') = touched_accounts.account_id
    {%- endif %}
    group by coalesce(slv_kafka_events.account_id, 'unknown'), cast(slv_kafka_events.occurred_at as date)
)

select * from usage
