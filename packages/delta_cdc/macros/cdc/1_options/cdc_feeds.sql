{#-- The tables that a CDC model reads, as ids of dbt's graph: its sources, and tables made by models. Views and ephemeral
     models are followed to what they read. A seed is none: nothing arrives in it. --#}
{% macro cdc_feeds(ids, graph) -%}
    {%- set feeds = [] -%}
    {%- for id in ids -%}
        {%- set node = graph.nodes.get(id, {}) -%}
        {%- if node and node.config.materialized in ['view', 'ephemeral'] -%}
            {%- for behind in delta_cdc.cdc_feeds(node.depends_on.nodes, graph) if behind not in feeds -%}{%- do feeds.append(behind) -%}{%- endfor -%}
        {%- elif not id.startswith('seed.') and id not in feeds -%}
            {%- do feeds.append(id) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(feeds) }}
{%- endmacro %}
