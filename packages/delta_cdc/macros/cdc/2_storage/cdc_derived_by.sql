{#-- What last derived every key of a CDC model's storage table: a dbt invocation's id. It changes with a full refresh and
     with options that re-derive; a reader that keeps a mark reads every key again then. --#}
{% macro cdc_derived_by(storage) -%}
    {{ return(run_query("show tblproperties " ~ storage ~ " ('lakehouse.cdc.derived_by')").rows[0]['value']) }}
{%- endmacro %}
