{#-- Hash of what gives a merge model its rows: its SQL as it renders, for a first load and for an incremental run, the
     ephemeral models in it, its keys, contract and columns. So a changed var, macro or env_var counts as a changed model.
     What renders differently every run is kept out: invocation_id and run_started_at are fixed, changed_keys() gives every
     batch, touched_keys() its query. none where equal SQL gives other rows by itself: such a model always runs. --#}
{% macro model_hash() -%}
    {%- if 'merge_model_hash' not in context -%}
        {%- set texts = delta_cdc._rendered_for_hash() -%}
        {%- for cte in model.get('extra_ctes') or [] -%}{%- do texts.append((cte.sql or '') | replace(invocation_id, '')) -%}{%- endfor -%}
        {%- if delta_cdc.changes_by_itself(texts | join('\n')) -%}
            {%- do context.update({'merge_model_hash': none}) -%}
        {%- else -%}
            {%- do context.update({'merge_model_hash': local_md5(tojson(texts + [delta_cdc._shape_for_hash()], sort_keys=true))}) -%}
        {%- endif -%}
    {%- endif -%}
    {{ return(context['merge_model_hash']) }}
{%- endmacro %}


{#-- The model's SQL as a first load and as an incremental run, without what differs every time. --#}
{% macro _rendered_for_hash() -%}
    {%- if model.language == 'python' -%}
        {{ return([modules.re.sub('is_incremental = \\w+', '', model.compiled_code or model.raw_code)]) }}
    {%- endif -%}
    {%- set texts = [] -%}
    {%- set fixed = {'invocation_id': '', 'run_started_at': modules.datetime.datetime(2000, 1, 1, tzinfo=modules.pytz.utc)} -%}
    {%- set todays = {'invocation_id': invocation_id, 'run_started_at': run_started_at, 'merge_rendering': none} -%}
    {%- for way in ['full', 'incremental'] -%}
        {%- do context.update(dict(fixed, merge_rendering=way)) -%}
        {%- do texts.append(render(model.raw_code)) -%}
        {%- do context.update(todays) -%}
    {%- endfor -%}
    {{ return(texts) }}
{%- endmacro %}


{#-- What of the model's config and columns its rows depend on. --#}
{% macro _shape_for_hash() -%}
    {%- set columns = [] -%}
    {%- for column in model.columns.values() -%}
        {%- do columns.append([column.name, column.data_type, column.get('constraints')]) -%}
    {%- endfor -%}
    {{ return({
        'columns': columns, 'contract': config.get('contract').enforced if config.get('contract') else false,
        'unique_key': config.get('unique_key'), 'replace_by': config.get('replace_by'),
        'on_schema_change': config.get('on_schema_change'), 'incremental_predicates': config.get('incremental_predicates'),
    }) }}
{%- endmacro %}


{#-- Whether SQL gives other rows although nothing that it reads has changed. Text, names and comments are not looked at. --#}
{% macro changes_by_itself(sql) -%}
    {%- set code = modules.re.sub(
        "'(?:[^'\\\\]|\\\\.)*'|\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`|--[^\\n]*|/\\*[\\s\\S]*?\\*/", ' ', sql) -%}
    {{ return(modules.re.search(
        '(?i)\\b(?:(?:current_(?:date|time|timestamp|user)|localtimestamp|session_user)\\b|unix_timestamp\\s*\\(\\s*\\)'
        ~ '|(?:now|curdate|user|rand|randn|random|randstr|uniform|uuid|shuffle|monotonically_increasing_id'
        ~ '|spark_partition_id)\\s*\\()', code) is not none) }}
{%- endmacro %}
