-- Contacts touched by the last batch, vanished ones included, with what they look like now.
with changes as (
    select * from {{ delta_cdc.cdc_changes(ref('slv_contacts_history')) }}
),

slv_contacts as (
    select * from {{ ref('slv_contacts') }}
)

select
    changes.contact_id,
    slv_contacts.contact_id is null as is_gone,
    slv_contacts.lifecycle_stage,
    slv_contacts.valid_from
from changes
left join slv_contacts on changes.contact_id = slv_contacts.contact_id
where changes._batch_id = (select max(latest._batch_id) from changes as latest)
