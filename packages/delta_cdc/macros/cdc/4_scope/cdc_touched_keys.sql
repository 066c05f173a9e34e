{#-- Where the touched keys lie scattered over a large table, ranges leave nothing out, and MERGE would sort the whole table for its
     join. A bitmap of the keys' hashes lets the scan itself leave out nearly every other row. It is a variable of the session, so
     no hash of a key stands in SQL, and none in the table's history. --#}

{#-- Statements that make it: `places` is a power of two. --#}
{% macro cdc_touched_keys(o, variable, stage, places) -%}
    {{ return([
        'declare or replace variable ' ~ variable ~ ' array<bigint>',
        'set var ' ~ variable ~ ' = (' ~ delta_cdc._cdc_bitmap(o, stage, places) ~ ')',
    ]) }}
{%- endmacro %}


{#-- One row, an array of words of 32 bits. --#}
{% macro _cdc_bitmap(o, stage, places) -%}
select transform(sequence(0, {{ places // 32 - 1 }}), i -> coalesce(words[i], 0L))
from (
    select map_from_entries(collect_list(struct(word, bits))) as words
    from (
        select shiftright(place, 5) as word, bit_or(shiftleft(1L, place % 32)) as bits
        from (select {{ delta_cdc._cdc_place(o, places) }} as place from {{ stage }} as staged)
        group by shiftright(place, 5)
    )
)
{%- endmacro %}


{#-- A key's place in it. --#}
{% macro _cdc_place(o, places, alias='staged') -%}
cast(xxhash64({{ delta_cdc._cdc_columns(o.unique_key, alias) }}) & {{ places - 1 }}L as int)
{%- endmacro %}


{#-- Condition: the key is perhaps a touched one. --#}
{% macro cdc_perhaps_touched(o, variable, places, alias) -%}
{%- set place = delta_cdc._cdc_place(o, places, alias) -%}
getbit(session.{{ variable }}[shiftright({{ place }}, 5)], {{ place }} % 32) = 1
{%- endmacro %}


{#-- Runs it where it pays: returns a condition, or none. A column `session` would be taken for the session's variables, and keys
     that a collation finds equal have other hashes. --#}
{% macro _cdc_find_touched(run) -%}
    {%- set profile, rows = run.profile, run.applied.get('rows') -%}
    {%- if 'session' in run.o.stored | map('lower') -%}{{ return(none) }}{%- endif -%}
    {%- for name in run.o.unique_key if 'collate' in run.o.types[name] | lower -%}{{ return(none) }}{%- endfor -%}
    {%- if not profile['is_scattered'] or profile['rows_read'] > 100000 or (rows is not none and rows < 200000) -%}{{ return(none) }}{%- endif -%}
    {%- set size = namespace(places=8192) -%}
    {%- for step in range(9) if size.places < 32 * profile['rows_read'] -%}{%- set size.places = size.places * 2 -%}{%- endfor -%}
    {%- set variable = run.staged ~ '_keys' -%}
    {%- do run_query(delta_cdc.cdc_script(delta_cdc.cdc_touched_keys(run.o, variable, run.stage, size.places))) -%}
    {{ return(delta_cdc.cdc_perhaps_touched(run.o, variable, size.places, 'stored')) }}
{%- endmacro %}
