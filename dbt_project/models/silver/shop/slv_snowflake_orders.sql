-- Grain: one marketplace order as it stands now. Written by cdc_scd1: the latest state by the marketplace's own time;
-- of two states at one time the one that was pulled later. A pull has no deletes: an order
-- that vanishes there stays here.
{{ config(
    incremental_strategy='cdc_scd1',
    unique_key='order_id',
    sequence_by=['updated_at', '_file', '_line'],
) }}

select
    order_id,
    marketplace,
    buyer,
    sku,
    quantity,
    currency,
    amount,
    status,
    ordered_at,
    updated_at,
    _file,
    _line,
    _batch_id
from {{ source('bronze', 'snowflake_orders') }}
