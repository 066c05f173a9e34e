{#-- Runners for key changes; the SQL is in cdc_moves. What they find goes to small scratch tables beside the model, dropped
     at the end of the run: a cached view would be expanded again, plan and all, by each step that reads it (CTEs of a nested
     view are not recognised as cached; measured: 128 jobs instead of 15, and four times the plan with each step). --#}
{% macro _cdc_find_moves(o, pinned, stage, found) -%}
    {%- do run_query('cache lazy table ' ~ found ~ ' as ' ~ delta_cdc.cdc_moves(o, pinned, stage)) -%}
    {%- set row = run_query('select count(*) as moves, coalesce(max(greatest(_cdc_givers, _cdc_takers)), 1) as most from ' ~ found).rows[0] -%}
    {%- if row['most'] > 1 -%}
        {%- do delta_cdc._cdc_fail('moved_from', 'columns that tell one key change (one deleted key, one new key)',
            row['most'] ~ ' keys at the same values of ' ~ o.moved_from | join(', '), 'add columns, such as the position of the change') -%}
    {%- endif -%}
    {%- set moves = delta_cdc._cdc_write_scratch('moves', 'select * from ' ~ found) if row['moves'] > 0 else none -%}
    {%- do delta_cdc._cdc_drop_temporary(found) -%}
    {{ return(moves) }}
{%- endmacro %}


{#-- Whether any touched key gave values to another or took some. Nearly always none did, and the plain timeline is enough. --#}
{% macro _cdc_any_moved(o, touched, moves) -%}
    {{ return(run_query('select count(*) from ' ~ touched ~ ' as touched left semi join (' ~ delta_cdc.cdc_moved_keys(o, moves)
        ~ ') as moved on ' ~ delta_cdc._cdc_equal(o.unique_key, 'touched', 'moved')).rows[0][0] > 0) }}
{%- endmacro %}


{#-- Follows each chain of key changes to its root, in doubling steps, until no root is itself a link. Nearly always the
     first look is enough: a key changes, and its new one has not changed since. --#}
{% macro _cdc_find_chains(run, plan) -%}
    {%- set now = namespace(
        name=delta_cdc._cdc_write_scratch('chains0', delta_cdc.cdc_chains(run, plan)), more=true) -%}
    {%- for step in range(1, 30) if now.more -%}
        {%- set now.more = run_query(delta_cdc.cdc_unfinished_chains(run.o, now.name)).rows[0][0] > 0 -%}
        {%- if now.more -%}
            {%- set now.name = delta_cdc._cdc_write_scratch('chains' ~ step, delta_cdc.cdc_lengthen_chains(run.o, now.name)) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(now.name) }}
{%- endmacro %}


{#-- Writes a query's rows to a scratch table, and returns its name. --#}
{% macro _cdc_write_scratch(name, sql) -%}
    {%- set scratch = delta_cdc._cdc_sibling(this, 'cdc_scratch_' ~ name) -%}
    {%- do run_query('drop table if exists ' ~ scratch) -%}
    {%- do run_query('create table ' ~ scratch ~ ' using parquet as ' ~ sql) -%}
    {{ return(scratch | string) }}
{%- endmacro %}


{#-- Drops the model's scratch tables. --#}
{% macro _cdc_drop_scratch() -%}
    {%- for row in run_query("show tables in " ~ this.schema ~ " like '" ~ this.identifier ~ "__cdc_scratch_*'").rows -%}
        {%- do run_query('drop table if exists ' ~ this.schema ~ '.' ~ row['tableName']) -%}
    {%- endfor -%}
{%- endmacro %}
