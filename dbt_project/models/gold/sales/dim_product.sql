-- Grain: one version of one product, and the unknown member. Merge of the products that changed.
-- As-of joins use applies_from and valid_to: a product's first version applies to everything before it.
{{ config(
    unique_key='product_key',
    replace_by='product_id',
) }}

with slv_products_history as (
    select * from {{ ref('slv_products_history') }}
),

{% if is_incremental() -%}
changed_products as (
    select * from {{ delta_cdc.touched_keys(
        'select product_id from (' ~ delta_cdc.changed_keys('slv_products_history') ~ ')'
    ) }}
),

{% endif -%}
versions as (
    select
        md5(concat_ws('|', slv_products_history.product_id, slv_products_history.valid_from)) as product_key,
        slv_products_history.product_id,
        slv_products_history.sku,
        slv_products_history.name as product_name,
        slv_products_history.category,
        slv_products_history.list_price,
        slv_products_history.active as is_active,
        slv_products_history.is_current,
        case
            when row_number() over (
                partition by slv_products_history.product_id
                order by slv_products_history.valid_from
            ) = 1 then timestamp '0001-01-01 00:00:00'
            else slv_products_history.valid_from
        end as applies_from,
        slv_products_history.valid_from,
        slv_products_history.valid_to
    from slv_products_history
    {%- if is_incremental() %}
    left semi join changed_products on slv_products_history.product_id = changed_products.product_id
    {%- endif %}
),

unknown_member as (
    select
        'unknown' as product_key,
        cast(null as int) as product_id,
        cast(null as string) as sku,
        cast(null as string) as product_name,
        cast(null as string) as category,
        cast(null as decimal(12, 2)) as list_price,
        cast(null as boolean) as is_active,
        true as is_current,
        timestamp '0001-01-01 00:00:00' as applies_from,
        timestamp '0001-01-01 00:00:00' as valid_from,
        cast(null as timestamp) as valid_to
),

products as (
    select * from versions
    union all
    select * from unknown_member
)

select * from products
