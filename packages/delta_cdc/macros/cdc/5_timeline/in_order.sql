{#-- The short way. Most batches are in order: no two of their events share key and sequence, and every event lies after all
     that are applied, by sequence and by effective time. Then there are no duplicates, ties or late events, and of what is
     stored only each key's open version counts: to the timeline it is one event, that began when the version did and
     carries its effective values. From there on both ways are the same SQL. --#}
{#-- The changed rows: the open versions of the touched keys, all of which change, and the new events. --#}
{% macro cdc_timeline_in_order(run, predicate) -%}
{%- set o = dict(run.o, earliest=true) -%}
with
{{ delta_cdc._cdc_open_and_new(dict(run, o=o), predicate) }},

{{ delta_cdc._cdc_filled(o, none) }},

{{ delta_cdc._cdc_runs(o) if o.scd2 else delta_cdc._cdc_last_states(o) }}

select
    {{ delta_cdc._cdc_columns(o.stored) }},
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    {{ '_cdc_now_from' if o.scd2 else 'cast(null as timestamp)' }} as _cdc_valid_from,
    {{ '_cdc_now_to' if o.scd2 else 'cast(null as timestamp)' }} as _cdc_valid_to,
    _cdc_key_batch as _cdc_batch_id,
    {% if o.fill -%}
    case
        when not _cdc_stored then {{ delta_cdc._cdc_filled_struct(o, '_cdc_now_visible') }}
        when _cdc_now_visible then _cdc_filled
    end as _cdc_filled,
    {% endif -%}
    {{ run.stored.schema }} as _cdc_schema,
    not _cdc_stored as _cdc_insert,
    _cdc_stored as _cdc_update
from placed_in_time
{%- endmacro %}


{#-- Whether the event is a truncate: none is, here. A first load reads its source twice; an event that was one then and is two
     now stops it. --#}
{% macro _cdc_still_once(run) -%}
{%- set sequence = delta_cdc._cdc_columns(run.o.sequence) -%}
case
            when lag(struct({{ sequence }})) over (partition by {{ delta_cdc._cdc_columns(run.o.unique_key) }} order by {{ sequence }}) = struct({{ sequence }})
                then raise_error('{{ delta_cdc._cdc_changed_source_text() }}')
            else false
        end
{%- endmacro %}


{#-- Whether the event is a delete. One that the survey of a first load cannot have seen stops it: a truncate, a bad event, or one
     that lies after all that were there. --#}
{% macro _cdc_as_surveyed(run) -%}
{%- set o, reach = run.o, delta_cdc._cdc_read_reach(run.profile) -%}
{%- set unseen = ['_cdc_truncate'] + (delta_cdc._cdc_bad(o).values() | list) -%}
{%- if reach -%}
    {%- do unseen.append('struct(' ~ delta_cdc._cdc_columns(o.sequence) ~ ') > ' ~ delta_cdc._cdc_reached_sequence(o, reach)) -%}
    {%- if o.scd2 -%}{%- do unseen.append('`' ~ o.effective_at ~ '` > ' ~ delta_cdc._cdc_reached_time(o, reach)) -%}{%- endif -%}
{%- endif -%}
case
            when {{ unseen | join(' or ') }} then raise_error('{{ delta_cdc._cdc_changed_source_text() }}')
            else _cdc_deleted
        end
{%- endmacro %}


{#-- The error where a first load's source is another at its second reading. --#}
{% macro _cdc_changed_source_text() -%}
    {{ return(this ~ ': the source changed while it was read. No row was written. Fix: run the model again.') }}
{%- endmacro %}


{#-- CTEs from the open versions and the new events to `segmented`; of a first load there are only these, placed by their key. A
     stored row above the mark means that another run applied some of these events after this one had looked. --#}
{% macro _cdc_open_and_new(run, predicate) -%}
{%- set o = run.o -%}
{%- set keys, sequence = delta_cdc._cdc_columns(o.unique_key), delta_cdc._cdc_columns(o.sequence) -%}
events as (
    {%- if not run.first_load %}
    select
        {%- for name in o.stored %}
        {{ delta_cdc._cdc_of_open_version(o, name) }} as `{{ name }}`,
        {%- endfor %}
        false as _cdc_deleted,
        {{ 'stored._cdc_valid_from as _cdc_earliest_at,' if o.scd2 }}
        {{ delta_cdc._cdc_stored_filled_struct(o) ~ ' as _cdc_filled,' if o.fill }}
        case
            when stored.`{{ o.watermark }}` > {{ run.low }} then raise_error('{{ delta_cdc._cdc_rival_text(run.storage) }}')
            else true
        end as _cdc_stored
    from {{ run.storage }} as stored
    left semi join {{ run.stage }} as touched on {{ delta_cdc._cdc_same(o, o.unique_key, 'stored', 'touched') }}
    where {{ predicate }} and stored._cdc_visible{{ ' and stored._cdc_valid_to is null' if o.scd2 }}
    union all
    {%- endif %}
    select
        {{- delta_cdc._cdc_placed_by_key(o, run.profile['rows_read']) if run.first_load }}
        {{ delta_cdc._cdc_columns(o.stored) }},
        {{ delta_cdc._cdc_as_surveyed(run) ~ ' as _cdc_deleted' if run.first_load else '_cdc_deleted' }},
        {{ 'cast(`' ~ o.effective_at ~ '` as timestamp) as _cdc_earliest_at,' if o.scd2 }}
        {{ 'cast(null as ' ~ delta_cdc._cdc_filled_type(o) ~ ') as _cdc_filled,' if o.fill }}
        false as _cdc_stored
    from {{ run.stage }}
),

segmented as (
    select
        *,
        {{ delta_cdc._cdc_still_once(run) if run.first_load else 'false' }} as _cdc_truncate,
        false as _cdc_overridden,
        false as _cdc_synthetic,
        max(case when not _cdc_stored then `{{ o.watermark }}` end) over (partition by {{ keys }}) as _cdc_key_batch,
        count_if(_cdc_deleted) over (
            partition by {{ keys }} order by {{ sequence }} rows between unbounded preceding and current row
        ) as _cdc_segment
    from events
)
{%- endmacro %}


{#-- What the timeline needs of an open version, so that no other column is read: key, sequence, and the effective values of
     what is tracked or filled. --#}
{% macro _cdc_of_open_version(o, name) -%}
    {%- if name in o.unique_key + o.sequence -%}stored.`{{ name }}`
    {%- elif name in o.fill -%}case when stored._cdc_filled is null then stored.`{{ name }}` else stored._cdc_filled.`{{ name }}` end
    {%- elif o.scd2 and name in o.tracked -%}stored.`{{ name }}`
    {%- else -%}cast(null as {{ o.types[name] }})
    {%- endif -%}
{%- endmacro %}


{#-- The error where another run has committed in between. --#}
{% macro _cdc_rival_text(storage) -%}
    {{ return(storage ~ ': another run changed this table while this one was reading it. No row was written. Fix: run the model again.') }}
{%- endmacro %}
