{#-- Literal ranges that cover the touched keys: at most 32, split at the widest gaps, so that one outlier costs a file and
     not the table. One row, a JSON list of the lowest and highest key of each range, as texts. --#}
{% macro cdc_key_ranges(key, data_type, touched) -%}
with keys as (
    select distinct `{{ key }}` from {{ touched }} where `{{ key }}` is not null
),

{{ delta_cdc.cdc_bucketed(key, data_type, 'keys') }},

ranges as (
    select {{ delta_cdc._cdc_range(key) }} as _cdc_range from bucketed group by _cdc_bucket
)

select {{ delta_cdc._cdc_json('collect_list(_cdc_range)') }} as ranges from ranges
{%- endmacro %}


{#-- CTEs that give each row of `relation` the number of its key's range. A gap that no other key can lie in, or narrower than
     a 64th of the whole, skips no file worth a longer predicate. --#}
{% macro cdc_bucketed(key, data_type, relation) -%}
ends as (
    select *, min(`{{ key }}`) over () as _cdc_lowest, max(`{{ key }}`) over () as _cdc_highest from {{ relation }}
),

positions as (
    select *, {{ delta_cdc._cdc_position(key, data_type) }} as _cdc_position from ends
),

gaps as (
    select *, _cdc_position - lag(_cdc_position) over (order by `{{ key }}`) as _cdc_gap from positions
),

widest as (
    select
        *,
        _cdc_gap > {{ 1 if data_type in ['tinyint', 'smallint', 'int', 'bigint', 'date'] else 0 }} and _cdc_gap * 64 > sum(_cdc_gap) over () as _cdc_is_wide,
        row_number() over (order by _cdc_gap desc nulls last, `{{ key }}`) as _cdc_place
    from gaps
),

bucketed as (
    select *, count_if(_cdc_is_wide and _cdc_place < 32) over (order by `{{ key }}`) as _cdc_bucket from widest
)
{%- endmacro %}


{#-- Lowest and highest key of a group, as texts. --#}
{% macro _cdc_range(key) -%}
    struct(cast(min(`{{ key }}`) as string) as lowest, cast(max(`{{ key }}`) as string) as highest)
{%- endmacro %}


{#-- Where a key lies on a line, roughly: only the gaps between neighbours count. Of a text the twelve bytes after what all
     keys begin with. --#}
{% macro _cdc_position(key, data_type) -%}
    {%- if data_type == 'string' -%}
        cast(conv(rpad(left(hex(substr(`{{ key }}`, 1 + {{ delta_cdc._cdc_common_length('_cdc_lowest', '_cdc_highest') }}, 12)), 12), 12, '0'), 16, 10) as double)
    {%- elif data_type == 'date' -%}
        cast(datediff(`{{ key }}`, date '1970-01-01') as double)
    {%- elif data_type in ['timestamp', 'timestamp_ntz'] -%}
        cast(unix_micros(cast(`{{ key }}` as timestamp)) as double)
    {%- else -%}
        cast(`{{ key }}` as double)
    {%- endif -%}
{%- endmacro %}


{#-- How many characters two texts begin with in common. --#}
{% macro _cdc_common_length(one, other) -%}
    coalesce(nullif(array_position(transform(
        sequence(1, greatest(least(length({{ one }}), length({{ other }})), 1)), i -> substr({{ one }}, i, 1) = substr({{ other }}, i, 1)
    ), false), 0) - 1, least(length({{ one }}), length({{ other }})))
{%- endmacro %}


{#-- Predicate over the storage table from those ranges; 'true' where there is nothing to limit by. `with_truncates` keeps the
     rows of truncates, whose key is NULL: they belong to every key's state. --#}
{% macro cdc_range_predicate(key, data_type, ranges, alias, with_truncates=false) -%}
    {%- if not ranges -%}true{%- else -%}
    ({% for lowest, highest in ranges -%}
        {%- if lowest == highest -%}
            {{ alias }}.`{{ key }}` = {{ delta_cdc.cdc_literal(lowest, data_type) }}
        {%- else -%}
            {{ alias }}.`{{ key }}` between {{ delta_cdc.cdc_literal(lowest, data_type) }} and {{ delta_cdc.cdc_literal(highest, data_type) }}
        {%- endif -%}
        {{ ' or ' if not loop.last }}
    {%- endfor %}{{ ' or ' ~ alias ~ '.`' ~ key ~ '` is null' if with_truncates }})
    {%- endif -%}
{%- endmacro %}


{#-- Runs the query above. [] where nothing is touched, or nothing may limit by. --#}
{% macro _cdc_find_ranges(o, touched) -%}
    {%- set key = delta_cdc._cdc_range_key(o) -%}
    {{ return(delta_cdc._cdc_listed_ranges(run_query(delta_cdc.cdc_key_ranges(key, o.types[key], touched)).rows[0]['ranges']) if key else []) }}
{%- endmacro %}


{#-- The ranges of a query's answer, as (lowest, highest) texts. --#}
{% macro _cdc_listed_ranges(text) -%}
    {%- set ranges = [] -%}
    {%- for range in fromjson(delta_cdc._cdc_text(text) or '[]') -%}{%- do ranges.append((range.lowest, range.highest)) -%}{%- endfor -%}
    {{ return(ranges) }}
{%- endmacro %}


{#-- The key column that ranges limit by: the first that can be a literal; none where the model's meta says `key_is_personal`,
     because the values would stand in dbt.log and in the table's history. --#}
{% macro _cdc_range_key(o) -%}
    {%- if (config.get('meta') or {}).get('key_is_personal') -%}{{ return(none) }}{%- endif -%}
    {%- for key in o.unique_key if delta_cdc._cdc_has_literal(o.types[key]) -%}{{ return(key) }}{%- endfor -%}
    {{ return(none) }}
{%- endmacro %}
