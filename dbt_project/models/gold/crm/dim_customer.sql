-- Grain: one version of one customer (a CRM contact), and the unknown member. Merge of the customers that changed.
-- As-of joins use applies_from and valid_to: a customer's first version applies to everything before it, because the
-- source's snapshot does not say since when it was so.
{{ config(
    unique_key='customer_key',
    replace_by='customer_id',
) }}

with slv_contacts_history as (
    select * from {{ ref('slv_contacts_history') }}
),

{% if is_incremental() -%}
changed_customers as (
    select * from {{ delta_cdc.touched_keys(
        'select contact_id as customer_id from (' ~ delta_cdc.changed_keys('slv_contacts_history') ~ ')'
    ) }}
),

{% endif -%}
versions as (
    select
        md5(concat_ws('|', slv_contacts_history.contact_id, slv_contacts_history.valid_from)) as customer_key,
        slv_contacts_history.contact_id as customer_id,
        slv_contacts_history.account_id,
        slv_contacts_history.email,
        slv_contacts_history.first_name,
        slv_contacts_history.last_name,
        slv_contacts_history.lifecycle_stage,
        slv_contacts_history.marketing_opt_in as has_marketing_opt_in,
        slv_contacts_history.is_current,
        case
            when row_number() over (
                partition by slv_contacts_history.contact_id
                order by slv_contacts_history.valid_from
            ) = 1 then timestamp '0001-01-01 00:00:00'
            else slv_contacts_history.valid_from
        end as applies_from,
        slv_contacts_history.valid_from,
        slv_contacts_history.valid_to
    from slv_contacts_history
    {%- if is_incremental() %}
    left semi join changed_customers on slv_contacts_history.contact_id = changed_customers.customer_id
    {%- endif %}
),

unknown_member as (
    select
        'unknown' as customer_key,
        cast(null as string) as customer_id,
        cast(null as string) as account_id,
        cast(null as string) as email,
        cast(null as string) as first_name,
        cast(null as string) as last_name,
        cast(null as string) as lifecycle_stage,
        cast(null as boolean) as has_marketing_opt_in,
        true as is_current,
        timestamp '0001-01-01 00:00:00' as applies_from,
        timestamp '0001-01-01 00:00:00' as valid_from,
        cast(null as timestamp) as valid_to
),

customers as (
    select * from versions
    union all
    select * from unknown_member
)

select * from customers
