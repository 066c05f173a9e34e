{#-- What the user reads under the model's name: scd1 one row per living key, scd2 one row per version. `columns` are the
     stored columns to show, `comments` their descriptions. --#}
{% macro cdc_view(o, view, storage, columns, comments={}, description='') -%}
{%- set shown = columns | reject('in', [o.unsent, o.watermark]) | list -%}
{%- set last = (['valid_from', 'valid_to', 'is_current'] if o.scd2 else []) + ['_batch_id'] -%}
{%- set known = {
    'valid_from': 'Start of the version, included.',
    'valid_to': 'End of the version, not included. NULL while the version is open.',
    'is_current': 'Whether the version is open.',
    '_batch_id': 'Highest batch of an event that changed this row.',
} -%}
create or replace view {{ view }} (
    {%- for name in shown + last %}
    `{{ name }}`{% set text = comments.get(name) or known.get(name) %}{% if text %} comment '{{ delta_cdc._cdc_escape(text) }}'{% endif %}{{ ',' if not loop.last }}
    {%- endfor %}
)
{% if description %}comment '{{ delta_cdc._cdc_escape(description) }}'{% endif %}
as
{{ delta_cdc.cdc_shown(shown, o.fill, o.scd2, storage) }}
{%- endmacro %}


{#-- The rows that are shown, of the storage table as it is or at a version: `fill` are the fields of its `_cdc_filled`. --#}
{% macro cdc_shown(shown, fill, scd2, storage) -%}
select
    {%- for name in shown %}
    {{ 'case when _cdc_filled is null then `' ~ name ~ '` else _cdc_filled.`' ~ name ~ '` end as `' ~ name ~ '`' if name in fill else '`' ~ name ~ '`' }},
    {%- endfor %}
    {% if scd2 -%}
    _cdc_valid_from as valid_from,
    _cdc_valid_to as valid_to,
    _cdc_valid_to is null as is_current,
    {% endif -%}
    _cdc_batch_id as _batch_id
from {{ storage }}
where _cdc_visible
{%- endmacro %}


{#-- Keys touched per batch, for readers who keep one mark per upstream. --#}
{% macro cdc_changes_view(o, view, storage) -%}
create or replace view {{ view }}
comment 'Keys touched by each batch, vanished ones included. One row per key and batch that last moved one of its rows.'
as
select distinct
    {{ delta_cdc._cdc_columns(o.unique_key) }},
    _cdc_batch_id as _batch_id
from {{ storage }}
where not _cdc_truncate
{%- endmacro %}
