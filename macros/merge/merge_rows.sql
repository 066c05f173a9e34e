{#-- The merge of gold models, in place of dbt-spark's (which joins keys with `=`, rewrites equal rows and cannot delete).

       - keys are compared null-safe;
       - a row whose columns are all equal is not rewritten;
       - the target is limited to the keys' literal ranges, so that Delta skips files;
       - `replace_by='order_id'`: of the keys in touched_keys(), rows that the query no longer gives are deleted;
       - `replace_by='*'`: the query gives the whole table, and every other row is deleted.

     Delete this override when dbt-spark's merge does these (dbt-spark 1.11: strategies.sql, spark__get_merge_sql). --#}
{% macro spark__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates=none) -%}
    {%- set key = [unique_key] if unique_key is string else unique_key -%}
    {%- if not key -%}
        {%- do exceptions.raise_compiler_error(
            target ~ ": expected unique_key for incremental_strategy 'merge', got none. Fix: name the columns of its grain.") -%}
    {%- endif -%}
    {%- set columns = adapter.get_columns_in_relation(target) -%}
    {%- set replace_by = config.get('replace_by') -%}
    {%- set ranges = [] if replace_by == '*' else _merge_ranges(key, columns, source, replace_by) -%}
    {{ merge_rows(target, source, key, columns, replace_by, ranges.predicate if ranges else none, incremental_predicates) }}
{%- endmacro %}


{% macro merge_rows(target, source, key, columns, replace_by, range_predicate, incremental_predicates=none) -%}
{%- set names = columns | map(attribute='name') | list -%}
{%- set attributes = names | reject('in', key) | list -%}
merge into {{ target }} as target
using (
    {%- if replace_by and replace_by != '*' %}
    -- One evaluation of the query: rows of touched keys that it no longer gives come out of the same join.
    select
        {%- for name in names %}
        {{ 'coalesce(given.`' ~ name ~ '`, stored.`' ~ name ~ '`)' if name in key else 'given.`' ~ name ~ '`' }} as `{{ name }}`,
        {%- endfor %}
        given._given is null as _gone
    from (select *, true as _given from {{ source }}) as given
    full outer join (
        select {{ _cdc_columns(key) }}
        from {{ target }} as stored
        left semi join {{ _touched_view(target) }} as touched
            on {{ _cdc_equal([replace_by] if replace_by is string else replace_by, 'stored', 'touched') }}
    ) as stored on {{ _cdc_equal(key, 'given', 'stored') }}
    {%- else %}
    select {{ _cdc_columns(names) }}, false as _gone from {{ source }}
    {%- endif %}
) as source
on {{ _cdc_equal(key, 'target', 'source') }}
    {%- if range_predicate %} and {{ range_predicate }}{% endif %}
    {%- for predicate in incremental_predicates or [] %} and {{ predicate }}{% endfor %}
{%- if replace_by and replace_by != '*' %}
when matched and source._gone then delete
{%- endif %}
{%- if attributes %}
when matched and not ({{ _cdc_equal(attributes, 'target', 'source') }}) then update set
    {%- for name in attributes %}
    target.`{{ name }}` = source.`{{ name }}`{{ ',' if not loop.last }}
    {%- endfor %}
{%- endif %}
when not matched then insert ({{ _cdc_columns(names) }}) values ({{ _cdc_columns(names, 'source') }})
{%- if replace_by == '*' %}
when not matched by source then delete
{%- endif %}
{%- endmacro %}


{#-- The literal ranges of the keys that a merge may touch. With `replace_by` on the key's first column the touched keys
     bound it as well: deleted rows are among them. --#}
{% macro _merge_ranges(key, columns, source, replace_by) -%}
    {%- set types = {} -%}
    {%- for column in columns -%}{%- do types.update({column.name: column.dtype | lower}) -%}{%- endfor -%}
    {%- set first = key[0] -%}
    {%- if not _cdc_has_literal(types[first]) or (replace_by and replace_by != first) -%}{{ return(none) }}{%- endif -%}
    {%- set keys = _touched_view(this) if replace_by else '(select `' ~ first ~ '` from ' ~ source ~ ')' -%}
    {%- set ranges = _cdc_find_ranges({'unique_key': [first], 'types': types}, keys) -%}
    {{ return({'predicate': cdc_range_predicate(first, types[first], ranges, 'target')} if ranges else none) }}
{%- endmacro %}
