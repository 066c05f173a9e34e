-- Grain: one app event. Written by cdc_scd1 as an append without duplicates: Kafka delivers at least once; of two
-- events with one identifier and time the same one stays in every order of arrival.
{{ config(
    incremental_strategy='cdc_scd1',
    unique_key='event_id',
    sequence_by='occurred_at',
    on_tie='warn',
) }}

select
    event_id,
    event_type,
    account_id,
    contact_id,
    payload,
    occurred_at,
    _batch_id
from {{ source('bronze', 'kafka_events') }}
