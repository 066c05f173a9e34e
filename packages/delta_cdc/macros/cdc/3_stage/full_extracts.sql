{#-- With `full_extracts`, each value of the sequence is one complete extract. Its events are its rows, and a delete of each key that
     the extract before it has and it lacks. All rows are stored, so the storage table knows which keys each extract had: a late
     extract also gives deletes to the one after it, of the keys that only the late one had. --#}

{#-- The keys of every extract: of the new ones in `arrived`, and of those in `storage`, which is none on a first load. --#}
{% macro cdc_extract_members(o, arrived, storage) -%}
{%- set columns = delta_cdc._cdc_columns(delta_cdc._cdc_distinct(o.unique_key + o.sequence + delta_cdc._cdc_extract_time(o) + [o.watermark])) -%}
select {{ columns }}, true as _cdc_is_new from {{ arrived }}
{%- if storage %}
union all
select {{ columns }}, false from {{ storage }} where not _cdc_deleted
{%- endif %}
{%- endmacro %}


{#-- The new events of full extracts: the rows of `arrived`, as cdc_stage returns them, and a delete of each key that should be in an
     extract and is not. It has no CTE: Spark does not find such a cached table in a statement with CTEs of its own. --#}
{% macro cdc_extracted_events(o, arrived, members) -%}
{%- set extract = delta_cdc._cdc_distinct(o.sequence + delta_cdc._cdc_extract_time(o)) -%}
{%- set key_and_extract = delta_cdc._cdc_columns(o.unique_key + extract) -%}
select {{ delta_cdc._cdc_columns(o.stored) }}, _cdc_deleted, _cdc_truncate, _cdc_arrived_at
from {{ arrived }}
union all
select
    {%- for name in o.stored %}
    {{ '`' ~ name ~ '`' if name in o.unique_key + extract else 'max(_cdc_batch)' if name == o.watermark else 'cast(null as ' ~ o.types[name] ~ ')' }} as `{{ name }}`,
    {%- endfor %}
    true as _cdc_deleted,
    false as _cdc_truncate,
    current_timestamp() as _cdc_arrived_at
from (
    select
        {{ delta_cdc._cdc_columns(o.unique_key, 'before') }},
        {{ delta_cdc._cdc_columns(extract, 'followed') }},
        case when followed._cdc_is_new then _cdc_last_batch else _cdc_previous_batch end as _cdc_batch,
        false as _cdc_is_present
    from (
        {{ delta_cdc._cdc_followed(o, members) | indent(8) }}
    ) as followed
    inner join {{ members }} as before
        on {% for name in o.sequence %}before.`{{ name }}` = followed._cdc_previous.`{{ name }}`{{ ' and ' if not loop.last }}{% endfor %}
    where followed._cdc_is_new or _cdc_previous_is_new
    union all
    select {{ key_and_extract }}, cast(null as {{ o.types[o.watermark] }}), true from {{ members }}
)
group by {{ key_and_extract }}
having not max(_cdc_is_present)
{%- endmacro %}


{#-- The extracts, each with the one before it. --#}
{% macro _cdc_followed(o, members) -%}
{%- set sequence = delta_cdc._cdc_columns(o.sequence) -%}
select
    *,
    lag(_cdc_extract) over by_place as _cdc_previous,
    lag(_cdc_last_batch) over by_place as _cdc_previous_batch,
    lag(_cdc_is_new) over by_place as _cdc_previous_is_new,
    lag(_cdc_keys) over by_place as _cdc_previous_keys
from (
    select
        {{ sequence }},
        struct({{ sequence }}) as _cdc_extract,
        {% for name in delta_cdc._cdc_extract_time(o) if name not in o.sequence -%}
        min(`{{ name }}`) as `{{ name }}`,
        {% endfor -%}
        max(`{{ o.watermark }}`) as _cdc_last_batch,
        max(_cdc_is_new) as _cdc_is_new,
        count(distinct {{ delta_cdc._cdc_columns(o.unique_key) }}) as _cdc_keys
    from {{ members }}
    group by {{ sequence }}
)
window by_place as (order by {{ sequence }})
{%- endmacro %}


{#-- The column of an extract's time, in a list. --#}
{% macro _cdc_extract_time(o) -%}
    {{ return([o.effective_at] if o.effective_at else []) }}
{%- endmacro %}


{#-- Batches whose rows are not of one extract. --#}
{% macro cdc_mixed_extracts(o, staged) -%}
{%- set extract = delta_cdc._cdc_distinct(o.sequence + delta_cdc._cdc_extract_time(o)) -%}
select concat('=', cast(`{{ o.watermark }}` as string)) as batch, count(distinct {{ delta_cdc._cdc_columns(extract) }}) as extracts
from {{ staged }}
where not _cdc_deleted
group by `{{ o.watermark }}`
having count(distinct {{ delta_cdc._cdc_columns(extract) }}) > 1
order by `{{ o.watermark }}`
{%- endmacro %}


{#-- Extracts that lack more than `max_delete_share` of the keys of the one before. --#}
{% macro cdc_mass_deletes(o, staged, members) -%}
select
    {{ delta_cdc._cdc_json('array(cast(followed._cdc_extract as string), cast(_cdc_deletes as string), cast(_cdc_previous_keys as string), cast(_cdc_examples as string), cast(_cdc_last_batch as string))') }} as said
from (
    {{ delta_cdc._cdc_followed(o, members) | indent(4) }}
) as followed
inner join (
    select
        {{ delta_cdc._cdc_columns(o.sequence) }},
        count(*) as _cdc_deletes,
        slice(collect_list(struct({{ delta_cdc._cdc_shown(o.unique_key) }})), 1, 3) as _cdc_examples
    from {{ staged }}
    where _cdc_deleted
    group by {{ delta_cdc._cdc_columns(o.sequence) }}
) as deleted on {{ delta_cdc._cdc_equal(o.sequence, 'followed', 'deleted') }}
where _cdc_deletes > {{ o.max_delete_share }} * _cdc_previous_keys
order by _cdc_extract
{%- endmacro %}


{#-- Stops the model, before anything is written, at rows that are no full extract and at one that lacks too many keys. --#}
{% macro _cdc_stop_on_bad_extracts(run) -%}
    {%- set o = run.o -%}
    {%- set mixed = run_query(delta_cdc.cdc_mixed_extracts(o, run.staged)).rows -%}
    {%- if mixed -%}
        {%- do delta_cdc._cdc_fail('full_extracts', 'one value of ' ~ delta_cdc._cdc_distinct(o.sequence + delta_cdc._cdc_extract_time(o)) | join(', ')
            ~ ' in all rows of an extract (a value of ' ~ o.watermark ~ '), for its place and time', mixed[0]['extracts'] ~ ' in ' ~ o.watermark ~ ' '
            ~ delta_cdc._cdc_text(mixed[0]['batch']) ~ '; nothing was written', 'name the time or number of the extract, not of its rows') -%}
    {%- endif -%}
    {%- set passed = delta_cdc._cdc_json_rows(delta_cdc.cdc_mass_deletes(o, run.staged, run.staged ~ '_members')) -%}
    {%- if passed -%}
        {%- set extract, deletes, keys, examples, batch = passed[0] -%}
        {%- do exceptions.raise_compiler_error(this ~ ': the full extract ' ~ extract ~ ' lacks ' ~ deletes ~ ' of the ' ~ keys
            ~ ' keys of the extract before it. The first: ' ~ examples ~ '. Expected no more than max_delete_share=' ~ o.max_delete_share
            ~ '. Nothing was written. Fix, one of:\n'
            ~ '  - if the extract is not complete, exclude it in the where clause of the model, as by ' ~ o.watermark ~ ' <> ' ~ batch ~ '.\n'
            ~ '  - if the keys are gone, run once with config(max_delete_share=1).') -%}
    {%- endif -%}
{%- endmacro %}


{#-- The options of full extracts, checked. --#}
{% macro _cdc_check_extracts(o, settings) -%}
    {%- if o.full_extracts is not boolean -%}{%- do delta_cdc._cdc_fail('full_extracts', 'true or false', o.full_extracts, 'use one of the two') -%}{%- endif -%}
    {%- if not (o.max_delete_share is number and o.max_delete_share is not boolean and 0 <= o.max_delete_share <= 1) -%}
        {%- do delta_cdc._cdc_fail('max_delete_share', 'a share from 0 to 1', o.max_delete_share, 'correct the number') -%}
    {%- endif -%}
    {%- if settings.get('max_delete_share') is not none and not o.full_extracts -%}
        {%- do delta_cdc._cdc_fail('max_delete_share', 'full_extracts=true beside it', 'none', 'add full_extracts=true, or remove max_delete_share') -%}
    {%- endif -%}
    {%- if o.full_extracts and not o.watermark -%}
        {%- do delta_cdc._cdc_fail('full_extracts', 'a watermark, which tells the extracts apart', 'none', 'select _batch_id, or set watermark') -%}
    {%- endif -%}
    {%- for option in ['delete_when', 'truncate_when', 'moved_from'] if o.full_extracts and o[option] -%}
        {%- do delta_cdc._cdc_fail(option, 'nothing (in full_extracts a key is deleted by its absence)', o[option], 'remove ' ~ option ~ ' or full_extracts') -%}
    {%- endfor -%}
{%- endmacro %}
