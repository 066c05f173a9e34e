-- Grain: a customer's features at a moment (valid_at), as they were known from another moment on (known_at). Merge, all
-- rows of the customers that changed. A late event adds rows and takes none back: what was believed stays.
-- No amounts: rates are revised, and a feature must not know them earlier than a reader did. An order counts from
-- when it was placed, whatever becomes of it.
{{ config(
    unique_key=['customer_id', 'valid_at', 'known_at'],
    replace_by='customer_id',
) }}

with contact_changes as (
    select * from {{ delta_cdc.cdc_storage(ref('slv_contacts_history')) }}
),

order_changes as (
    select * from {{ delta_cdc.cdc_storage(ref('slv_shop_orders')) }}
),

{% if is_incremental() -%}
{% set touched -%}
    select contact_id as customer_id from ({{ delta_cdc.changed_keys('slv_contacts_history') }})
    union all
    select order_changes.customer_id
    from {{ delta_cdc.cdc_storage(ref('slv_shop_orders')) }} as order_changes
    left semi join ({{ delta_cdc.changed_keys('slv_shop_orders') }}) as changed_orders
        on order_changes.order_id = changed_orders.order_id
{%- endset -%}
touched_customers as (
    select * from {{ delta_cdc.touched_keys(touched) }}
),

{% endif -%}
contact_events as (
    select
        contact_id as customer_id,
        -- As the engine clamps it: a clock that went back does not change the order of a key's changes.
        max(_source_ts) over (
            partition by contact_id
            order by _source_generation, _source_lsn, _source_position
            rows between unbounded preceding and current row
        ) as valid_at,
        _arrived_at as known_at,
        struct(_source_generation, _source_lsn, _source_position) as place,
        case when not _cdc_deleted then lifecycle_stage end as lifecycle_stage,
        case when not _cdc_deleted then marketing_opt_in end as marketing_opt_in,
        false as is_order
    from contact_changes
    where not _cdc_truncate
),

truncates as (
    select
        _source_ts as valid_at,
        _arrived_at as known_at,
        struct(_source_generation, _source_lsn, _source_position) as place
    from contact_changes
    where _cdc_truncate
),

truncated_contacts as (
    select distinct
        contact_events.customer_id,
        truncates.valid_at,
        truncates.known_at,
        truncates.place,
        cast(null as string) as lifecycle_stage,
        cast(null as boolean) as marketing_opt_in,
        false as is_order
    from contact_events
    inner join truncates on contact_events.place < truncates.place
),

order_events as (
    select
        min_by(customer_id, struct(_arrived_at, _source_generation, _source_lsn, _source_position)) as customer_id,
        min(ordered_at) as valid_at,
        min(_arrived_at) as known_at,
        null as place,
        cast(null as string) as lifecycle_stage,
        cast(null as boolean) as marketing_opt_in,
        true as is_order
    from order_changes
    where ordered_at is not null and customer_id is not null and not _cdc_deleted
    group by order_id
),

all_events as (
    select * from contact_events
    union all
    select * from truncated_contacts
    union all
    select * from order_events
),

events as (
    select all_events.*
    from all_events
    {%- if is_incremental() %}
    left semi join touched_customers on all_events.customer_id = touched_customers.customer_id
    {%- endif %}
),

-- A moment is known anew when an event before it arrives after it.
moments as (
    select distinct
        events.customer_id,
        events.valid_at,
        greatest(events.known_at, earlier.known_at) as known_at
    from events
    inner join events as earlier
        on events.customer_id = earlier.customer_id
        and events.valid_at >= earlier.valid_at
),

features as (
    select
        moments.customer_id,
        moments.valid_at,
        moments.known_at,
        max_by(events.lifecycle_stage, events.place) as lifecycle_stage,
        max_by(events.marketing_opt_in, events.place) as is_marketing_opted_in,
        count_if(events.is_order) as order_count,
        min(case when events.is_order then events.valid_at end) as first_ordered_at,
        max(case when events.is_order then events.valid_at end) as last_ordered_at
    from moments
    inner join events
        on moments.customer_id = events.customer_id
        and moments.valid_at >= events.valid_at
        and moments.known_at >= events.known_at
    group by moments.customer_id, moments.valid_at, moments.known_at
)

select * from features
