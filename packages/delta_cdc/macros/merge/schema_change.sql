{#-- Before a merge writes anything: dbt's own check of an enforced contract, and a plan of what on_schema_change asks for.
     Nothing is altered here. New columns come with the MERGE itself (schema evolution), so a run that fails leaves the table
     as it was; removed ones are dropped after it. dbt-spark's models of other strategies keep dbt's own. --#}
{% macro spark__process_schema_changes(on_schema_change, source_relation, target_relation) -%}
    {%- if config.get('incremental_strategy') != 'merge' -%}
        {{ return(default__process_schema_changes(on_schema_change, source_relation, target_relation)) }}
    {%- endif -%}
    {%- set is_contracted = config.get('contract').enforced if config.get('contract') else false -%}
    {%- if is_contracted -%}{%- do get_assert_columns_equivalent('select * from ' ~ source_relation) -%}{%- endif -%}
    {%- set key = delta_cdc._cdc_as_list(config.get('unique_key')) + (delta_cdc._cdc_as_list(config.get('replace_by')) | reject('equalto', '*') | list) -%}
    {%- do context.update({'merge_plan': delta_cdc.merge_schema_plan(
        target_relation, on_schema_change, is_contracted, key,
        adapter.get_columns_in_relation(source_relation), adapter.get_columns_in_relation(target_relation))}) -%}
{%- endmacro %}


{#-- What a merge writes, {columns, types, new, dropped, widened}, or an error that says expected, got and fix. `given` are the
     columns of the query, `stored` those of the table; names are compared without case, as Spark does. --#}
{% macro merge_schema_plan(target, on_schema_change, is_contracted, key, given, stored) -%}
    {%- set query, table = {}, {} -%}
    {%- for column in given -%}{%- do query.update({column.name | lower: column}) -%}{%- endfor -%}
    {%- for column in stored -%}{%- do table.update({column.name | lower: column}) -%}{%- endfor -%}
    {%- set plan = {'columns': [], 'types': {}, 'new': [], 'gone': [], 'retyped': {}} -%}
    {%- for name, column in table.items() -%}
        {%- if name not in query -%}{%- do plan.gone.append(column.name) -%}{%- else -%}
            {%- do plan.columns.append(column.name) -%}
            {%- do plan.types.update({column.name: column.dtype | lower}) -%}
            {%- if query[name].dtype | lower != column.dtype | lower -%}
                {%- do plan.retyped.update({column.name: {'stored': column.dtype | lower, 'given': query[name].dtype | lower}}) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name, column in query.items() if name not in table -%}{%- do plan.new.append(column.name) -%}{%- endfor -%}
    {%- do delta_cdc._refuse_schema_change(target, on_schema_change, is_contracted, key, plan) -%}
    {%- set plan = dict(plan, dropped=[], widened={}) -%}
    {%- if on_schema_change == 'ignore' -%}{%- do plan.update({'new': []}) -%}{%- endif -%}
    {%- if on_schema_change == 'sync_all_columns' -%}{%- do plan.update({'dropped': plan.gone, 'widened': plan.retyped}) -%}{%- endif -%}
    {{ return(dict(plan, columns=plan.columns + plan.new)) }}
{%- endmacro %}


{#-- Stops on what on_schema_change, a contract or Delta does not allow. --#}
{% macro _refuse_schema_change(target, on_schema_change, is_contracted, key, plan) -%}
    {%- set rebuild = 'run the model with --full-refresh, which writes the table anew' -%}
    {%- set told = [] -%}
    {%- for name, types in plan.retyped.items() -%}{%- do told.append(name ~ ' (' ~ types.stored ~ ' is now ' ~ types.given ~ ')') -%}{%- endfor -%}
    {%- set lists = 'new: ' ~ (plan.new | join(', ') or 'none') ~ '; gone: ' ~ (plan.gone | join(', ') or 'none')
        ~ '; of another type: ' ~ (told | join(', ') or 'none') -%}
    {%- set narrower = [] -%}
    {%- for name, types in plan.retyped.items() if not delta_cdc._cdc_widens(types.stored, types.given) -%}{%- do narrower.append(name) -%}{%- endfor -%}
    {%- set gone_keys = [] -%}
    {%- for name in key if name | lower not in plan.columns | map('lower') | list -%}{%- do gone_keys.append(name) -%}{%- endfor -%}

    {%- if gone_keys -%}
        {%- do delta_cdc._schema_change_fails(target, 'the columns of unique_key and replace_by in the table and in the query', 'no '
            ~ gone_keys | join(', ') ~ ' in one of them (' ~ lists ~ ')', 'select them, or ' ~ rebuild) -%}
    {%- elif on_schema_change == 'fail' and (plan.new or plan.gone or plan.retyped) -%}
        {%- do delta_cdc._schema_change_fails(target, "the table's columns (on_schema_change='fail')", lists, 'undo the change, or ' ~ rebuild) -%}
    {%- elif on_schema_change == 'ignore' and plan.gone -%}
        {%- do delta_cdc._schema_change_fails(target, "every column of the table (on_schema_change='ignore')", lists,
            "select what is gone, choose another on_schema_change, or " ~ rebuild) -%}
    {%- elif is_contracted and (plan.gone or plan.retyped) -%}
        {%- do delta_cdc._schema_change_fails(target, 'a table with the columns of its contract', lists,
            (("a rename: " if plan.new and plan.gone else '') ~ rebuild) ~ "; or keep the old column beside the new one until its readers have moved") -%}
    {%- elif on_schema_change == 'sync_all_columns' and narrower -%}
        {%- do delta_cdc._schema_change_fails(target, 'types that every stored value fits into', lists, 'cast ' ~ narrower | join(', ') ~ ' in the query, or ' ~ rebuild) -%}
    {%- elif on_schema_change == 'sync_all_columns' and plan.gone | map('lower') | select('in', delta_cdc._cdc_as_list(config.get('partition_by')) | map('lower') | list) | list -%}
        {%- do delta_cdc._schema_change_fails(target, 'the columns that the table is partitioned by', lists, rebuild) -%}
    {%- endif -%}
{%- endmacro %}


{#-- Stops the merge, with nothing altered. --#}
{% macro _schema_change_fails(target, expected, got, fix) -%}
    {%- do exceptions.raise_compiler_error(target ~ ': expected ' ~ expected ~ ', got ' ~ got ~ '. Nothing was altered. Fix: ' ~ fix ~ '.') -%}
{%- endmacro %}


{#-- sync_all_columns: wider types before the merge (every stored value fits into them), drops after it. A drop is by column
     mapping, the one way that Delta has: readers of the table then need to know it. --#}
{% macro alter_for_merge(target, plan) -%}
    {%- if plan.widened -%}
        {%- do run_query('alter table ' ~ target ~ " set tblproperties ('delta.enableTypeWidening' = 'true')") -%}
        {%- for name, types in plan.widened.items() -%}
            {%- do run_query('alter table ' ~ target ~ ' alter column `' ~ name ~ '` type ' ~ types.given) -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}


{% macro drop_after_merge(target, plan) -%}
    {%- if plan and plan.dropped -%}
        {%- do run_query('alter table ' ~ target ~ " set tblproperties ('delta.columnMapping.mode' = 'name')") -%}
        {%- do run_query('alter table ' ~ target ~ ' drop columns (' ~ delta_cdc._cdc_columns(plan.dropped) ~ ')') -%}
    {%- endif -%}
{%- endmacro %}
