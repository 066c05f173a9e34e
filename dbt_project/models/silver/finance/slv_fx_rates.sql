-- Grain: one currency on one working day. Written by cdc_scd1: a rate that is delivered again is a revision.
-- Does not fill weekends: slv_fx_rates_daily does, with the last rate before them.
{{ config(
    incremental_strategy='cdc_scd1',
    unique_key=['rate_date', 'currency'],
    sequence_by=['_file', '_line'],
) }}

select
    rate_date,
    currency,
    units_per_eur,
    _file,
    _line,
    _batch_id
from {{ source('bronze', 'fx_rates') }}
