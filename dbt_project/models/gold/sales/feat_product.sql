-- Grain: a product's features at a moment (valid_at), as they were known from another moment on (known_at). Merge, all
-- rows of the products that changed. A late change adds a row and takes none back: what was believed stays.
{{ config(
    unique_key=['product_id', 'valid_at', 'known_at'],
    replace_by='product_id',
) }}

with product_changes as (
    select * from {{ delta_cdc.cdc_storage(ref('slv_products_history')) }}
),

{% if is_incremental() -%}
{% set touched = 'select product_id from (' ~ delta_cdc.changed_keys('slv_products_history') ~ ')' -%}
touched_products as (
    select * from {{ delta_cdc.touched_keys(touched) }}
),

{% endif -%}
product_events as (
    select
        product_id,
        -- As the engine clamps it: a clock that went back does not change the order of a key's changes.
        max(_source_ts) over (
            partition by product_id
            order by _source_generation, _source_lsn, _source_position
            rows between unbounded preceding and current row
        ) as valid_at,
        _arrived_at as known_at,
        struct(_source_generation, _source_lsn, _source_position) as place,
        case when not _cdc_deleted then category end as category,
        case when not _cdc_deleted then list_price end as list_price,
        case when not _cdc_deleted then active end as is_active
    from product_changes
    where not _cdc_truncate
),

truncates as (
    select
        _source_ts as valid_at,
        _arrived_at as known_at,
        struct(_source_generation, _source_lsn, _source_position) as place
    from product_changes
    where _cdc_truncate
),

events as (
    select * from product_events
    union all
    select distinct
        product_events.product_id,
        truncates.valid_at,
        truncates.known_at,
        truncates.place,
        cast(null as string) as category,
        cast(null as decimal(12, 2)) as list_price,
        cast(null as boolean) as is_active
    from product_events
    inner join truncates on product_events.place < truncates.place
),

-- Of the changes of one moment that were known by then, the last counts.
last_known as (
    select
        *,
        max(place) over (partition by product_id, valid_at order by known_at) as last_place
    from events
),

features as (
    select
        last_known.product_id,
        last_known.valid_at,
        last_known.known_at,
        last_known.category,
        last_known.list_price,
        last_known.is_active
    from last_known
    {%- if is_incremental() %}
    left semi join touched_products on last_known.product_id = touched_products.product_id
    {%- endif %}
    where last_known.place = last_known.last_place
)

select * from features
