-- Fails when two versions of one customer apply at the same time.
-- Why it matters: an as-of join would count the customer's orders twice.
-- First action: compare with slv_contacts_history.
-- Not a check for gaps: a customer who was deleted and came back has one.
with versions as (
    select
        customer_id,
        applies_from,
        valid_to,
        lead(applies_from) over (partition by customer_id order by applies_from, valid_from) as next_applies_from
    from {{ ref('dim_customer') }}
)

select *
from versions
where next_applies_from is not null
    and (valid_to is null or valid_to > next_applies_from)
