-- Grain: one version of one product. Written by cdc_scd2: one MERGE per run (docs/cdc.md).
-- A change of updated_at alone makes no version: it is what the application wrote, and it sometimes goes back.
{{ config(
    incremental_strategy='cdc_scd2',
    unique_key='product_id',
    sequence_by=['_source_generation', '_source_lsn', '_source_position'],
    effective_at='_source_ts',
    delete_when="_op = 'd'",
    truncate_when="_op = 't'",
    track_history_except=['updated_at'],
) }}

select
    product_id,
    sku,
    name,
    category,
    list_price,
    active,
    updated_at,
    _op,
    _source_generation,
    _source_lsn,
    _source_position,
    _source_ts,
    _unsent,
    _arrived_at,
    _batch_id
from {{ source('bronze', 'shop_products') }}
