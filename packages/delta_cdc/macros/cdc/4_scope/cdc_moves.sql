{#-- Key changes (`moved_from`): an event of a new key that did not carry all its values takes them from the key deleted at
     the same values of the `moved_from` columns. `moves` has one row per such event: the new key and sequence, the old key
     and the sequence of its delete. --#}
{% macro cdc_moves(o, state, stage) -%}
{%- set columns -%}{{ delta_cdc._cdc_columns(o.unique_key + o.sequence) }}{%- endset -%}
with events as (
    {%- if state %}
    select {{ delta_cdc._cdc_columns(o.stored) }}, _cdc_deleted, _cdc_truncate from {{ state }} as stored
    union all
    {%- endif %}
    select {{ delta_cdc._cdc_columns(o.stored) }}, _cdc_deleted, _cdc_truncate from {{ stage }} as staged
),

takers as (
    select distinct {{ delta_cdc._cdc_columns(delta_cdc._cdc_distinct(o.unique_key + o.sequence + o.moved_from)) }}
    from events
    where not _cdc_deleted and not _cdc_truncate
        and ({% for name in o.fill %}not ({{ delta_cdc._cdc_sent(o, name) }}){{ ' or ' if not loop.last }}{% endfor %})
),

givers as (
    select distinct {{ delta_cdc._cdc_columns(delta_cdc._cdc_distinct(o.unique_key + o.sequence + o.moved_from)) }}
    from events
    where _cdc_deleted and not _cdc_truncate
)

select
    {{ delta_cdc._cdc_columns(o.unique_key + o.sequence, 'takers') }},
    struct({{ delta_cdc._cdc_columns(o.unique_key, 'givers') }}) as _cdc_old_key,
    struct({{ delta_cdc._cdc_columns(o.sequence, 'givers') }}) as _cdc_move,
    count(*) over (partition by {{ delta_cdc._cdc_columns(o.unique_key + o.sequence, 'takers') }}) as _cdc_givers,
    count(*) over (partition by {{ delta_cdc._cdc_columns(o.unique_key + o.sequence, 'givers') }}) as _cdc_takers
from takers
inner join givers
    on {% for name in o.moved_from %}takers.`{{ name }}` = givers.`{{ name }}` and {% endfor %}
        not ({{ delta_cdc._cdc_equal(o.unique_key, 'takers', 'givers') }})
{%- endmacro %}


{#-- Which segment continues which: one row per moved event, its own segment and, as root, the old key's segment that ended. --#}
{% macro cdc_chains(run, plan) -%}
{%- set o = run.o -%}
{%- set keys = delta_cdc._cdc_columns(o.unique_key) -%}
with
{{ delta_cdc.cdc_segmented(run, plan) }},

placed_segments as (
    select
        *,
        lag(_cdc_segment) over (
            partition by {{ keys }}, _cdc_overridden order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic
        ) as _cdc_segment_before
    from segmented
)

select
    {{ delta_cdc._cdc_columns(o.unique_key, 'taker') }},
    taker._cdc_segment,
    struct({{ delta_cdc._cdc_columns(o.unique_key, 'giver') }}, giver._cdc_segment_before as _cdc_segment) as _cdc_root,
    1 as _cdc_depth
from {{ plan.moves }} as moves
inner join placed_segments as taker
    on {{ delta_cdc._cdc_equal(o.unique_key + o.sequence, 'taker', 'moves') }}
    and not taker._cdc_synthetic
inner join placed_segments as giver
    on {% for key in o.unique_key %}giver.`{{ key }}` <=> moves._cdc_old_key.`{{ key }}` and {% endfor %}
    {%- for name in o.sequence %}giver.`{{ name }}` <=> moves._cdc_move.`{{ name }}` and {% endfor %} not giver._cdc_synthetic
where giver._cdc_segment_before is not null
{%- endmacro %}


{#-- One doubling step along chains of key changes (A → B → C): each root is replaced by its own root. --#}
{% macro cdc_lengthen_chains(o, chains) -%}
select
    {{ delta_cdc._cdc_columns(o.unique_key, 'link') }},
    link._cdc_segment,
    coalesce(further._cdc_root, link._cdc_root) as _cdc_root,
    link._cdc_depth + coalesce(further._cdc_depth, 0) as _cdc_depth
from {{ chains }} as link
left join {{ chains }} as further
    on {% for name in o.unique_key + ['_cdc_segment'] %}further.`{{ name }}` <=> link._cdc_root.`{{ name }}`{{ ' and ' if not loop.last }}{% endfor %}
{%- endmacro %}


{#-- How many links have a root that is itself a link. --#}
{% macro cdc_unfinished_chains(o, chains) -%}
select count(*)
from {{ chains }} as link
left semi join {{ chains }} as further
    on {% for name in o.unique_key + ['_cdc_segment'] %}further.`{{ name }}` <=> link._cdc_root.`{{ name }}`{{ ' and ' if not loop.last }}{% endfor %}
{%- endmacro %}


{#-- Every key that gave or took values in a key change: when one of them is touched, all are re-derived. --#}
{% macro cdc_moved_keys(o, moves) -%}
select {{ delta_cdc._cdc_columns(o.unique_key) }} from {{ moves }}
union all
select {% for key in o.unique_key %}_cdc_old_key.`{{ key }}` as `{{ key }}`{{ ', ' if not loop.last }}{% endfor %} from {{ moves }}
{%- endmacro %}
