{#-- The timeline: from stored and new events of the touched keys to the derived columns of every one of them.
     Rule 3 of docs/cdc.md gives the order of the steps; each is one CTE here.

       events → compared → counted → distinct_events → placed (truncates become deletes of every key with an earlier event)
       → segmented (a delete starts a new segment; values are never carried across) → filled → clamped → collapsed → runs

     All windows are partitioned by the key or by more, and `events` is distributed by the key: one shuffle in all.
     `state` and `stage` are relations or sub-queries, `state` none on the first load. --#}
{% macro cdc_timeline(o, state, stage, high, schemas, truncations=none, chains=none, moves=none) -%}
with
{{ delta_cdc.cdc_segmented(o, state, stage, schemas, truncations, moves) }},

{{ delta_cdc._cdc_filled(o, chains) }},

{{ delta_cdc._cdc_runs(o) if o.scd2 else delta_cdc._cdc_last_states(o) }},

derived as (
    select
        *,
        {{ delta_cdc._cdc_filled_struct(o, '_cdc_now_visible') }} as _cdc_now_filled
    from placed_in_time
),

compared_to_stored as (
    select
        *,
        not _cdc_was_stored as _cdc_insert,
        _cdc_was_stored and (
            not _cdc_stored
            {%- if o.earliest %}
            or not (`{{ o.effective_at }}` <=> {{ delta_cdc._cdc_time(o) }})
            {%- endif %}
            or not (_cdc_now_visible <=> _cdc_visible)
            {%- if o.scd2 %}
            or not (_cdc_now_from <=> _cdc_valid_from)
            or not (_cdc_now_to <=> _cdc_valid_to)
            {%- endif %}
            {%- if o.fill %}
            or not (_cdc_now_filled <=> _cdc_filled)
            {%- endif %}
        ) as _cdc_update
    from derived
    where not _cdc_synthetic
)

select
    {% for name in o.stored -%}
    {{ delta_cdc._cdc_time(o) ~ ' as ' if name == o.effective_at and o.earliest }}`{{ name }}`,
    {% endfor -%}
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    {% if o.scd2 -%}
    _cdc_now_from as _cdc_valid_from,
    _cdc_now_to as _cdc_valid_to,
    {% else -%}
    cast(null as timestamp) as _cdc_valid_from,
    cast(null as timestamp) as _cdc_valid_to,
    {% endif -%}
    coalesce(_cdc_key_batch, {{ high }}) as _cdc_batch_id,
    {% if o.fill -%}
    _cdc_now_filled as _cdc_filled,
    {% endif -%}
    _cdc_schema,
    _cdc_insert,
    _cdc_update,
    _cdc_tied,
    _cdc_new_copies,
    _cdc_insert and struct({{ delta_cdc._cdc_columns(o.sequence) }}) < _cdc_last_stored as _cdc_late,
    {% if o.scd2 -%}
    _cdc_insert and {{ delta_cdc._cdc_time(o) }} < _cdc_effective_at as _cdc_clamped,
    _cdc_now_visible and _cdc_now_to is null and not coalesce(_cdc_visible and _cdc_valid_to is null, false) as _cdc_opens,
    coalesce(_cdc_visible and _cdc_valid_to is null, false) and not (_cdc_now_visible and _cdc_now_to is null) as _cdc_closes
    {%- else -%}
    false as _cdc_clamped,
    _cdc_now_visible and not coalesce(_cdc_visible, false) as _cdc_opens,
    coalesce(_cdc_visible, false) and not _cdc_now_visible as _cdc_closes
    {%- endif %}
from compared_to_stored
where _cdc_insert or _cdc_update or _cdc_new_copies > 0
{%- endmacro %}


{#-- CTEs from the raw events to `segmented`: one row per distinct event, in order, with its segment. --#}
{% macro cdc_segmented(o, state, stage, schemas, truncations=none, moves=none) -%}
{%- set keys = delta_cdc._cdc_columns(o.unique_key) -%}
{%- set sequence = delta_cdc._cdc_columns(o.sequence) -%}
events as (
    {%- if state %}
    select
        {{ delta_cdc._cdc_columns(o.stored) }},
        _cdc_deleted, _cdc_truncate, _cdc_schema, _cdc_visible, _cdc_valid_from, _cdc_valid_to,
        {{ delta_cdc._cdc_stored_filled_struct(o) ~ ' as _cdc_filled,' if o.fill }}
        true as _cdc_stored
    from {{ state }}
    union all
    {%- endif %}
    select
        {{ delta_cdc._cdc_columns(o.stored) }},
        _cdc_deleted, _cdc_truncate, {{ schemas | length - 1 }} as _cdc_schema,
        cast(null as boolean) as _cdc_visible,
        cast(null as timestamp) as _cdc_valid_from,
        cast(null as timestamp) as _cdc_valid_to,
        {{ 'cast(null as ' ~ delta_cdc._cdc_filled_type(o) ~ ') as _cdc_filled,' if o.fill }}
        false as _cdc_stored
    from {{ stage }}
),

distributed as (
    select * from events distribute by {{ keys }}
),

compared as (
    select
        *,
        not (lag(struct({{ sequence }})) over by_key <=> struct({{ sequence }})) as _cdc_first,
        lag(struct({{ sequence }})) over by_key <=> struct({{ sequence }})
            and not ({{ delta_cdc._cdc_same_payload(o, schemas) }}) as _cdc_conflict
    from distributed
    window by_key as (partition by {{ keys }} order by {{ sequence }}, {{ delta_cdc._cdc_winner(o, schemas) }})
),

counted as (
    select
        *,
        count_if(not _cdc_stored) over (partition by {{ keys }}, {{ sequence }}) as _cdc_new_copies,
        max(_cdc_conflict) over (partition by {{ keys }}, {{ sequence }}) as _cdc_tied,
        {%- if o.earliest %}
        min(`{{ o.effective_at }}`) over (partition by {{ keys }}, {{ sequence }}{{ delta_cdc._cdc_repeats(o, schemas) }}) as _cdc_earliest_at,
        {%- endif %}
        max(_cdc_stored) over (partition by {{ keys }}, {{ sequence }}) as _cdc_was_stored,
        max(case when not _cdc_stored then {{ '`' ~ o.watermark ~ '`' if o.watermark else 'cast(null as bigint)' }} end)
            over (partition by {{ keys }}) as _cdc_key_batch,
        max(case when _cdc_stored then struct({{ sequence }}) end) over (partition by {{ keys }}) as _cdc_last_stored
    from compared
),

distinct_events as (
    select * from counted where _cdc_first
),

{{ delta_cdc._cdc_placed(o, truncations) }},

{% if moves -%}
moved as (
    select placed.*, moves._cdc_move is not null as _cdc_moved
    from placed
    left join {{ moves }} as moves
        on {{ delta_cdc._cdc_equal(o.unique_key, 'placed', 'moves') }}
        and {{ delta_cdc._cdc_equal(o.sequence, 'placed', 'moves') }}
        and not placed._cdc_synthetic
),

{% endif -%}
segmented as (
    select
        *,
        count_if(_cdc_deleted {{ 'or _cdc_moved' if moves }}) over (
            partition by {{ keys }}, _cdc_overridden order by {{ sequence }}, _cdc_synthetic
            rows between unbounded preceding and current row
        ) as _cdc_segment
    from {{ 'moved' if moves else 'placed' }}
)
{%- endmacro %}


{#-- Which of several events at one key and sequence stays first. Stored first; with `on_tie: warn` a delete before anything,
     then a hash of the payload, so that the same one wins in every order and batching. --#}
{% macro _cdc_winner(o, schemas) -%}
    {%- if o.on_tie == 'warn' -%}
        _cdc_deleted desc, {{ delta_cdc._cdc_known_hash(o, schemas) }}, _cdc_stored desc, {{ delta_cdc._cdc_payload_hash(o.payload) }}
    {%- else -%}
        _cdc_stored desc
    {%- endif -%}
    {{ ', `' ~ o.watermark ~ '`' if o.watermark }}
{%- endmacro %}


{#-- What, at one key and sequence, makes events repeats of each other: where ties are errors, being there. --#}
{% macro _cdc_repeats(o, schemas) -%}
    {{ ', _cdc_deleted, ' ~ delta_cdc._cdc_known_hash(o, schemas) if o.on_tie == 'warn' }}
{%- endmacro %}


{% macro _cdc_known_hash(o, schemas) -%}
    {{ delta_cdc._cdc_payload_hash(o.payload | select('in', delta_cdc._cdc_always_known(schemas)) | list) }}
{%- endmacro %}


{#-- The column of an event's time: of equal events at one key and sequence the earliest, whichever of them stays. --#}
{% macro _cdc_time(o) -%}
    {{ '_cdc_earliest_at' if o.earliest else '`' ~ o.effective_at ~ '`' }}
{%- endmacro %}


{#-- NULLs are left out by to_json, so a column that came later does not move an older event's hash. Sorted by name:
     the order of the SELECT does not count. Timestamps to the microsecond (to_json's own default is milliseconds). --#}
{% macro _cdc_payload_hash(names) -%}
    {%- if not names -%}0{%- else -%}
    sha2(to_json(struct({{ delta_cdc._cdc_columns(names | sort) }}), map('timestampFormat', "yyyy-MM-dd'T'HH:mm:ss.SSSSSS")), 256)
    {%- endif -%}
{%- endmacro %}


{% macro _cdc_always_known(schemas) -%}
    {%- set known = [] -%}
    {%- for name in schemas[0] -%}
        {%- set missing = [] -%}
        {%- for schema in schemas if name not in schema -%}{%- do missing.append(1) -%}{%- endfor -%}
        {%- if not missing -%}{%- do known.append(name) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(known) }}
{%- endmacro %}


{#-- Null-safe equality of this event's payload and the previous one's, on the columns known when each was stored. --#}
{% macro _cdc_same_payload(o, schemas) -%}
    _cdc_deleted <=> lag(_cdc_deleted) over by_key
    {%- set always = delta_cdc._cdc_always_known(schemas) -%}
    {%- for name in o.payload %}
            and (`{{ name }}` <=> lag(`{{ name }}`) over by_key
        {%- if name not in always -%}
            {%- set without = [] -%}
            {%- for schema in schemas if name not in schema -%}{%- do without.append(schemas.index(schema)) -%}{%- endfor %}
                or _cdc_schema in ({{ without | join(', ') }}) or lag(_cdc_schema) over by_key in ({{ without | join(', ') }})
        {%- endif -%})
    {%- endfor %}
{%- endmacro %}


{#-- Puts a synthetic delete at every truncate that has an earlier event of the key. An event at a truncate's own sequence
     is a tie; with `on_tie: warn` the truncate wins and the event is overridden (kept, never shown). --#}
{% macro _cdc_placed(o, truncations) -%}
{%- if not truncations -%}
placed as (
    select
        *,
        false as _cdc_synthetic,
        false as _cdc_overridden
    from distinct_events
)
{%- else -%}
{%- set sequence = delta_cdc._cdc_columns(o.sequence) -%}
truncations as (
    select collect_list(struct({{ delta_cdc._cdc_columns(o.sequence) }}{% if o.scd2 %}, `_cdc_truncated_at`{% endif %})) as all_of_them
    from {{ truncations }}
),

exploded as (
    select
        distinct_events.*,
        truncate_at
    from (
        select *, row_number() over (partition by {{ delta_cdc._cdc_columns(o.unique_key) }} order by {{ sequence }}) as _cdc_place
        from distinct_events
    ) as distinct_events
    cross join truncations
    lateral view explode(concat(
        array(null),
        filter(all_of_them, t -> _cdc_place = 1 and not _cdc_truncate
            and struct({{ delta_cdc._cdc_columns(o.sequence, 't') }}) > struct({{ sequence }}))
    )) as truncate_at
),

placed as (
    select
        {% for name in o.stored -%}
        {%- if name in o.sequence -%}
        coalesce(truncate_at.`{{ name }}`, `{{ name }}`) as `{{ name }}`
        {%- elif name == o.effective_at and o.scd2 and not o.earliest -%}
        coalesce(truncate_at._cdc_truncated_at, `{{ name }}`) as `{{ name }}`
        {%- else -%}
        `{{ name }}`
        {%- endif -%},
        {% endfor -%}
        _cdc_deleted or truncate_at is not null as _cdc_deleted,
        _cdc_truncate, _cdc_schema, _cdc_visible, _cdc_valid_from, _cdc_valid_to,
        {{ '_cdc_filled,' if o.fill }}
        {{ 'coalesce(truncate_at._cdc_truncated_at, _cdc_earliest_at) as _cdc_earliest_at,' if o.scd2 and o.earliest else '_cdc_earliest_at,' if o.earliest }}
        _cdc_stored, _cdc_new_copies, _cdc_was_stored, _cdc_key_batch, _cdc_last_stored,
        truncate_at is not null as _cdc_synthetic,
        truncate_at is null and not _cdc_truncate and {{ delta_cdc._cdc_at_truncate(o) }} as _cdc_overridden,
        _cdc_tied or (truncate_at is null and not _cdc_truncate and not _cdc_deleted and {{ delta_cdc._cdc_at_truncate(o) }}) as _cdc_tied
    from exploded
    cross join truncations
)
{%- endif -%}
{%- endmacro %}


{% macro _cdc_at_truncate(o) -%}
exists(all_of_them, t -> struct({{ delta_cdc._cdc_columns(o.sequence, 't') }}) = struct({{ delta_cdc._cdc_columns(o.sequence) }}))
{%- endmacro %}


{#-- Effective values: what was sent, else the last value sent before it in the segment (and, after a key change, in the
     segment of the old key that it continues). --#}
{% macro _cdc_filled(o, chains) -%}
{%- if not o.fill -%}
filled as (
    select * from segmented
)
{%- else -%}
{%- if chains -%}
chained as (
    select
        segmented.*,
        coalesce(chains._cdc_root, struct({{ delta_cdc._cdc_columns(o.unique_key, 'segmented') }}, segmented._cdc_segment as _cdc_segment)) as _cdc_chain,
        coalesce(chains._cdc_depth, 0) as _cdc_depth
    from segmented
    left join {{ chains }} as chains
        on {{ delta_cdc._cdc_equal(o.unique_key + ['_cdc_segment'], 'segmented', 'chains') }}
),

{% endif -%}
filled as (
    select
        *
        {%- for name in o.fill %},
        last_value(case when {{ delta_cdc._cdc_sent(o, name) }} then struct(`{{ name }}` as value) end, true) over in_segment.value as `_cdc_value_{{ name }}`
        {%- endfor %}
    from {{ 'chained' if chains else 'segmented' }}
    window in_segment as (
        {%- if chains %}
        partition by _cdc_chain, _cdc_overridden order by _cdc_depth, {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic
        {%- else %}
        partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden, _cdc_segment order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic
        {%- endif %}
        rows between unbounded preceding and current row
    )
)
{%- endif -%}
{%- endmacro %}


{#-- Whether an event carried a value for the column. --#}
{% macro _cdc_sent(o, name) -%}
    not _cdc_deleted
    {%- if o.unsent %} and not coalesce(array_contains(`{{ o.unsent }}`, '{{ delta_cdc._cdc_escape(name) }}'), false){% endif -%}
    {%- if name in o.ignore_null %} and `{{ name }}` is not null{% endif -%}
{%- endmacro %}


{#-- scd1: the last event of a key is its state. --#}
{% macro _cdc_last_states(o) -%}
placed_in_time as (
    select
        *,
        not _cdc_deleted and not _cdc_truncate and not _cdc_overridden
            and lead(_cdc_segment) over (
                partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic
            ) is null as _cdc_now_visible
    from filled
)
{%- endmacro %}


{#-- scd2: clamp, collapse, then runs of events that are equal on the tracked columns. --#}
{% macro _cdc_runs(o) -%}
{%- set in_order -%}partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic{%- endset -%}
{%- set shown_in_order -%}partition by {{ delta_cdc._cdc_columns(o.unique_key) }}, _cdc_overridden, _cdc_shown order by {{ delta_cdc._cdc_columns(o.sequence) }}, _cdc_synthetic{%- endset -%}
{%- set tracked -%}struct(_cdc_deleted as _cdc_deleted{% for name in o.tracked %}, {{ delta_cdc._cdc_value(o, name) }} as `{{ name }}`{% endfor %}){%- endset -%}
clamped as (
    select
        *,
        max({{ delta_cdc._cdc_time(o) }}) over ({{ in_order }} rows between unbounded preceding and current row) as _cdc_effective_at
    from filled
),

collapsed as (
    select
        *,
        not _cdc_truncate and not _cdc_overridden
            and not (lead(_cdc_effective_at) over ({{ in_order }}) <=> _cdc_effective_at) as _cdc_shown
    from clamped
),

headed as (
    select
        *,
        _cdc_shown and not _cdc_deleted and not (lag({{ tracked }}) over ({{ shown_in_order }}) <=> {{ tracked }}) as _cdc_head
    from collapsed
),

runs as (
    select
        *,
        _cdc_shown and not _cdc_deleted
            and coalesce(lead(_cdc_head or _cdc_deleted) over ({{ shown_in_order }}), true) as _cdc_now_visible,
        max(case when _cdc_head then _cdc_effective_at end) over (
            {{ shown_in_order }} rows between unbounded preceding and current row
        ) as _cdc_run_from,
        lead(_cdc_effective_at) over ({{ shown_in_order }}) as _cdc_run_to
    from headed
),

placed_in_time as (
    select
        *,
        case when _cdc_now_visible then cast(_cdc_run_from as timestamp) end as _cdc_now_from,
        case when _cdc_now_visible then cast(_cdc_run_to as timestamp) end as _cdc_now_to
    from runs
)
{%- endmacro %}


{#-- The column that holds a column's effective value inside the timeline. --#}
{% macro _cdc_value(o, name) -%}
    {{ '`_cdc_value_' ~ name ~ '`' if name in o.fill else '`' ~ name ~ '`' }}
{%- endmacro %}


{#-- Effective values of a shown row, NULL where they are the raw ones (nearly always). --#}
{% macro _cdc_filled_struct(o, visible) -%}
{%- if not o.fill -%}null{%- else -%}
case when {{ visible }} and not (
    {%- for name in o.fill -%}
    `_cdc_value_{{ name }}` <=> `{{ name }}`{{ ' and ' if not loop.last }}
    {%- endfor -%}
) then named_struct({% for name in o.fill %}'{{ delta_cdc._cdc_escape(name) }}', `_cdc_value_{{ name }}`{{ ', ' if not loop.last }}{% endfor %}) end
{%- endif -%}
{%- endmacro %}


{#-- The stored values in today's columns and order: a struct is united by position. --#}
{% macro _cdc_stored_filled_struct(o) -%}
case when _cdc_filled is not null then named_struct(
    {%- for name in o.fill %}'{{ delta_cdc._cdc_escape(name) }}', _cdc_filled.`{{ name }}`{{ ', ' if not loop.last }}{% endfor -%}
) end
{%- endmacro %}


{% macro _cdc_filled_type(o) -%}
struct<{% for name in o.fill %}`{{ name }}`:{{ o.types[name] }}{{ ', ' if not loop.last }}{% endfor %}>
{%- endmacro %}
