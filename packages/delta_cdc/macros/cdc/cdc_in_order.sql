{#-- The short way. Most batches are in order: no two of their events share key and sequence, and every event lies after all
     that are applied, by sequence and by effective time. Then there are no duplicates, ties or late events, and of what is
     stored only each key's open version counts: to the timeline it is one event, that began when the version did and
     carries its effective values. From there on both ways are the same SQL. --#}

{#-- Whether a run goes the short way: never after a commit that is not a noted one, which may have changed rows by hand. --#}
{% macro cdc_may_go_in_order(run) -%}
    {{ return(run.profile.get('in_order') and run.applied.is_noted and not run.stored.rederive) }}
{%- endmacro %}


{#-- One row about the staged events of an incremental run: what cdc_stage_profile says, the keys' ranges, whether they are
     in order (`reach`: how far what is applied reaches, or none), and the counts of the short way. --#}
{% macro cdc_survey(o, stage, reach) -%}
{%- set keys, sequence = delta_cdc._cdc_columns(o.unique_key), delta_cdc._cdc_columns(o.sequence) -%}
{%- set key = delta_cdc._cdc_range_key(o) -%}
{%- set bad = delta_cdc._cdc_bad(o) -%}
with events as (
    select
        *,
        coalesce(lag(struct({{ sequence }})) over in_sequence = struct({{ sequence }}), false) as _cdc_repeats,
        {{ 'coalesce(max(`' ~ o.effective_at ~ '`) over so_far > `' ~ o.effective_at ~ '`, false)' if o.scd2 else 'false' }} as _cdc_clamped
    from {{ stage }}
    window
        in_sequence as (partition by {{ keys }} order by {{ sequence }}),
        so_far as (partition by {{ keys }} order by {{ sequence }} rows between unbounded preceding and 1 preceding)
),

by_key as (
    select
        {{ keys }},
        count(*) as _cdc_events,
        count_if(_cdc_truncate) as _cdc_truncates,
        count_if(_cdc_deleted) as _cdc_deletes,
        {%- for name, condition in bad.items() %}
        count_if({{ condition }}) as _cdc_{{ name }},
        {%- endfor %}
        count_if({{ delta_cdc._cdc_may_be_key_change(o) }}) as _cdc_moves,
        count_if(_cdc_clamped) as _cdc_clamped,
        max(_cdc_repeats) as _cdc_repeats,
        max_by(_cdc_deleted, struct({{ sequence }})) as _cdc_ends_deleted,
        min(`{{ o.watermark }}`) as _cdc_first_batch,
        max(`{{ o.watermark }}`) as _cdc_last_batch,
        {%- if o.scd2 %}
        min(`{{ o.effective_at }}`) as _cdc_first_at,
        max(`{{ o.effective_at }}`) as _cdc_last_at,
        {%- endif %}
        min(struct({{ sequence }})) as _cdc_first,
        max(struct({{ sequence }})) as _cdc_last
    from events
    group by {{ keys }}
),

{% if key -%}
{{ delta_cdc.cdc_bucketed(key, o.types[key], 'by_key') }},

{% endif -%}
ranges as (
    select
        {{ delta_cdc._cdc_range(key) if key else 'cast(null as struct<lowest: string, highest: string>)' }} as _cdc_range,
        count_if(not _cdc_ends_deleted) as _cdc_opened,
        {%- for name in ['events', 'truncates', 'deletes', 'moves', 'clamped'] + (bad | list) %}
        sum(_cdc_{{ name }}) as _cdc_{{ name }},
        {%- endfor %}
        {%- for name in ['first_batch', 'first'] + (['first_at'] if o.scd2 else []) %}
        min(_cdc_{{ name }}) as _cdc_{{ name }},
        {%- endfor %}
        {%- for name in ['last_batch', 'last'] + (['last_at'] if o.scd2 else []) %}
        max(_cdc_{{ name }}) as _cdc_{{ name }},
        {%- endfor %}
        max(_cdc_repeats) as _cdc_repeats
    from {{ 'bucketed group by _cdc_bucket' if key else 'by_key' }}
)

select
    coalesce(sum(_cdc_events), 0) as rows_read,
    coalesce(sum(_cdc_opened), 0) as opened,
    {%- for name in ['truncates', 'deletes', 'clamped'] + (bad | list) %}
    coalesce(sum(_cdc_{{ name }}), 0) as {{ name }},
    {%- endfor %}
    concat('=', cast(min(_cdc_first_batch) as string)) as first_batch,
    concat('=', cast(max(_cdc_last_batch) as string)) as last_batch,
    {{ delta_cdc._cdc_in_order(o, reach) }} as in_order,
    {{ delta_cdc._cdc_reach(o, 'max(_cdc_last)', 'max(_cdc_last_at)', reach) }} as reach,
    {{ delta_cdc._cdc_json('collect_list(case when _cdc_range.lowest is not null then _cdc_range end)') }} as ranges
from ranges
{%- endmacro %}


{#-- With `moved_from`, whether an event may give values to another key or take some: a delete, or a value that was not sent. --#}
{% macro _cdc_may_be_key_change(o) -%}
    {%- if not (o.moved_from and o.fill) -%}false
    {%- else -%}{% for name in o.fill %}not ({{ delta_cdc._cdc_sent(o, name) }}){{ ' or ' if not loop.last }}{% endfor %}
    {%- endif -%}
{%- endmacro %}


{#-- The proof, over the groups of the survey. Strictly after: an event at the time of an applied one would hide it. Truncates
     close every key, and key changes reach other keys. --#}
{% macro _cdc_in_order(o, reach) -%}
{%- if not reach -%}false{%- else -%}
coalesce(
        not max(_cdc_repeats)
        and min(_cdc_first) > {{ delta_cdc._cdc_reached_sequence(o, reach) }}
        {%- if o.scd2 %}
        and min(_cdc_first_at) > {{ delta_cdc._cdc_reached_time(o, reach) }}
        {%- endif %}
        and sum(_cdc_truncates + _cdc_moves{% for name in delta_cdc._cdc_bad(o) %} + _cdc_{{ name }}{% endfor %}) = 0,
        false)
{%- endif -%}
{%- endmacro %}


{#-- The changed rows: the open versions of the touched keys, all of which change, and the new events. --#}
{% macro cdc_timeline_in_order(o, storage, stage, schemas, predicate, low) -%}
{%- set o = dict(o, earliest=true) -%}
with
{{ delta_cdc._cdc_open_and_new(o, storage, stage, predicate, low) }},

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
    {{ schemas | length - 1 }} as _cdc_schema,
    not _cdc_stored as _cdc_insert,
    _cdc_stored as _cdc_update
from placed_in_time
{%- endmacro %}


{#-- CTEs from the open versions and the new events to `segmented`. A stored row above the mark means that another run applied
     some of these events after this one had looked. --#}
{% macro _cdc_open_and_new(o, storage, stage, predicate, low) -%}
{%- set keys, sequence = delta_cdc._cdc_columns(o.unique_key), delta_cdc._cdc_columns(o.sequence) -%}
events as (
    select
        {%- for name in o.stored %}
        {{ delta_cdc._cdc_of_open_version(o, name) }} as `{{ name }}`,
        {%- endfor %}
        false as _cdc_deleted,
        {{ 'stored._cdc_valid_from as _cdc_earliest_at,' if o.scd2 }}
        {{ delta_cdc._cdc_stored_filled_struct(o) ~ ' as _cdc_filled,' if o.fill }}
        case
            when stored.`{{ o.watermark }}` > {{ low }} then raise_error({{ delta_cdc._cdc_rival_text(storage) }})
            else true
        end as _cdc_stored
    from {{ storage }} as stored
    left semi join {{ stage }} as touched on {{ delta_cdc._cdc_equal(o.unique_key, 'stored', 'touched') }}
    where {{ predicate }} and stored._cdc_visible{{ ' and stored._cdc_valid_to is null' if o.scd2 }}
    union all
    select
        {{ delta_cdc._cdc_columns(o.stored) }},
        _cdc_deleted,
        {{ 'cast(`' ~ o.effective_at ~ '` as timestamp),' if o.scd2 }}
        {{ 'cast(null as ' ~ delta_cdc._cdc_filled_type(o) ~ '),' if o.fill }}
        false
    from {{ stage }}
),

segmented as (
    select
        *,
        false as _cdc_truncate,
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


{% macro _cdc_rival_text(storage) -%}
    '{{ storage }}: another run changed this table while this one was reading it. Nothing was written. Fix: run the model again.'
{%- endmacro %}


{#-- Runs it. Every open version of a touched key is closed or, as a run goes on, hidden; so the counts are those of MERGE. --#}
{% macro cdc_apply_in_order(run) -%}
    {%- set o, profile = run.o, run.profile -%}
    {%- set predicate = delta_cdc.cdc_range_predicate(delta_cdc._cdc_range_key(o), o.types[delta_cdc._cdc_range_key(o)], delta_cdc._cdc_listed_ranges(profile['ranges']), 'stored') -%}
    {%- set timeline = delta_cdc.cdc_timeline_in_order(o, run.storage, run.stage, run.stored.schemas, predicate, run.low) -%}
    {#- Few rows are sent to where the table's are; MERGE cannot know how few, and would sort the table's for the join. -#}
    {%- set source = '(select ' ~ ('/*+ broadcast(timeline) */ ' if profile['rows_read'] <= 100000) ~ '* from (\n' ~ timeline ~ '\n) as timeline)' -%}
    {%- set derived = ['_cdc_batch_id', '_cdc_valid_from', '_cdc_valid_to', '_cdc_visible'] + (['_cdc_filled'] if o.fill else []) -%}
    {%- set merged = delta_cdc._cdc_merge_once(run, delta_cdc.cdc_merge(o, run.storage, source, predicate, derived)) -%}
    {{ return({
        'read': profile['rows_read'], 'inserted': merged['num_inserted_rows'], 'updated': merged['num_updated_rows'],
        'opened': profile['opened'], 'closed': merged['num_updated_rows'], 'deletes': profile['deletes'], 'clamped': profile['clamped'],
        'newest': run.marks.high_text,
    }) }}
{%- endmacro %}
