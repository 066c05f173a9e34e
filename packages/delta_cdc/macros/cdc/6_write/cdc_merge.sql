{#-- One MERGE: the changed rows of a timeline into the storage table. `updates` are the columns that a stored row takes anew;
     none of them is an insert-only MERGE. --#}
{% macro cdc_merge(o, storage, source, predicate, updates) -%}
{%- set columns = delta_cdc._cdc_physical_columns(o) -%}
merge into {{ storage }} as stored
using (
    select {{ delta_cdc._cdc_columns(columns | reject('equalto', '_cdc_filled') | list) }}{{ ', ' ~ delta_cdc._cdc_filled_to_store(o) ~ ' as _cdc_filled' if o.fill }}
    from {{ source }}
    where _cdc_insert or _cdc_update
) as changed
on {{ delta_cdc._cdc_same(o, o.unique_key + o.sequence, 'stored', 'changed') }}
    and {{ predicate }}
{% if updates -%}
when matched then update set
    {%- for name in updates %}
    `{{ name }}` = changed.`{{ name }}`{{ ',' if not loop.last }}
    {%- endfor %}
{% endif -%}
when not matched then insert ({{ delta_cdc._cdc_columns(columns) }}) values ({{ delta_cdc._cdc_columns(columns, 'changed') }})
{%- endmacro %}


{#-- Filled values in the stored struct's own fields, which keeps those of columns that the model has no more. --#}
{% macro _cdc_filled_to_store(o) -%}
{%- if o.filled | map(attribute='name') | list == o.fill -%}_cdc_filled{%- else -%}
case when _cdc_filled is not null then named_struct(
    {%- for field in o.filled -%}
        '{{ delta_cdc._cdc_escape(field.name) }}', {{ '_cdc_filled.`' ~ field.name ~ '`' if field.name in o.fill else 'cast(null as ' ~ field.type ~ ')' }}{{ ', ' if not loop.last }}
    {%- endfor -%}
) end
{%- endif -%}
{%- endmacro %}


{#-- The fields of that struct where the model had no other columns before. --#}
{% macro _cdc_fields_to_fill(o) -%}
    {%- set fields = [] -%}
    {%- for name in o.fill -%}{%- do fields.append({'name': name, 'type': o.types[name]}) -%}{%- endfor -%}
    {{ return(fields) }}
{%- endmacro %}


{% macro cdc_create_storage(o, storage, rows, properties, replace=false) -%}
create {{ 'or replace ' if replace }}table {{ storage }}
using delta
{% if o.cluster_by -%}cluster by ({{ delta_cdc._cdc_columns(o.cluster_by) }}){%- endif %}
{{ "comment 'Every event of " ~ storage.identifier | replace('__cdc', '') ~ ", hidden ones included. Read the view of that name instead.'" }}
tblproperties ({{ delta_cdc._cdc_properties(properties) }})
as
{{ rows }}
{%- endmacro %}


{#-- First load, or a full refresh: the same rows, clustered by key so that files cover narrow ranges. `count` of them decides
     the number of files; none gives the columns without a row. Where the source `is_placed` already it is not shuffled again. --#}
{% macro cdc_first_rows(o, source, count, is_placed=false) -%}
{%- if count is none -%}
select {{ delta_cdc._cdc_columns(delta_cdc._cdc_physical_columns(o)) }} from {{ source }} where false
{%- else -%}
select
    {{- delta_cdc._cdc_placed_by_key(o, count) if not is_placed }}
    {{ delta_cdc._cdc_columns(delta_cdc._cdc_physical_columns(o)) }}
from {{ source }}
where _cdc_insert
sort by {{ delta_cdc._cdc_columns(o.unique_key) }}
{%- endif -%}
{%- endmacro %}


{#-- The hint that does it. Partitions of key ranges are also those that windows over a key need. --#}
{% macro _cdc_placed_by_key(o, count) -%}
    {{ return(' /*+ repartition_by_range(' ~ [1, count // 500000] | max ~ ', ' ~ delta_cdc._cdc_columns(o.unique_key) ~ ') */') }}
{%- endmacro %}


{#-- Key, sequence, batch and derived columns first: Delta keeps statistics for the first 32 columns. --#}
{% macro _cdc_physical_columns(o) -%}
    {%- set first = [] -%}
    {%- for name in o.unique_key + o.sequence + ([o.watermark] if o.watermark else []) if name not in first -%}{%- do first.append(name) -%}{%- endfor -%}
    {%- set derived = ['_cdc_batch_id', '_cdc_valid_from', '_cdc_valid_to', '_cdc_visible', '_cdc_deleted', '_cdc_truncate', '_cdc_schema'] -%}
    {{ return(first + derived + (o.stored | reject('in', first) | list) + (['_cdc_filled'] if o.fill else [])) }}
{%- endmacro %}


{#-- Table properties as SQL. --#}
{% macro _cdc_properties(properties) -%}
    {%- for name, value in properties.items() -%}
        '{{ name }}' = '{{ delta_cdc._cdc_escape(value) }}'{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
