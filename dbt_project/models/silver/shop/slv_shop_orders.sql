-- Grain: one order as it stands now. Written by cdc_scd1: one MERGE per run (docs/cdc.md).
{{ config(
    incremental_strategy='cdc_scd1',
    unique_key='order_id',
    sequence_by=['_source_generation', '_source_lsn', '_source_position'],
    delete_when="_op = 'd'",
    truncate_when="_op = 't'",
) }}

select
    order_id,
    customer_id,
    ordered_at,
    status,
    currency,
    total_amount,
    updated_at,
    _op,
    _source_generation,
    _source_lsn,
    _source_position,
    _source_ts,
    _unsent,
    _arrived_at,
    _batch_id
from {{ source('bronze', 'shop_orders') }}
