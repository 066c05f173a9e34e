{#-- A key of a CDC or merge model's config that nobody reads is refused before anything is written: dbt ignores it without a
     word, and a misspelled `delete_when` leaves deleted rows alive. A key of one's own belongs in `meta`. --#}
{% macro check_config_keys(settings, strategy) -%}
    {%- set ours = delta_cdc._cdc_option_names() if strategy.startswith('cdc_') else ['replace_by'] -%}
    {%- set known = delta_cdc._dbt_config_keys() + ours -%}
    {%- for key in settings if key not in known -%}
        {%- set name = key | lower | replace('-', '_') -%}
        {%- set there = delta_cdc._other_names().get(name) -%}
        {%- if there -%}
            {%- set fix = 'here it is ' ~ there -%}
        {%- elif name in ['replace_by'] + delta_cdc._cdc_option_names() -%}
            {%- set fix = 'remove it; it belongs to ' ~ ('merge models' if name == 'replace_by' else 'cdc_scd1 and cdc_scd2') -%}
        {%- else -%}
            {%- set fix = 'did you mean ' ~ delta_cdc._nearest(name, known) ~ '? A key of your own belongs in meta' -%}
        {%- endif -%}
        {%- if name in ours -%}{%- set fix = 'write ' ~ name -%}{%- endif -%}
        {%- do delta_cdc._cdc_fail('config key ' ~ key, 'a key that dbt or a ' ~ strategy ~ ' model reads (' ~ ours | sort | join(', ') ~ ')', key, fix) -%}
    {%- endfor -%}
{%- endmacro %}


{#-- A misspelled strategy would be dbt-spark's to refuse, whose list lacks the two of this package. Nothing is dbt-spark's
     default. --#}
{% macro _check_strategy(strategy) -%}
    {%- set known = ['cdc_scd1', 'cdc_scd2', 'merge', 'append', 'insert_overwrite', 'microbatch'] -%}
    {%- if strategy and strategy not in known -%}
        {%- do delta_cdc._cdc_fail('incremental_strategy', known | join(', '), strategy, 'did you mean ' ~ delta_cdc._nearest(strategy | lower, known) ~ '?') -%}
    {%- endif -%}
{%- endmacro %}


{#-- Options that only CDC models have. --#}
{% macro _cdc_option_names() -%}
    {{ return(['sequence_by', 'effective_at', 'delete_when', 'truncate_when', 'watermark', 'track_history', 'track_history_except',
        'ignore_null_updates', 'unsent', 'moved_from', 'except_columns', 'on_tie', 'warn_above', 'fail_above', 'full_extracts', 'max_delete_share', 'cluster_by']) }}
{%- endmacro %}


{#-- What dbt, dbt-spark and their macros read of a model's config (dbt 1.11; tests/macros compares it with the installed one). --#}
{% macro _dbt_config_keys() -%}
    {{ return(['enabled', 'alias', 'schema', 'database', 'tags', 'meta', 'group', 'static_analysis', 'materialized',
        'incremental_strategy', 'batch_size', 'lookback', 'begin', 'persist_docs', 'post_hook', 'pre_hook', 'post-hook', 'pre-hook',
        'quoting', 'column_types', 'full_refresh', 'unique_key', 'on_schema_change', 'on_configuration_change', 'grants', 'packages',
        'docs', 'contract', 'event_time', 'concurrent_batches', 'access', 'freshness', 'file_format', 'location_root', 'partition_by',
        'clustered_by', 'buckets', 'options', 'merge_update_columns', 'merge_exclude_columns', 'predicates', 'incremental_predicates',
        'sql_header', 'tblproperties', 'submission_method', 'create_notebook', 'cluster_id', 'job_cluster_config', 'timeout',
        'config_keys_used', 'config_keys_defaults', 'meta_keys_used', 'meta_keys_defaults']) }}
{%- endmacro %}


{#-- Names that the same things have in Databricks' AUTO CDC and in dbt's snapshots. --#}
{% macro _other_names() -%}
    {{ return({
        'apply_as_deletes': 'delete_when', 'apply_as_delete_when': 'delete_when', 'hard_deletes': 'delete_when',
        'invalidate_hard_deletes': 'delete_when', 'apply_as_truncates': 'truncate_when', 'apply_as_truncate_when': 'truncate_when',
        'keys': 'unique_key', 'sequence_col': 'sequence_by', 'updated_at': 'sequence_by',
        'stored_as_scd_type': "incremental_strategy='cdc_scd1' or 'cdc_scd2'", 'scd_type': "incremental_strategy='cdc_scd1' or 'cdc_scd2'",
        'warn_if': 'warn_above', 'error_if': 'fail_above', 'strategy': 'incremental_strategy', 'track_history_column_list': 'track_history', 'check_cols': 'track_history',
        'track_history_except_column_list': 'track_history_except', 'except_column_list': 'except_columns',
        'column_list': "the model's SELECT", 'where': "the model's where clause", 'source': "source() in the model's SELECT",
        'target': "the model's name", 'target_schema': 'schema',
        'ignore_null_updates_column_list': 'ignore_null_updates, with a list',
        'ignore_null_updates_except_column_list': 'ignore_null_updates, with a list of the other columns',
    }) }}
{%- endmacro %}


{#-- The name that shares most pairs of neighbouring letters. --#}
{% macro _nearest(name, known) -%}
    {%- set best = namespace(name=known[0], score=-1) -%}
    {%- for candidate in known -%}
        {%- set shared = namespace(pairs=0) -%}
        {%- for i in range(name | length - 1) if name[i:i + 2] in candidate -%}{%- set shared.pairs = shared.pairs + 1 -%}{%- endfor -%}
        {#- Among equals, letters decide: of cdc_sdc2 the 2 alone tells which of the two was meant. -#}
        {%- for letter in name if letter in candidate -%}{%- set shared.pairs = shared.pairs + 0.01 -%}{%- endfor -%}
        {%- set score = 2 * shared.pairs / (name | length + candidate | length) -%}
        {%- if score > best.score -%}{%- set best.name, best.score = candidate, score -%}{%- endif -%}
    {%- endfor -%}
    {{ return(best.name) }}
{%- endmacro %}
