{#-- Literal ranges that cover the touched keys: at most 32, split at the widest gaps, so that one outlier costs a file and
     not the table. A gap that no other key can lie in, or narrower than a 64th of the whole, skips no file worth a longer
     predicate. One row per range: lowest and highest key as text. `prefix` is what all keys of a string column share. --#}
{% macro cdc_key_ranges(key, data_type, touched, prefix='') -%}
with keys as (
    select distinct `{{ key }}` as key from {{ touched }} where `{{ key }}` is not null
),

positions as (
    select key, {{ _cdc_position(data_type, prefix) }} as position from keys
),

gaps as (
    select key, position - lag(position) over (order by key) as gap from positions
),

widest as (
    select
        key,
        gap > {{ 1 if data_type in ['tinyint', 'smallint', 'int', 'bigint', 'date'] else 0 }} and gap * 64 > sum(gap) over () as is_wide,
        row_number() over (order by gap desc nulls last, key) as place
    from gaps
),

ranges as (
    select key, count_if(is_wide and place < 32) over (order by key) as bucket from widest
)

select concat('=', cast(min(key) as string)) as lowest, concat('=', cast(max(key) as string)) as highest
from ranges
group by bucket
{%- endmacro %}


{#-- Where a key lies on a line, roughly: only the gaps between neighbours count. --#}
{% macro _cdc_position(data_type, prefix) -%}
    {%- if data_type == 'string' -%}
        cast(conv(rpad(left(hex(substr(key, {{ prefix | length + 1 }}, 12)), 12), 12, '0'), 16, 10) as double)
    {%- elif data_type == 'date' -%}
        cast(datediff(key, date '1970-01-01') as double)
    {%- elif data_type in ['timestamp', 'timestamp_ntz'] -%}
        cast(unix_micros(cast(key as timestamp)) as double)
    {%- else -%}
        cast(key as double)
    {%- endif -%}
{%- endmacro %}


{#-- Predicate over the storage table from those ranges; 'true' where there is nothing to limit by. `with_truncates` keeps the
     rows of truncates, whose key is NULL: they belong to every key's state. --#}
{% macro cdc_range_predicate(key, data_type, ranges, alias, with_truncates=false) -%}
    {%- if not ranges -%}true{%- else -%}
    ({% for lowest, highest in ranges -%}
        {%- if lowest == highest -%}
            {{ alias }}.`{{ key }}` = {{ cdc_literal(lowest, data_type) }}
        {%- else -%}
            {{ alias }}.`{{ key }}` between {{ cdc_literal(lowest, data_type) }} and {{ cdc_literal(highest, data_type) }}
        {%- endif -%}
        {{ ' or ' if not loop.last }}
    {%- endfor %}{{ ' or ' ~ alias ~ '.`' ~ key ~ '` is null' if with_truncates }})
    {%- endif -%}
{%- endmacro %}


{#-- Runs the query above. [] when no key column can be a literal, when nothing is touched, and where the model's meta says
     `key_is_personal`: the values would stand in dbt.log and in the table's history. --#}
{% macro _cdc_find_ranges(o, touched) -%}
    {%- set key = _cdc_range_key(o) -%}
    {%- if not key or (config.get('meta') or {}).get('key_is_personal') -%}{{ return([]) }}{%- endif -%}
    {%- set prefix = namespace(text='') -%}
    {%- if o.types[key] == 'string' -%}
        {%- set ends = run_query("select concat('=', min(`" ~ key ~ "`)), concat('=', max(`" ~ key ~ "`)) from " ~ touched).rows[0] -%}
        {%- set lowest, highest = _cdc_text(ends[0]) or '', _cdc_text(ends[1]) or '' -%}
        {%- for i in range([lowest | length, highest | length] | min) if prefix.text | length == i and lowest[i] == highest[i] -%}
            {%- set prefix.text = prefix.text ~ lowest[i] -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set ranges = [] -%}
    {%- for row in run_query(cdc_key_ranges(key, o.types[key], touched, prefix.text)).rows -%}
        {%- do ranges.append((_cdc_text(row[0]), _cdc_text(row[1]))) -%}
    {%- endfor -%}
    {{ return(ranges) }}
{%- endmacro %}


{% macro _cdc_range_key(o) -%}
    {%- for key in o.unique_key if _cdc_has_literal(o.types[key]) -%}{{ return(key) }}{%- endfor -%}
    {{ return(none) }}
{%- endmacro %}
