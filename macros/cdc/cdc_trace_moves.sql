{#-- Runners for key changes; the SQL is in cdc_moves. Each leaves a cached temporary view and returns its name. --#}
{% macro _cdc_find_moves(o, pinned, stage, temporary) -%}
    {%- set moves = temporary ~ '__cdc_moves' -%}
    {%- do run_query('cache lazy table ' ~ moves ~ ' as ' ~ cdc_moves(o, pinned, stage)) -%}
    {%- set row = run_query('select count(*) as moves, coalesce(max(greatest(_cdc_givers, _cdc_takers)), 1) as most from ' ~ moves).rows[0] -%}
    {%- if row['most'] > 1 -%}
        {%- do _cdc_drop_temporary(temporary) -%}
        {%- do _cdc_fail('moved_from', 'columns that tell one key change (one deleted key, one new key)',
            row['most'] ~ ' keys at the same values of ' ~ o.moved_from | join(', '), 'add columns, such as the position of the change') -%}
    {%- endif -%}
    {{ return(moves if row['moves'] > 0 else none) }}
{%- endmacro %}


{#-- Widens the touched keys until no key change leads further. --#}
{% macro _cdc_close_over_moves(o, touched, moves, temporary) -%}
    {%- set now = namespace(name=touched, size=run_query('select count(*) from ' ~ touched).rows[0][0], growing=true) -%}
    {%- for step in range(1000) if now.growing -%}
        {%- set wider = '(' ~ cdc_widen_touched(o, now.name, moves) ~ ')' -%}
        {%- set size = run_query('select count(*) from ' ~ wider).rows[0][0] -%}
        {%- set now.growing = size > now.size -%}
        {%- if now.growing -%}
            {%- set next = temporary ~ '__cdc_touched' ~ step -%}
            {%- do run_query('create or replace temporary view ' ~ next ~ ' as select * from ' ~ wider) -%}
            {%- set now.name = next -%}
            {%- set now.size = size -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(now.name) }}
{%- endmacro %}


{% macro _cdc_find_chains(o, state, stage, schemas, truncations, moves, temporary) -%}
    {%- set chains = temporary ~ '__cdc_chains' -%}
    {%- do run_query('cache table ' ~ chains ~ '0 as ' ~ cdc_chains(o, state, stage, schemas, truncations, moves)) -%}
    {%- set now = namespace(name=chains ~ '0', more=true) -%}
    {%- for step in range(1, 20) if now.more -%}
        {%- set longer = chains ~ step -%}
        {%- do run_query('cache table ' ~ longer ~ ' as ' ~ cdc_lengthen_chains(o, now.name)) -%}
        {%- set now.more = run_query('select count(*) from (select * from ' ~ longer ~ ' except select * from ' ~ now.name ~ ')').rows[0][0] > 0 -%}
        {%- set now.name = longer -%}
    {%- endfor -%}
    {{ return(now.name) }}
{%- endmacro %}
