{#-- `warn_above` and `fail_above`, checked: the most late, tied or clamped events that a run may apply. A whole number is a count, a
     number below 1 a share of the events that were read. --#}
{% macro cdc_limits(warn_above, fail_above, strategy, on_tie) -%}
    {%- set limits, kinds = {'warn_above': warn_above or {}, 'fail_above': fail_above or {}}, ['late', 'ties', 'clamped'] -%}
    {%- for option, given in limits.items() -%}
        {%- if given is not mapping -%}
            {%- do delta_cdc._cdc_fail(option, 'a mapping of late, ties and clamped to limits', given, 'write ' ~ option ~ "={'late': 100}") -%}
        {%- endif -%}
        {%- for kind, limit in given.items() -%}
            {%- if kind not in kinds -%}
                {%- do delta_cdc._cdc_fail(option, 'late, ties or clamped', kind, 'did you mean ' ~ delta_cdc._nearest(kind | string, kinds) ~ '?') -%}
            {%- elif not ((limit is integer and limit >= 0) or (limit is float and 0 < limit < 1)) -%}
                {%- do delta_cdc._cdc_fail(option ~ '.' ~ kind, 'a count (0, 1, 2, …) or a share of the events read (above 0, below 1)', limit, 'correct the number') -%}
            {%- elif kind == 'ties' and on_tie == 'error' -%}
                {%- do delta_cdc._cdc_fail(option ~ '.ties', "on_tie='warn' (with 'error' the first tie stops the model)", "on_tie='error'", 'remove the limit, or set on_tie') -%}
            {%- elif kind == 'clamped' and strategy == 'cdc_scd1' -%}
                {%- do delta_cdc._cdc_fail(option ~ '.clamped', 'cdc_scd2 (a state has no effective time)', strategy, 'remove the limit') -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(limits) }}
{%- endmacro %}


{#-- Holds a run's counts to the model's limits, before anything is written. Returns how many of `warn_above` were passed. --#}
{% macro cdc_hold_to_limits(o, counts) -%}
    {%- set failed = delta_cdc._cdc_passed_limits(o.limits.fail_above, counts) -%}
    {%- if failed -%}
        {%- do exceptions.raise_compiler_error(this ~ ': ' ~ failed | join('; ') ~ '.\nExpected no more than fail_above. Nothing was written,'
            ~ ' and the next run reads the same events. Fix, one of:\n'
            ~ '  - find out why the source sends them. `dbt run-operation cdc_explain` prints the events of a key.\n'
            ~ '  - exclude wrong events in the where clause of the model.\n'
            ~ '  - if they are right, raise fail_above for this run.') -%}
    {%- endif -%}
    {%- set warned = delta_cdc._cdc_passed_limits(o.limits.warn_above, counts) -%}
    {%- if warned -%}{%- do exceptions.warn(this ~ ': ' ~ warned | join('; ') ~ '. Expected no more than warn_above; they are applied.') -%}{%- endif -%}
    {{ return(warned | length) }}
{%- endmacro %}


{#-- The limits that the counts pass, each as a text. --#}
{% macro _cdc_passed_limits(limits, counts) -%}
    {%- set passed, read = [], counts['read'] | int -%}
    {%- for kind, limit in limits.items() -%}
        {%- set count = counts.get(kind, 0) | int -%}
        {%- if count > (limit if limit is integer else limit * read) -%}
            {%- do passed.append(kind ~ ': ' ~ count ~ ' of ' ~ read ~ ' events read, limit ' ~ limit) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(passed) }}
{%- endmacro %}
