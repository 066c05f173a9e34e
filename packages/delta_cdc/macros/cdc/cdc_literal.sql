{#-- A typed Spark literal from a value's text (`cast(value as string)`). Typed, because Delta skips files only for
     predicates that need no cast on the column; `$` is escaped so that Spark's variable substitution never sees it. --#}
{% macro cdc_literal(text, data_type) -%}
    {%- set type = data_type | lower -%}
    {%- if type == 'int' -%}{{ text }}
    {%- elif type == 'bigint' -%}{{ text }}L
    {%- elif type == 'smallint' -%}{{ text }}S
    {%- elif type == 'tinyint' -%}{{ text }}Y
    {%- elif type.startswith('decimal') -%}{{ text }}BD
    {%- elif type in ['date', 'timestamp', 'timestamp_ntz'] -%}{{ type }} '{{ text }}'
    {%- elif type == 'string' -%}'{{ delta_cdc._cdc_escape(text) }}'
    {%- else -%}
        {%- do exceptions.raise_compiler_error("cdc_literal: no literal for type " ~ data_type) -%}
    {%- endif -%}
{%- endmacro %}


{#-- A text for a SQL literal in apostrophes; without `$`, which Spark may take for a variable. --#}
{% macro _cdc_escape(text) -%}
    {{ text | replace('\\', '\\\\') | replace("'", "\\'") | replace('$', '\\u0024') }}
{%- endmacro %}


{#-- Whether values of a type can be written as literals. --#}
{% macro _cdc_has_literal(data_type) -%}
    {%- set type = data_type | lower -%}
    {{ return(type in ['int', 'bigint', 'smallint', 'tinyint', 'date', 'timestamp', 'timestamp_ntz', 'string']
        or type.startswith('decimal')) }}
{%- endmacro %}


{#-- Column list: quoted, with an optional table alias in front. --#}
{% macro _cdc_columns(names, alias=none) -%}
    {%- for name in names -%}
        {{ alias ~ '.' if alias }}`{{ name }}`{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#-- Column list of what an error shows of a row: a column that the model's YAML calls personal (`pii` in its meta) is '***'. --#}
{% macro _cdc_shown(names) -%}
    {%- set described = model.columns if model is mapping else {} -%}
    {%- for name in names -%}
        {%- set is_personal = described.get(name, {}).get('config', {}).get('meta', {}).get('pii') -%}
        {{ "'***' as " if is_personal }}`{{ name }}`{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#-- Equality of the same columns of two aliases, null-safe unless another operator is given. --#}
{% macro _cdc_equal(names, left, right, operator='<=>') -%}
    {%- for name in names -%}
        {{ left }}.`{{ name }}` {{ operator }} {{ right }}.`{{ name }}`{{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#-- Equality of keys, or of keys and sequences, which only a truncate leaves NULL. Spark joins by `=` in half the time. --#}
{% macro _cdc_same(o, names, left, right) -%}
    {{ return(delta_cdc._cdc_equal(names, left, right, '<=>' if o.truncate_when else '=')) }}
{%- endmacro %}


{#-- Text from a query, as it was: such queries put a `=` in front, because dbt's result tables turn '' and 'null' into NULL
     and text that looks like a date or a number into one. --#}
{% macro _cdc_text(value) -%}
    {{ return(none if value is none else value[1:]) }}
{%- endmacro %}


{#-- A value as JSON text, for a macro to read with `fromjson(_cdc_text(…))`. --#}
{% macro _cdc_json(value) -%}
    concat('=', to_json({{ value }}))
{%- endmacro %}


{#-- The same names, each once, in their order. --#}
{% macro _cdc_distinct(names) -%}
    {%- set once = [] -%}
    {%- for name in names if name not in once -%}{%- do once.append(name) -%}{%- endfor -%}
    {{ return(once) }}
{%- endmacro %}
