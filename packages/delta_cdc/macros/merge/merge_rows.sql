{#-- The merge of gold models, in place of dbt-spark's (which joins keys with `=`, rewrites equal rows and cannot delete).

       - keys are compared null-safe;
       - a row whose columns are all equal is not rewritten;
       - the target is limited to the keys' literal ranges, so that Delta skips files;
       - `replace_by='order_id'`: of the keys in touched_keys(), rows that the query no longer gives are deleted;
       - `replace_by='*'`: the query gives the whole table, and every other row is deleted;
       - with --empty and --sample, which read a part, nothing is deleted.

     Delete this override when dbt-spark's merge does these (dbt-spark 1.11: strategies.sql, spark__get_merge_sql). --#}
{% macro spark__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates=none) -%}
    {%- if not unique_key -%}
        {%- do exceptions.raise_compiler_error(
            target ~ ": expected unique_key for incremental_strategy 'merge', got none. Fix: name the columns of its grain.") -%}
    {%- endif -%}
    {%- set plan = context['merge_plan'] -%}
    {%- set key = [] -%}
    {%- for name in delta_cdc._cdc_as_list(unique_key) -%}
        {%- for column in plan.columns if column | lower == name | lower -%}{%- do key.append(column) -%}{%- endfor -%}
    {%- endfor -%}
    {%- do delta_cdc.alter_for_merge(target, plan) -%}
    {%- do delta_cdc._check_touched(target, config.get('replace_by'), sql) -%}
    {%- set replace_by = none if delta_cdc.reads_a_part() else config.get('replace_by') -%}
    {%- set predicates = [] if replace_by == '*' else [delta_cdc._merge_ranges(key, plan.types, source, replace_by)] -%}
    {%- set plan = dict(plan, key=key, replace_by=replace_by, predicates=predicates + (incremental_predicates or [])) -%}
    {{ delta_cdc.explain_duplicates(delta_cdc.merge_rows(target, source, plan), target, source, key) }}
{%- endmacro %}


{#-- The MERGE. `plan` is merge_schema_plan's, with the `key`, `replace_by`, and `predicates` on the target, none among them for
     nothing. --#}
{% macro merge_rows(target, source, plan) -%}
{%- set key, columns, replace_by = plan.key, plan.columns, plan.replace_by -%}
{%- set attributes = columns | reject('in', key) | list -%}
merge {{ 'with schema evolution ' if plan.new }}into {{ target }} as target
using (
    {%- if replace_by and replace_by != '*' %}
    -- One evaluation of the query: rows of touched keys that it no longer gives come out of the same join.
    select
        {%- for name in columns %}
        {{ 'coalesce(given.`' ~ name ~ '`, stored.`' ~ name ~ '`)' if name in key else 'given.`' ~ name ~ '`' }} as `{{ name }}`,
        {%- endfor %}
        given._given is null as _gone
    from (select *, true as _given from {{ source }}) as given
    full outer join (
        select {{ delta_cdc._cdc_columns(key) }}
        from {{ target }} as stored
        left semi join {{ delta_cdc._touched_view(target) }} as touched
            on {{ delta_cdc._cdc_equal([replace_by] if replace_by is string else replace_by, 'stored', 'touched') }}
    ) as stored on {{ delta_cdc._cdc_equal(key, 'given', 'stored') }}
    {%- else %}
    select {{ delta_cdc._cdc_columns(columns) }}, false as _gone from {{ source }}
    {%- endif %}
) as source
on {{ delta_cdc._cdc_equal(key, 'target', 'source') }}
    {%- for predicate in plan.predicates if predicate %} and {{ predicate }}{% endfor %}
{%- if replace_by and replace_by != '*' %}
when matched and source._gone then delete
{%- endif %}
{%- if attributes %}
when matched and not (
    {%- for name in attributes %}
    {{ 'source.`' ~ name ~ '` is null' if name in plan.new else delta_cdc._cdc_equal([name], 'target', 'source') }}{{ ' and' if not loop.last }}
    {%- endfor %}) then update set
    {%- for name in attributes %}
    `{{ name }}` = source.`{{ name }}`{{ ',' if not loop.last }}
    {%- endfor %}
{%- endif %}
when not matched then insert ({{ delta_cdc._cdc_columns(columns) }}) values ({{ delta_cdc._cdc_columns(columns, 'source') }})
{%- if replace_by == '*' %}
when not matched by source then delete
{%- endif %}
{%- endmacro %}


{#-- The merge, and in place of Delta's page of text (SQLSTATE 21506) the key and three of its values where two rows have one.
     They are looked for only after the merge has failed. --#}
{% macro explain_duplicates(merge, target, source, key) -%}
begin
    declare exit handler for sqlstate '21506'
    begin
        select raise_error(concat(
            '{{ target }}: expected one row per unique_key ({{ key | join(', ') }}), got ',
            coalesce(
                (
                    select concat(cast(count(*) as string), ' keys with more: ', cast(slice(collect_list(one), 1, 3) as string))
                    from (
                        select to_json(struct({{ delta_cdc._cdc_shown(key) }}), map('ignoreNullFields', 'false')) as one
                        from {{ source }} group by {{ delta_cdc._cdc_columns(key) }} having count(*) > 1
                    )
                    having count(*) > 0
                ),
                'one per key from the query, and more in the table: run the model with --full-refresh'
            ),
            '. Nothing was written. The usual cause: a join that finds more than one row, or a unique_key that is not the grain. ',
            'Fix: join on a key of the other side, or name all columns of the grain.'
        ));
    end;
    {{ merge }};
end
{%- endmacro %}


{#-- The literal ranges of the keys that a merge may touch, as a predicate; NULL keys belong to them. With `replace_by` on the
     key's first column the touched keys bound it as well: deleted rows are among them. --#}
{% macro _merge_ranges(key, types, source, replace_by) -%}
    {%- set first = key[0] -%}
    {%- if not delta_cdc._cdc_has_literal(types[first]) or (replace_by and replace_by != first) -%}{{ return(none) }}{%- endif -%}
    {%- set keys = delta_cdc._touched_view(this) if replace_by else '(select `' ~ first ~ '` from ' ~ source ~ ')' -%}
    {%- set ranges = delta_cdc._cdc_find_ranges({'unique_key': [first], 'types': types}, keys) -%}
    {{ return(delta_cdc.cdc_range_predicate(first, types[first], ranges, 'target', true) if ranges else none) }}
{%- endmacro %}
