{#-- A model as a version of its Delta table shows it, as a subquery for a from clause. Without `version` it is that of the
     var `at_versions`, {schema.table: version}; a table that is not there is read as it is. --#}
{% macro at_version(relation, version=none) -%}
    {%- if not execute -%}{{ return(relation) }}{%- endif -%}
    {%- set node = delta_cdc._cdc_travelled('at_version', relation) -%}
    {%- set storage = delta_cdc.cdc_storage(relation) -%}
    {%- set given = version if version is not none else var('at_versions', {}).get(storage.schema ~ '.' ~ storage.identifier) -%}
    {%- if given is none -%}{{ return(relation) }}{%- endif -%}
    {%- do delta_cdc._cdc_check_version(storage, given) -%}
    {%- set pinned = storage ~ ' version as of ' ~ given -%}
    {%- if node.config.incremental_strategy not in ['cdc_scd1', 'cdc_scd2'] -%}{{ return('(select * from ' ~ pinned ~ ')') }}{%- endif -%}
    {%- set columns = delta_cdc._cdc_describe_query('select * from ' ~ pinned) -%}
    {{ return('(' ~ delta_cdc._cdc_shown_by(node, columns, pinned) ~ ')') }}
{%- endmacro %}


{#-- What the view of a CDC model would show of a table with these columns. --#}
{% macro _cdc_shown_by(node, columns, pinned) -%}
    {%- set names = columns | map(attribute='name') | list -%}
    {%- set fill = [] -%}
    {%- for column in columns if column.name == '_cdc_filled' -%}
        {%- for field in delta_cdc._cdc_describe_query('select _cdc_filled.* from ' ~ pinned) -%}{%- do fill.append(field.name) -%}{%- endfor -%}
    {%- endfor -%}
    {%- set hidden = [node.config.get('unsent') or '_unsent', node.config.get('watermark') or '_batch_id'] -%}
    {%- set shown = [] -%}
    {%- for name in names if not name.startswith('_cdc_') and name not in hidden -%}{%- do shown.append(name) -%}{%- endfor -%}
    {{ return(delta_cdc.cdc_shown(shown, fill, node.config.incremental_strategy == 'cdc_scd2', pinned)) }}
{%- endmacro %}


{#-- Refuses a version that is not a number, or that the table's log does not have. --#}
{% macro _cdc_check_version(storage, version) -%}
    {%- if version is boolean or not modules.re.fullmatch('[0-9]+', version | string) -%}
        {%- do delta_cdc._cdc_fail('version', 'a version of ' ~ storage ~ ', a whole number from 0', version, 'describe history ' ~ storage ~ ' lists them') -%}
    {%- endif -%}
    {%- set there = [] -%}
    {%- for row in run_query('describe history ' ~ storage).rows -%}{%- do there.append(row['version'] | int) -%}{%- endfor -%}
    {%- if version | int not in there -%}
        {%- do delta_cdc._cdc_fail('version', 'a version of ' ~ storage ~ ' from ' ~ there | min ~ ' to ' ~ there | max, version,
            'a version that is gone can be read from a copy of the table only; pin those that must stay') -%}
    {%- endif -%}
{%- endmacro %}
