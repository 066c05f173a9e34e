{#-- A metric that the project declares, as a scalar subquery over the whole table: `select {{ metric('revenue') }}`. --#}
{% macro metric(name) -%}
    {%- if not execute %}{{ return('null') }}{% endif -%}
    {%- set found = graph.metrics.values() | selectattr('name', 'equalto', name) | first -%}
    {%- if not found -%}
        {%- do exceptions.raise_compiler_error(
            "metric: there is no metric " ~ name ~ ". Known: "
            ~ graph.metrics.values() | map(attribute='name') | sort | join(', ') ~ ".") -%}
    {%- endif -%}
    {%- if found.filter or found.type not in ('simple', 'ratio') -%}
        {%- do exceptions.raise_compiler_error(
            "metric: " ~ name ~ " is " ~ ("filtered" if found.filter else found.type)
            ~ ". Expected a simple metric or a ratio, without a filter.") -%}
    {%- endif -%}
    {%- if found.type == 'ratio' -%}
        {{ return('(' ~ metric(found.type_params.numerator.name) ~ ' / nullif(' ~ metric(found.type_params.denominator.name) ~ ', 0))') }}
    {%- endif -%}
    {%- for model in graph.semantic_models.values() -%}
        {%- for measure in model.measures if measure.name == found.type_params.measure.name -%}
            {%- set expr = measure.expr or measure.name -%}
            {%- set of = {'count_distinct': 'count(distinct ' ~ expr ~ ')'}.get(measure.agg, measure.agg ~ '(' ~ expr ~ ')') -%}
            {{ return('(select ' ~ of ~ ' from ' ~ model.node_relation.relation_name ~ ')') }}
        {%- endfor -%}
    {%- endfor -%}
{%- endmacro %}
