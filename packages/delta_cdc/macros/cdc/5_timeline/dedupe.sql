{#-- CTEs of the stored events (`state` is none on the first load) and the new ones, side by side. --#}
{% macro _cdc_events(run, state) -%}
{%- set o, schemas = run.o, run.stored.schemas -%}
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
    from {{ run.stage }}
),

distributed as (
    select * from events distribute by {{ delta_cdc._cdc_columns(o.unique_key) }}
)
{%- endmacro %}


{#-- CTEs to `distinct_events`: of the events at one key and sequence one, with what the others tell. --#}
{% macro _cdc_deduplicated(run) -%}
{%- set o, schemas = run.o, run.stored.schemas -%}
{%- set keys = delta_cdc._cdc_columns(o.unique_key) -%}
{%- set sequence = delta_cdc._cdc_columns(o.sequence) -%}
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
        count_if(not _cdc_stored) over at_sequence as _cdc_new_copies,
        max(_cdc_conflict) over at_sequence as _cdc_tied,
        {%- if o.earliest %}
        min(`{{ o.effective_at }}`) over (partition by {{ keys }}, {{ sequence }}{{ delta_cdc._cdc_repeats(o, schemas) }}) as _cdc_earliest_at,
        {%- endif %}
        max(_cdc_stored) over at_sequence as _cdc_was_stored,
        max(case when not _cdc_stored then {{ '`' ~ o.watermark ~ '`' if o.watermark else 'cast(null as bigint)' }} end)
            over of_key as _cdc_key_batch,
        max(case when _cdc_stored then struct({{ sequence }}) end) over of_key as _cdc_last_stored
    from compared
    window
        at_sequence as (partition by {{ keys }}, {{ sequence }}),
        of_key as (partition by {{ keys }})
),

distinct_events as (
    select * from counted where _cdc_first
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


{#-- Hash of the payload, of the columns that every stored event knew. --#}
{% macro _cdc_known_hash(o, schemas) -%}
    {{ delta_cdc._cdc_payload_hash(o.payload | select('in', delta_cdc._cdc_always_known(schemas)) | list) }}
{%- endmacro %}


{#-- NULLs are left out by to_json, so a column that came later does not move an older event's hash. Sorted by name:
     the order of the SELECT does not count. Timestamps to the microsecond (to_json's own default is milliseconds). --#}
{% macro _cdc_payload_hash(names) -%}
    {%- if not names -%}0{%- else -%}
    sha2(to_json(struct({{ delta_cdc._cdc_columns(names | sort) }}), map('timestampFormat', "yyyy-MM-dd'T'HH:mm:ss.SSSSSS")), 256)
    {%- endif -%}
{%- endmacro %}


{#-- Payload columns that are in every schema so far. --#}
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
