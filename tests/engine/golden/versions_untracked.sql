-- ===== first load =====

describe query
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean;

set dbt.session.own;

show tables in lab like 'versions_untracked__cdc';

with events as (
    select
        *,
        coalesce(lag(struct(`seq`)) over in_sequence = struct(`seq`), false) as _cdc_repeats,
        lead(struct(`seq`)) over in_sequence is null as _cdc_is_last,
        coalesce(max(`ts`) over so_far > `ts`, false) as _cdc_clamped
    from (
select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
) as staged
    window
        in_sequence as (partition by `k` order by `seq`),
        so_far as (partition by `k` order by `seq` rows between unbounded preceding and 1 preceding)
),
ranges as (
    select
        cast(null as struct<lowest: string, highest: string>) as _cdc_range,
        count(*) as _cdc_events,
        cast(null as double) as _cdc_width,
        count_if(_cdc_is_last and not _cdc_deleted) as _cdc_opened,
        count_if(_cdc_truncate) as _cdc_truncates,
        count_if(_cdc_deleted) as _cdc_deletes,
        count_if(false) as _cdc_moves,
        count_if(_cdc_clamped) as _cdc_clamped,
        count_if(not _cdc_truncate and (`k` is null)) as _cdc_null_keys,
        count_if(`seq` is null) as _cdc_null_sequences,
        count_if(`ts` is null) as _cdc_null_effective,
        count_if(`ts` > _cdc_arrived_at + interval 1 day) as _cdc_in_future,
        count_if(`_batch_id` is null) as _cdc_null_watermarks,
        max(_cdc_repeats) as _cdc_repeats,
        min(`_batch_id`) as _cdc_first_batch,
        max(`_batch_id`) as _cdc_last_batch,
        min(`ts`) as _cdc_first_at,
        max(`ts`) as _cdc_last_at,
        min(struct(`seq`)) as _cdc_first,
        max(struct(`seq`)) as _cdc_last
    from events
)
select
    coalesce(sum(_cdc_events), 0) as rows_read,
    coalesce(sum(_cdc_opened), 0) as opened,
    coalesce(sum(_cdc_width) > 16 * sum(_cdc_events), true) as is_scattered,
    coalesce(sum(_cdc_truncates), 0) as truncates,
    coalesce(sum(_cdc_deletes), 0) as deletes,
    coalesce(sum(_cdc_clamped), 0) as clamped,
    coalesce(sum(_cdc_null_keys), 0) as null_keys,
    coalesce(sum(_cdc_null_sequences), 0) as null_sequences,
    coalesce(sum(_cdc_null_effective), 0) as null_effective,
    coalesce(sum(_cdc_in_future), 0) as in_future,
    coalesce(sum(_cdc_null_watermarks), 0) as null_watermarks,
    concat('=', cast(min(_cdc_first_batch) as string)) as first_batch,
    concat('=', cast(max(_cdc_last_batch) as string)) as last_batch,
    coalesce(
        not max(_cdc_repeats)
        and sum(_cdc_truncates + _cdc_moves + _cdc_null_keys + _cdc_null_sequences + _cdc_null_effective + _cdc_in_future + _cdc_null_watermarks) = 0,
        false) as in_order,
    concat('=', to_json(array(cast(max(_cdc_last).`seq` as string), cast(unix_micros(max(_cdc_last_at)) as string)))) as reach,
    concat('=', to_json(collect_list(case when _cdc_range.lowest is not null then _cdc_range end))) as ranges
from ranges;

show tables in lab like 'versions_untracked|versions_untracked__changes';

create table lab.versions_untracked__cdc
using delta
cluster by (`k`)
comment 'Every event of versions_untracked, hidden ones included. Read the view of that name instead.'
tblproperties ('lakehouse.cdc.options' = '{"identity": {"delete_when": "_op = \'d\'", "sequence_by": ["seq"], "truncate_when": "_op = \'t\'", "unique_key": ["k"], "watermark": "_batch_id"}, "shape": {"effective_at": "ts", "fill": [], "ignore_null": [], "moved_from": [], "strategy": "cdc_scd2", "tracked": ["a", "b"], "unsent": ""}}', 'lakehouse.cdc.schemas' = '[["a", "b", "c"]]', 'lakehouse.cdc.derived_by' = 'invocation 1', 'lakehouse.cdc.views' = 'c9470b08f7fd9d79ba6067f0fa15fdb3')
as
select `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at` from (
with
events as (
    select /*+ repartition_by_range(1, `k`) */
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        case
            when _cdc_truncate or not _cdc_truncate and (`k` is null) or `seq` is null or `ts` is null or `ts` > _cdc_arrived_at + interval 1 day or `_batch_id` is null or struct(`seq`) > struct(30L as `seq`) or `ts` > timestamp_micros(1735797600000000L) then raise_error('lab.versions_untracked: the source changed while it was read. No row was written. Fix: run the model again.')
            else _cdc_deleted
        end as _cdc_deleted,
        cast(`ts` as timestamp) as _cdc_earliest_at,
        false as _cdc_stored
    from (select * from (
select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
) as staged where `_batch_id` <= 1L)
),
segmented as (
    select
        *,
        case
            when lag(struct(`seq`)) over (partition by `k` order by `seq`) = struct(`seq`)
                then raise_error('lab.versions_untracked: the source changed while it was read. No row was written. Fix: run the model again.')
            else false
        end as _cdc_truncate,
        false as _cdc_overridden,
        false as _cdc_synthetic,
        max(case when not _cdc_stored then `_batch_id` end) over (partition by `k`) as _cdc_key_batch,
        count_if(_cdc_deleted) over (
            partition by `k` order by `seq` rows between unbounded preceding and current row
        ) as _cdc_segment
    from events
),
filled as (
    select * from segmented
),
clamped as (
    select
        *,
        max(_cdc_earliest_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic rows between unbounded preceding and current row) as _cdc_effective_at
    from filled
),
collapsed as (
    select
        *,
        not _cdc_truncate and not _cdc_overridden
            and not (lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic) <=> _cdc_effective_at) as _cdc_shown
    from clamped
),
headed as (
    select
        *,
        _cdc_shown and not _cdc_deleted and not (lag(struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) <=> struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) as _cdc_head
    from collapsed
),
runs as (
    select
        *,
        _cdc_shown and not _cdc_deleted
            and coalesce(lead(_cdc_head or _cdc_deleted) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic), true) as _cdc_now_visible,
        max(case when _cdc_head then _cdc_effective_at end) over (
            partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic rows between unbounded preceding and current row
        ) as _cdc_run_from,
        lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) as _cdc_run_to
    from headed
),
placed_in_time as (
    select
        *,
        case when _cdc_now_visible then cast(_cdc_run_from as timestamp) end as _cdc_now_from,
        case when _cdc_now_visible then cast(_cdc_run_to as timestamp) end as _cdc_now_to
    from runs
)
select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    _cdc_now_from as _cdc_valid_from,
    _cdc_now_to as _cdc_valid_to,
    _cdc_key_batch as _cdc_batch_id,
    0 as _cdc_schema,
    not _cdc_stored as _cdc_insert,
    _cdc_stored as _cdc_update
from placed_in_time
) as timeline where false;

begin
    execute immediate 'set spark.databricks.delta.write.txnAppId = cdc:lab.versions_untracked__cdc';
    execute immediate 'set spark.databricks.delta.write.txnVersion = 1';
    execute immediate 'set spark.databricks.delta.commitInfo.userMetadata = {"lakehouse.cdc": {"table": "lab.versions_untracked__cdc", "version": 1, "mark": "=1", "run": null, "truncates": 0, "reach": ["30", "1735797600000000"], "model": "452f41e69062a8444caff3b490e70a0a", "schema": 0, "rows": 3}}';
end;

insert into lab.versions_untracked__cdc
select
    `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`
from (
with
events as (
    select /*+ repartition_by_range(1, `k`) */
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        case
            when _cdc_truncate or not _cdc_truncate and (`k` is null) or `seq` is null or `ts` is null or `ts` > _cdc_arrived_at + interval 1 day or `_batch_id` is null or struct(`seq`) > struct(30L as `seq`) or `ts` > timestamp_micros(1735797600000000L) then raise_error('lab.versions_untracked: the source changed while it was read. No row was written. Fix: run the model again.')
            else _cdc_deleted
        end as _cdc_deleted,
        cast(`ts` as timestamp) as _cdc_earliest_at,
        false as _cdc_stored
    from (select * from (
select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
) as staged where `_batch_id` <= 1L)
),
segmented as (
    select
        *,
        case
            when lag(struct(`seq`)) over (partition by `k` order by `seq`) = struct(`seq`)
                then raise_error('lab.versions_untracked: the source changed while it was read. No row was written. Fix: run the model again.')
            else false
        end as _cdc_truncate,
        false as _cdc_overridden,
        false as _cdc_synthetic,
        max(case when not _cdc_stored then `_batch_id` end) over (partition by `k`) as _cdc_key_batch,
        count_if(_cdc_deleted) over (
            partition by `k` order by `seq` rows between unbounded preceding and current row
        ) as _cdc_segment
    from events
),
filled as (
    select * from segmented
),
clamped as (
    select
        *,
        max(_cdc_earliest_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic rows between unbounded preceding and current row) as _cdc_effective_at
    from filled
),
collapsed as (
    select
        *,
        not _cdc_truncate and not _cdc_overridden
            and not (lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic) <=> _cdc_effective_at) as _cdc_shown
    from clamped
),
headed as (
    select
        *,
        _cdc_shown and not _cdc_deleted and not (lag(struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) <=> struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) as _cdc_head
    from collapsed
),
runs as (
    select
        *,
        _cdc_shown and not _cdc_deleted
            and coalesce(lead(_cdc_head or _cdc_deleted) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic), true) as _cdc_now_visible,
        max(case when _cdc_head then _cdc_effective_at end) over (
            partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic rows between unbounded preceding and current row
        ) as _cdc_run_from,
        lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) as _cdc_run_to
    from headed
),
placed_in_time as (
    select
        *,
        case when _cdc_now_visible then cast(_cdc_run_from as timestamp) end as _cdc_now_from,
        case when _cdc_now_visible then cast(_cdc_run_to as timestamp) end as _cdc_now_to
    from runs
)
select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    _cdc_now_from as _cdc_valid_from,
    _cdc_now_to as _cdc_valid_to,
    _cdc_key_batch as _cdc_batch_id,
    0 as _cdc_schema,
    not _cdc_stored as _cdc_insert,
    _cdc_stored as _cdc_update
from placed_in_time
) as timeline
where _cdc_insert
sort by `k`;

begin
    execute immediate 'reset spark.databricks.delta.write.txnAppId';
    execute immediate 'reset spark.databricks.delta.write.txnVersion';
    execute immediate 'reset spark.databricks.delta.commitInfo.userMetadata';
end;

show views in lab like 'versions_untracked|versions_untracked__changes';

show tables in lab like 'versions_untracked';

create or replace view lab.versions_untracked (
    `k`,
    `a`,
    `b`,
    `c`,
    `seq`,
    `ts`,
    `_arrived_at`,
    `valid_from` comment 'Start of the version, included.',
    `valid_to` comment 'End of the version, not included. NULL while the version is open.',
    `is_current` comment 'Whether the version is open.',
    `_batch_id` comment 'Highest batch of an event that changed this row.'
)
as
select
    `k`,
    `a`,
    `b`,
    `c`,
    `seq`,
    `ts`,
    `_arrived_at`,
    _cdc_valid_from as valid_from,
    _cdc_valid_to as valid_to,
    _cdc_valid_to is null as is_current,
    _cdc_batch_id as _batch_id
from lab.versions_untracked__cdc
where _cdc_visible;

create or replace view lab.versions_untracked__changes
comment 'Keys touched by each batch, vanished ones included. One row per key and batch that last moved one of its rows.'
as
select distinct
    `k`,
    _cdc_batch_id as _batch_id
from lab.versions_untracked__cdc
where not _cdc_truncate;

begin
    execute immediate 'reset spark.databricks.delta.write.txnAppId';
    execute immediate 'reset spark.databricks.delta.write.txnVersion';
    execute immediate 'reset spark.databricks.delta.commitInfo.userMetadata';
end;

show views like '*__cdc_*';

-- ===== a key change, and an event that comes late =====

describe query
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean;

set dbt.session.own;

describe history lab.versions_untracked__cdc limit 1;

select
    count_if(`_batch_id` > 1L or `_batch_id` is null) as rows_read,
    count_if(`_batch_id` = 1L) as rows_at_mark
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
where `_batch_id` >= 1L or `_batch_id` is null;

cache lazy table lab__versions_untracked__cdc_4ece490f_staged as select /*+ coalesce(1) */
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
where `_batch_id` > 1L or `_batch_id` is null;

with events as (
    select
        *,
        coalesce(lag(struct(`seq`)) over in_sequence = struct(`seq`), false) as _cdc_repeats,
        lead(struct(`seq`)) over in_sequence is null as _cdc_is_last,
        coalesce(max(`ts`) over so_far > `ts`, false) as _cdc_clamped
    from lab__versions_untracked__cdc_4ece490f_staged
    window
        in_sequence as (partition by `k` order by `seq`),
        so_far as (partition by `k` order by `seq` rows between unbounded preceding and 1 preceding)
),
ends as (
    select *, min(`k`) over () as _cdc_lowest, max(`k`) over () as _cdc_highest from events
),
positions as (
    select *, cast(conv(rpad(left(hex(substr(`k`, 1 + coalesce(nullif(array_position(transform(
        sequence(1, greatest(least(length(_cdc_lowest), length(_cdc_highest)), 1)), i -> substr(_cdc_lowest, i, 1) = substr(_cdc_highest, i, 1)
    ), false), 0) - 1, least(length(_cdc_lowest), length(_cdc_highest))), 12)), 12), 12, '0'), 16, 10) as double) as _cdc_position from ends
),
gaps as (
    select *, _cdc_position - lag(_cdc_position) over (order by `k`) as _cdc_gap from positions
),
widest as (
    select
        *,
        _cdc_gap > 0 and _cdc_gap * 64 > sum(_cdc_gap) over () as _cdc_is_wide,
        row_number() over (order by _cdc_gap desc nulls last, `k`) as _cdc_place
    from gaps
),
bucketed as (
    select *, count_if(_cdc_is_wide and _cdc_place < 32) over (order by `k`) as _cdc_bucket from widest
),
ranges as (
    select
        struct(cast(min(`k`) as string) as lowest, cast(max(`k`) as string) as highest) as _cdc_range,
        count(*) as _cdc_events,
        max(_cdc_position) - min(_cdc_position) as _cdc_width,
        count_if(_cdc_is_last and not _cdc_deleted) as _cdc_opened,
        count_if(_cdc_truncate) as _cdc_truncates,
        count_if(_cdc_deleted) as _cdc_deletes,
        count_if(false) as _cdc_moves,
        count_if(_cdc_clamped) as _cdc_clamped,
        count_if(not _cdc_truncate and (`k` is null)) as _cdc_null_keys,
        count_if(`seq` is null) as _cdc_null_sequences,
        count_if(`ts` is null) as _cdc_null_effective,
        count_if(`ts` > _cdc_arrived_at + interval 1 day) as _cdc_in_future,
        count_if(`_batch_id` is null) as _cdc_null_watermarks,
        max(_cdc_repeats) as _cdc_repeats,
        min(`_batch_id`) as _cdc_first_batch,
        max(`_batch_id`) as _cdc_last_batch,
        min(`ts`) as _cdc_first_at,
        max(`ts`) as _cdc_last_at,
        min(struct(`seq`)) as _cdc_first,
        max(struct(`seq`)) as _cdc_last
    from bucketed group by _cdc_bucket
)
select
    coalesce(sum(_cdc_events), 0) as rows_read,
    coalesce(sum(_cdc_opened), 0) as opened,
    coalesce(sum(_cdc_width) > 16 * sum(_cdc_events), true) as is_scattered,
    coalesce(sum(_cdc_truncates), 0) as truncates,
    coalesce(sum(_cdc_deletes), 0) as deletes,
    coalesce(sum(_cdc_clamped), 0) as clamped,
    coalesce(sum(_cdc_null_keys), 0) as null_keys,
    coalesce(sum(_cdc_null_sequences), 0) as null_sequences,
    coalesce(sum(_cdc_null_effective), 0) as null_effective,
    coalesce(sum(_cdc_in_future), 0) as in_future,
    coalesce(sum(_cdc_null_watermarks), 0) as null_watermarks,
    concat('=', cast(min(_cdc_first_batch) as string)) as first_batch,
    concat('=', cast(max(_cdc_last_batch) as string)) as last_batch,
    coalesce(
        not max(_cdc_repeats)
        and min(_cdc_first) > struct(30L as `seq`)
        and min(_cdc_first_at) > timestamp_micros(1735797600000000L)
        and sum(_cdc_truncates + _cdc_moves + _cdc_null_keys + _cdc_null_sequences + _cdc_null_effective + _cdc_in_future + _cdc_null_watermarks) = 0,
        false) as in_order,
    concat('=', to_json(array(cast(greatest(max(_cdc_last), struct(30L as `seq`)).`seq` as string), cast(unix_micros(greatest(max(_cdc_last_at), timestamp_micros(1735797600000000L))) as string)))) as reach,
    concat('=', to_json(collect_list(case when _cdc_range.lowest is not null then _cdc_range end))) as ranges
from ranges;

show tblproperties lab.versions_untracked__cdc;

cache lazy table lab__versions_untracked__cdc_4ece490f_diff as with
events as (
    select
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, _cdc_schema, _cdc_visible, _cdc_valid_from, _cdc_valid_to,
        true as _cdc_stored
    from (
    select stored.*
    from lab.versions_untracked__cdc version as of 1 as stored
    left semi join (select `k` from (select * from lab__versions_untracked__cdc_4ece490f_staged where `_batch_id` <= 2L) where not _cdc_truncate) as touched on stored.`k` <=> touched.`k`
    where (stored.`k` = 'k1' or stored.`k` = 'k2')
) as state
    union all
    select
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, 0 as _cdc_schema,
        cast(null as boolean) as _cdc_visible,
        cast(null as timestamp) as _cdc_valid_from,
        cast(null as timestamp) as _cdc_valid_to,
        false as _cdc_stored
    from (select * from lab__versions_untracked__cdc_4ece490f_staged where `_batch_id` <= 2L)
),
distributed as (
    select * from events distribute by `k`
),
compared as (
    select
        *,
        not (lag(struct(`seq`)) over by_key <=> struct(`seq`)) as _cdc_first,
        lag(struct(`seq`)) over by_key <=> struct(`seq`)
            and not (_cdc_deleted <=> lag(_cdc_deleted) over by_key
            and (`a` <=> lag(`a`) over by_key)
            and (`b` <=> lag(`b`) over by_key)
            and (`c` <=> lag(`c`) over by_key)) as _cdc_conflict
    from distributed
    window by_key as (partition by `k` order by `seq`, _cdc_stored desc, `_batch_id`)
),
counted as (
    select
        *,
        count_if(not _cdc_stored) over at_sequence as _cdc_new_copies,
        max(_cdc_conflict) over at_sequence as _cdc_tied,
        min(`ts`) over (partition by `k`, `seq`) as _cdc_earliest_at,
        max(_cdc_stored) over at_sequence as _cdc_was_stored,
        max(case when not _cdc_stored then `_batch_id` end)
            over of_key as _cdc_key_batch,
        max(case when _cdc_stored then struct(`seq`) end) over of_key as _cdc_last_stored
    from compared
    window
        at_sequence as (partition by `k`, `seq`),
        of_key as (partition by `k`)
),
distinct_events as (
    select * from counted where _cdc_first
),
placed as (
    select
        *,
        false as _cdc_synthetic,
        false as _cdc_overridden
    from distinct_events
),
segmented as (
    select
        *,
        count_if(_cdc_deleted ) over (
            partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic
            rows between unbounded preceding and current row
        ) as _cdc_segment
    from placed
),
filled as (
    select * from segmented
),
clamped as (
    select
        *,
        max(_cdc_earliest_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic rows between unbounded preceding and current row) as _cdc_effective_at
    from filled
),
collapsed as (
    select
        *,
        not _cdc_truncate and not _cdc_overridden
            and not (lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic) <=> _cdc_effective_at) as _cdc_shown
    from clamped
),
headed as (
    select
        *,
        _cdc_shown and not _cdc_deleted and not (lag(struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) <=> struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) as _cdc_head
    from collapsed
),
runs as (
    select
        *,
        _cdc_shown and not _cdc_deleted
            and coalesce(lead(_cdc_head or _cdc_deleted) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic), true) as _cdc_now_visible,
        max(case when _cdc_head then _cdc_effective_at end) over (
            partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic rows between unbounded preceding and current row
        ) as _cdc_run_from,
        lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) as _cdc_run_to
    from headed
),
placed_in_time as (
    select
        *,
        case when _cdc_now_visible then cast(_cdc_run_from as timestamp) end as _cdc_now_from,
        case when _cdc_now_visible then cast(_cdc_run_to as timestamp) end as _cdc_now_to
    from runs
),
derived as (
    select
        *,
        null as _cdc_now_filled
    from placed_in_time
),
compared_to_stored as (
    select
        *,
        not _cdc_was_stored as _cdc_insert,
        _cdc_was_stored and (
            not _cdc_stored
            or not (`ts` <=> _cdc_earliest_at)
            or not (_cdc_now_visible <=> _cdc_visible)
            or not (_cdc_now_from <=> _cdc_valid_from)
            or not (_cdc_now_to <=> _cdc_valid_to)
        ) as _cdc_update
    from derived
    where not _cdc_synthetic
)
select
    `k`,
    `a`,
    `b`,
    `c`,
    `seq`,
    _cdc_earliest_at as `ts`,
    `_arrived_at`,
    `_batch_id`,
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    _cdc_now_from as _cdc_valid_from,
    _cdc_now_to as _cdc_valid_to,
    coalesce(_cdc_key_batch, 2L) as _cdc_batch_id,
    _cdc_schema,
    _cdc_insert,
    _cdc_update,
    _cdc_tied,
    _cdc_new_copies,
    _cdc_insert and struct(`seq`) < _cdc_last_stored as _cdc_late,
    _cdc_insert and _cdc_earliest_at < _cdc_effective_at as _cdc_clamped,
    _cdc_now_visible and _cdc_now_to is null and not coalesce(_cdc_visible and _cdc_valid_to is null, false) as _cdc_opens,
    coalesce(_cdc_visible and _cdc_valid_to is null, false) and not (_cdc_now_visible and _cdc_now_to is null) as _cdc_closes
from compared_to_stored
where _cdc_insert or _cdc_update or _cdc_new_copies > 0;

select coalesce(sum(_cdc_new_copies), 0) - count_if(_cdc_insert) as duplicates, count_if(_cdc_insert) as inserted, count_if(_cdc_update) as updated, count_if(_cdc_tied and _cdc_new_copies > 0) as ties, count_if(_cdc_clamped) as clamped, count_if(_cdc_late) as late, count_if(_cdc_insert and _cdc_deleted) as deletes, count_if(_cdc_opens) as opened, count_if(_cdc_closes) as closed, count_if(_cdc_update and not _cdc_opens and not _cdc_closes) as moved, concat('=', cast(max(case when _cdc_insert then `_batch_id` end) as string)) as newest, concat('=', cast(slice(collect_list(case when _cdc_tied and _cdc_new_copies > 0 then struct(`k`, `seq`) end), 1, 3) as string)) as examples from lab__versions_untracked__cdc_4ece490f_diff;

begin
    execute immediate 'set spark.databricks.delta.write.txnAppId = cdc:lab.versions_untracked__cdc';
    execute immediate 'set spark.databricks.delta.write.txnVersion = 2';
    execute immediate 'set spark.databricks.delta.commitInfo.userMetadata = {"lakehouse.cdc": {"table": "lab.versions_untracked__cdc", "version": 2, "mark": "=2", "run": null, "truncates": 0, "reach": ["30", "1735797600000000"], "model": "452f41e69062a8444caff3b490e70a0a", "schema": 0, "rows": 5}}';
end;

merge into lab.versions_untracked__cdc as stored
using (
    select `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`
    from lab__versions_untracked__cdc_4ece490f_diff
    where _cdc_insert or _cdc_update
) as changed
on stored.`k` <=> changed.`k` and stored.`seq` <=> changed.`seq`
    and (stored.`k` = 'k1' or stored.`k` = 'k2')
when matched then update set
    `k` = changed.`k`,
    `seq` = changed.`seq`,
    `_batch_id` = changed.`_batch_id`,
    `_cdc_batch_id` = changed.`_cdc_batch_id`,
    `_cdc_valid_from` = changed.`_cdc_valid_from`,
    `_cdc_valid_to` = changed.`_cdc_valid_to`,
    `_cdc_visible` = changed.`_cdc_visible`,
    `_cdc_deleted` = changed.`_cdc_deleted`,
    `_cdc_truncate` = changed.`_cdc_truncate`,
    `_cdc_schema` = changed.`_cdc_schema`,
    `a` = changed.`a`,
    `b` = changed.`b`,
    `c` = changed.`c`,
    `ts` = changed.`ts`,
    `_arrived_at` = changed.`_arrived_at`
when not matched then insert (`k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`) values (changed.`k`, changed.`seq`, changed.`_batch_id`, changed.`_cdc_batch_id`, changed.`_cdc_valid_from`, changed.`_cdc_valid_to`, changed.`_cdc_visible`, changed.`_cdc_deleted`, changed.`_cdc_truncate`, changed.`_cdc_schema`, changed.`a`, changed.`b`, changed.`c`, changed.`ts`, changed.`_arrived_at`);

begin
    execute immediate 'reset spark.databricks.delta.write.txnAppId';
    execute immediate 'reset spark.databricks.delta.write.txnVersion';
    execute immediate 'reset spark.databricks.delta.commitInfo.userMetadata';
end;

show views like '*__cdc_*';

drop view if exists lab__versions_untracked__cdc_4ece490f_diff;

drop view if exists lab__versions_untracked__cdc_4ece490f_staged;

-- ===== an event in order =====

describe query
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean;

set dbt.session.own;

describe history lab.versions_untracked__cdc limit 1;

select
    count_if(`_batch_id` > 2L or `_batch_id` is null) as rows_read,
    count_if(`_batch_id` = 2L) as rows_at_mark
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
where `_batch_id` >= 2L or `_batch_id` is null;

cache lazy table lab__versions_untracked__cdc_cdc2cf1f_staged as select /*+ coalesce(1) */
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
where `_batch_id` > 2L or `_batch_id` is null;

with events as (
    select
        *,
        coalesce(lag(struct(`seq`)) over in_sequence = struct(`seq`), false) as _cdc_repeats,
        lead(struct(`seq`)) over in_sequence is null as _cdc_is_last,
        coalesce(max(`ts`) over so_far > `ts`, false) as _cdc_clamped
    from lab__versions_untracked__cdc_cdc2cf1f_staged
    window
        in_sequence as (partition by `k` order by `seq`),
        so_far as (partition by `k` order by `seq` rows between unbounded preceding and 1 preceding)
),
ends as (
    select *, min(`k`) over () as _cdc_lowest, max(`k`) over () as _cdc_highest from events
),
positions as (
    select *, cast(conv(rpad(left(hex(substr(`k`, 1 + coalesce(nullif(array_position(transform(
        sequence(1, greatest(least(length(_cdc_lowest), length(_cdc_highest)), 1)), i -> substr(_cdc_lowest, i, 1) = substr(_cdc_highest, i, 1)
    ), false), 0) - 1, least(length(_cdc_lowest), length(_cdc_highest))), 12)), 12), 12, '0'), 16, 10) as double) as _cdc_position from ends
),
gaps as (
    select *, _cdc_position - lag(_cdc_position) over (order by `k`) as _cdc_gap from positions
),
widest as (
    select
        *,
        _cdc_gap > 0 and _cdc_gap * 64 > sum(_cdc_gap) over () as _cdc_is_wide,
        row_number() over (order by _cdc_gap desc nulls last, `k`) as _cdc_place
    from gaps
),
bucketed as (
    select *, count_if(_cdc_is_wide and _cdc_place < 32) over (order by `k`) as _cdc_bucket from widest
),
ranges as (
    select
        struct(cast(min(`k`) as string) as lowest, cast(max(`k`) as string) as highest) as _cdc_range,
        count(*) as _cdc_events,
        max(_cdc_position) - min(_cdc_position) as _cdc_width,
        count_if(_cdc_is_last and not _cdc_deleted) as _cdc_opened,
        count_if(_cdc_truncate) as _cdc_truncates,
        count_if(_cdc_deleted) as _cdc_deletes,
        count_if(false) as _cdc_moves,
        count_if(_cdc_clamped) as _cdc_clamped,
        count_if(not _cdc_truncate and (`k` is null)) as _cdc_null_keys,
        count_if(`seq` is null) as _cdc_null_sequences,
        count_if(`ts` is null) as _cdc_null_effective,
        count_if(`ts` > _cdc_arrived_at + interval 1 day) as _cdc_in_future,
        count_if(`_batch_id` is null) as _cdc_null_watermarks,
        max(_cdc_repeats) as _cdc_repeats,
        min(`_batch_id`) as _cdc_first_batch,
        max(`_batch_id`) as _cdc_last_batch,
        min(`ts`) as _cdc_first_at,
        max(`ts`) as _cdc_last_at,
        min(struct(`seq`)) as _cdc_first,
        max(struct(`seq`)) as _cdc_last
    from bucketed group by _cdc_bucket
)
select
    coalesce(sum(_cdc_events), 0) as rows_read,
    coalesce(sum(_cdc_opened), 0) as opened,
    coalesce(sum(_cdc_width) > 16 * sum(_cdc_events), true) as is_scattered,
    coalesce(sum(_cdc_truncates), 0) as truncates,
    coalesce(sum(_cdc_deletes), 0) as deletes,
    coalesce(sum(_cdc_clamped), 0) as clamped,
    coalesce(sum(_cdc_null_keys), 0) as null_keys,
    coalesce(sum(_cdc_null_sequences), 0) as null_sequences,
    coalesce(sum(_cdc_null_effective), 0) as null_effective,
    coalesce(sum(_cdc_in_future), 0) as in_future,
    coalesce(sum(_cdc_null_watermarks), 0) as null_watermarks,
    concat('=', cast(min(_cdc_first_batch) as string)) as first_batch,
    concat('=', cast(max(_cdc_last_batch) as string)) as last_batch,
    coalesce(
        not max(_cdc_repeats)
        and min(_cdc_first) > struct(30L as `seq`)
        and min(_cdc_first_at) > timestamp_micros(1735797600000000L)
        and sum(_cdc_truncates + _cdc_moves + _cdc_null_keys + _cdc_null_sequences + _cdc_null_effective + _cdc_in_future + _cdc_null_watermarks) = 0,
        false) as in_order,
    concat('=', to_json(array(cast(greatest(max(_cdc_last), struct(30L as `seq`)).`seq` as string), cast(unix_micros(greatest(max(_cdc_last_at), timestamp_micros(1735797600000000L))) as string)))) as reach,
    concat('=', to_json(collect_list(case when _cdc_range.lowest is not null then _cdc_range end))) as ranges
from ranges;

begin
    execute immediate 'set spark.databricks.delta.write.txnAppId = cdc:lab.versions_untracked__cdc';
    execute immediate 'set spark.databricks.delta.write.txnVersion = 3';
    execute immediate 'set spark.databricks.delta.commitInfo.userMetadata = {"lakehouse.cdc": {"table": "lab.versions_untracked__cdc", "version": 3, "mark": "=4", "run": null, "truncates": 0, "reach": ["50", "1735869600000000"], "model": "452f41e69062a8444caff3b490e70a0a", "schema": 0, "rows": 6}}';
end;

merge into lab.versions_untracked__cdc as stored
using (
    select `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`
    from (select /*+ broadcast(timeline) */ * from (
with
events as (
    select
        stored.`k` as `k`,
        stored.`a` as `a`,
        stored.`b` as `b`,
        cast(null as string) as `c`,
        stored.`seq` as `seq`,
        cast(null as timestamp) as `ts`,
        cast(null as timestamp) as `_arrived_at`,
        cast(null as bigint) as `_batch_id`,
        false as _cdc_deleted,
        stored._cdc_valid_from as _cdc_earliest_at,
        case
            when stored.`_batch_id` > 2L then raise_error('lab.versions_untracked__cdc: another run changed this table while this one was reading it. No row was written. Fix: run the model again.')
            else true
        end as _cdc_stored
    from lab.versions_untracked__cdc as stored
    left semi join (select * from lab__versions_untracked__cdc_cdc2cf1f_staged where `_batch_id` <= 4L) as touched on stored.`k` <=> touched.`k`
    where (stored.`k` = 'k2') and stored._cdc_visible and stored._cdc_valid_to is null
    union all
    select
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        _cdc_deleted,
        cast(`ts` as timestamp) as _cdc_earliest_at,
        false as _cdc_stored
    from (select * from lab__versions_untracked__cdc_cdc2cf1f_staged where `_batch_id` <= 4L)
),
segmented as (
    select
        *,
        false as _cdc_truncate,
        false as _cdc_overridden,
        false as _cdc_synthetic,
        max(case when not _cdc_stored then `_batch_id` end) over (partition by `k`) as _cdc_key_batch,
        count_if(_cdc_deleted) over (
            partition by `k` order by `seq` rows between unbounded preceding and current row
        ) as _cdc_segment
    from events
),
filled as (
    select * from segmented
),
clamped as (
    select
        *,
        max(_cdc_earliest_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic rows between unbounded preceding and current row) as _cdc_effective_at
    from filled
),
collapsed as (
    select
        *,
        not _cdc_truncate and not _cdc_overridden
            and not (lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic) <=> _cdc_effective_at) as _cdc_shown
    from clamped
),
headed as (
    select
        *,
        _cdc_shown and not _cdc_deleted and not (lag(struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) <=> struct(_cdc_deleted as _cdc_deleted, `a` as `a`, `b` as `b`)) as _cdc_head
    from collapsed
),
runs as (
    select
        *,
        _cdc_shown and not _cdc_deleted
            and coalesce(lead(_cdc_head or _cdc_deleted) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic), true) as _cdc_now_visible,
        max(case when _cdc_head then _cdc_effective_at end) over (
            partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic rows between unbounded preceding and current row
        ) as _cdc_run_from,
        lead(_cdc_effective_at) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) as _cdc_run_to
    from headed
),
placed_in_time as (
    select
        *,
        case when _cdc_now_visible then cast(_cdc_run_from as timestamp) end as _cdc_now_from,
        case when _cdc_now_visible then cast(_cdc_run_to as timestamp) end as _cdc_now_to
    from runs
)
select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    _cdc_now_from as _cdc_valid_from,
    _cdc_now_to as _cdc_valid_to,
    _cdc_key_batch as _cdc_batch_id,
    0 as _cdc_schema,
    not _cdc_stored as _cdc_insert,
    _cdc_stored as _cdc_update
from placed_in_time
) as timeline)
    where _cdc_insert or _cdc_update
) as changed
on stored.`k` <=> changed.`k` and stored.`seq` <=> changed.`seq`
    and (stored.`k` = 'k2')
when matched then update set
    `_cdc_batch_id` = changed.`_cdc_batch_id`,
    `_cdc_valid_from` = changed.`_cdc_valid_from`,
    `_cdc_valid_to` = changed.`_cdc_valid_to`,
    `_cdc_visible` = changed.`_cdc_visible`
when not matched then insert (`k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`) values (changed.`k`, changed.`seq`, changed.`_batch_id`, changed.`_cdc_batch_id`, changed.`_cdc_valid_from`, changed.`_cdc_valid_to`, changed.`_cdc_visible`, changed.`_cdc_deleted`, changed.`_cdc_truncate`, changed.`_cdc_schema`, changed.`a`, changed.`b`, changed.`c`, changed.`ts`, changed.`_arrived_at`);

begin
    execute immediate 'reset spark.databricks.delta.write.txnAppId';
    execute immediate 'reset spark.databricks.delta.write.txnVersion';
    execute immediate 'reset spark.databricks.delta.commitInfo.userMetadata';
end;

show views like '*__cdc_*';

drop view if exists lab__versions_untracked__cdc_cdc2cf1f_staged;
