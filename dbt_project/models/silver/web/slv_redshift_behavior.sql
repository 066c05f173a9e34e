-- Grain: one web event. Written by cdc_scd1 as an append without duplicates: an event that is delivered again is
-- dropped; of two events with one identifier and time the same one stays in every order of arrival.
{{ config(
    incremental_strategy='cdc_scd1',
    unique_key='event_id',
    sequence_by='occurred_at',
    on_tie='warn',
) }}

select
    event_id,
    user_id,
    session_id,
    event_type,
    page,
    sku,
    duration_ms,
    occurred_at,
    _batch_id
from {{ source('bronze', 'redshift_behavior') }}
