{#- A history's versions: each starts before it ends, none overlaps the next, at most one is open. -#}
{% test versions_are_sound(model, key) %}
with versions as (
    select
        {{ key | join(', ') }},
        valid_from,
        valid_to,
        lead(valid_from) over (partition by {{ key | join(', ') }} order by valid_from) as next_valid_from
    from {{ model }}
)

select *
from versions
where valid_from is null
    or valid_from >= valid_to
    or (next_valid_from is not null and (valid_to is null or valid_to > next_valid_from))
{% endtest %}
