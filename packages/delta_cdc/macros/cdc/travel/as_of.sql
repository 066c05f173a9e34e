{#-- The versions of a history that were valid at a moment, as a subquery for a from clause: valid time. --#}
{% macro as_of(relation, timestamp) -%}
    {%- if not execute -%}{{ return(relation) }}{%- endif -%}
    {%- set node = delta_cdc._cdc_travelled('as_of', relation) -%}
    {%- if node.config.incremental_strategy != 'cdc_scd2' -%}
        {%- do delta_cdc._cdc_fail('as_of', 'a model with a history (cdc_scd2)',
            node.name ~ (', which keeps the last state of a key only' if node.config.incremental_strategy == 'cdc_scd1' else ', which has no valid_from and valid_to of the engine'),
            'pass ref() of a cdc_scd2 model; what was known then is as_known_at') -%}
    {%- endif -%}
    {%- set moment = delta_cdc._cdc_moment(timestamp) -%}
    {{ return('(select * from ' ~ relation ~ ' where valid_from <= ' ~ moment ~ ' and (valid_to is null or valid_to > ' ~ moment ~ '))') }}
{%- endmacro %}


{#-- The node of a relation that is to be read at another time; a view has no times of its own. --#}
{% macro _cdc_travelled(macro, relation) -%}
    {%- set node = delta_cdc._cdc_node(relation) -%}
    {%- if not node or (node.config.materialized == 'view' and node.config.incremental_strategy not in ['cdc_scd1', 'cdc_scd2']) -%}
        {%- set read = [] -%}
        {%- for id in (node or {}).get('depends_on', {}).get('nodes', []) if id in graph.nodes -%}{%- do read.append(graph.nodes[id].name) -%}{%- endfor -%}
        {%- do delta_cdc._cdc_fail(macro, 'ref() of a model with a table of its own', relation ~ (', a view' if node else ', which is no model'),
            'pass ref() of ' ~ (read | join(' or ') or 'a model') ~ ', and repeat here what the view does with it') -%}
    {%- endif -%}
    {{ return(node) }}
{%- endmacro %}


{#-- A moment as a literal: a time of Python's, or a text; in UTC where it says no zone. --#}
{% macro _cdc_moment(value) -%}
    {%- set text = value | string | trim -%}
    {%- set form = '[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])([ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?' -%}
    {%- if not modules.re.fullmatch(form, text) -%}
        {%- do delta_cdc._cdc_fail('timestamp', 'a moment such as 2025-01-31 or 2025-01-31 12:00:00+01:00', value, 'give it in this form; without a zone it is UTC') -%}
    {%- endif -%}
    {%- set time = modules.datetime.datetime.fromisoformat(text) -%}
    {%- set utc = (time - time.utcoffset() if time.tzinfo else time).replace(tzinfo=none) -%}
    {{ return("timestamp '" ~ utc.isoformat(' ', 'microseconds') ~ "+00:00'") }}
{%- endmacro %}
