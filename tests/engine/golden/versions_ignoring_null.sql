-- ===== first load =====

describe query
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean;

show views like 'lab__versions_ignoring_null__cdc_*';

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show tables in lab like 'versions_ignoring_null__cdc';

cache lazy table lab__versions_ignoring_null__cdc_staged as select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source;

select
    count(*) as rows_read,
    count_if(_cdc_truncate) as truncates,
    count_if((not _cdc_truncate and (`k` is null))) as null_keys,
    count_if((`seq` is null)) as null_sequences,
    count_if(`ts` is null) as null_effective,
    count_if(`ts` > _cdc_arrived_at + interval 1 day) as in_future,
    count_if(`_batch_id` is null) as null_watermarks,
    concat('=', cast(min(`_batch_id`) as string)) as first_batch,
    concat('=', cast(max(`_batch_id`) as string)) as last_batch,
    concat('=', cast(slice(collect_list(case when (`seq` is null) or (not _cdc_truncate and (`k` is null)) or `ts` is null or `ts` > _cdc_arrived_at + interval 1 day
        then struct(`k`, `seq`) end), 1, 3) as string)) as examples
from lab__versions_ignoring_null__cdc_staged;

create temporary view lab__versions_ignoring_null__cdc_stage as
select * from lab__versions_ignoring_null__cdc_staged where `_batch_id` <= 1L;

cache lazy table lab__versions_ignoring_null__cdc_diff as with
events as (
    select
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, 0 as _cdc_schema,
        cast(null as boolean) as _cdc_visible,
        cast(null as timestamp) as _cdc_valid_from,
        cast(null as timestamp) as _cdc_valid_to,
        cast(null as struct<`a`:string, `c`:string>) as _cdc_filled,
        false as _cdc_stored
    from lab__versions_ignoring_null__cdc_stage
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
        count_if(not _cdc_stored) over (partition by `k`, `seq`) as _cdc_new_copies,
        max(_cdc_conflict) over (partition by `k`, `seq`) as _cdc_tied,
        min(`ts`) over (partition by `k`, `seq`) as _cdc_earliest_at,
        max(_cdc_stored) over (partition by `k`, `seq`) as _cdc_was_stored,
        max(case when not _cdc_stored then `_batch_id` end)
            over (partition by `k`) as _cdc_key_batch,
        max(case when _cdc_stored then struct(`seq`) end) over (partition by `k`) as _cdc_last_stored
    from compared
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
    select
        *,
        last_value(case when not _cdc_deleted and `a` is not null then struct(`a` as value) end, true) over in_segment.value as `_cdc_value_a`,
        last_value(case when not _cdc_deleted and `c` is not null then struct(`c` as value) end, true) over in_segment.value as `_cdc_value_c`
    from segmented
    window in_segment as (
        partition by `k`, _cdc_overridden, _cdc_segment order by `seq`, _cdc_synthetic
        rows between unbounded preceding and current row
    )
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
        _cdc_shown and not _cdc_deleted and not (lag(struct(_cdc_deleted as _cdc_deleted, `_cdc_value_a` as `a`, `b` as `b`)) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) <=> struct(_cdc_deleted as _cdc_deleted, `_cdc_value_a` as `a`, `b` as `b`)) as _cdc_head
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
        case when _cdc_now_visible and not (`_cdc_value_a` <=> `a` and `_cdc_value_c` <=> `c`) then named_struct('a', `_cdc_value_a`, 'c', `_cdc_value_c`) end as _cdc_now_filled
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
            or not (_cdc_now_filled <=> _cdc_filled)
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
    coalesce(_cdc_key_batch, 1L) as _cdc_batch_id,
    _cdc_now_filled as _cdc_filled,
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

select coalesce(sum(_cdc_new_copies), 0) - count_if(_cdc_insert) as duplicates, count_if(_cdc_insert) as inserted, count_if(_cdc_update) as updated, count_if(_cdc_tied and _cdc_new_copies > 0) as ties, count_if(_cdc_clamped) as clamped, count_if(_cdc_late) as late, count_if(_cdc_insert and _cdc_deleted) as deletes, count_if(_cdc_opens) as opened, count_if(_cdc_closes) as closed, count_if(_cdc_update and not _cdc_opens and not _cdc_closes) as moved, concat('=', cast(max(case when _cdc_insert then `_batch_id` end) as string)) as newest, concat('=', cast(slice(collect_list(case when _cdc_tied and _cdc_new_copies > 0 then struct(`k`, `seq`) end), 1, 3) as string)) as examples from lab__versions_ignoring_null__cdc_diff;

show tables in lab like 'versions_ignoring_null|versions_ignoring_null__changes';

create table lab.versions_ignoring_null__cdc
using delta
cluster by (`k`)
comment 'Every event of versions_ignoring_null, hidden ones included. Read the view of that name instead.'
tblproperties ('lakehouse.cdc.options' = '{"identity": {"delete_when": "_op = \'d\'", "sequence_by": ["seq"], "truncate_when": "_op = \'t\'", "unique_key": ["k"], "watermark": "_batch_id"}, "shape": {"effective_at": "ts", "fill": ["a", "c"], "ignore_null": ["a", "c"], "moved_from": [], "strategy": "cdc_scd2", "tracked": ["a", "b"], "unsent": ""}}', 'lakehouse.cdc.schemas' = '[["a", "b", "c"]]', 'lakehouse.cdc.derived_by' = 'an invocation', 'lakehouse.cdc.views' = '6e153a6eccb2dbfcf6859eff63994b45')
as
select `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`, `_cdc_filled` from lab__versions_ignoring_null__cdc_diff where false;

set spark.databricks.delta.write.txnAppId = cdc:lab.versions_ignoring_null__cdc;

set spark.databricks.delta.write.txnVersion = 1;

set spark.databricks.delta.commitInfo.userMetadata = {"lakehouse.cdc": {"mark": "=1", "run": null, "truncates": 0}};

insert into lab.versions_ignoring_null__cdc
select /*+ repartition_by_range(1, `k`) */
    `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`, `_cdc_filled`
from lab__versions_ignoring_null__cdc_diff
where _cdc_insert
sort by `k`;

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show views in lab like 'versions_ignoring_null|versions_ignoring_null__changes';

show tables in lab like 'versions_ignoring_null';

create or replace view lab.versions_ignoring_null (
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
    case when _cdc_filled is null then `a` else _cdc_filled.`a` end as `a`,
    `b`,
    case when _cdc_filled is null then `c` else _cdc_filled.`c` end as `c`,
    `seq`,
    `ts`,
    `_arrived_at`,
    _cdc_valid_from as valid_from,
    _cdc_valid_to as valid_to,
    _cdc_valid_to is null as is_current,
    _cdc_batch_id as _batch_id
from lab.versions_ignoring_null__cdc
where _cdc_visible;

create or replace view lab.versions_ignoring_null__changes
comment 'Keys touched by each batch, vanished ones included. One row per key and batch that last moved one of its rows.'
as
select distinct
    `k`,
    _cdc_batch_id as _batch_id
from lab.versions_ignoring_null__cdc
where not _cdc_truncate;

show views like 'lab__versions_ignoring_null__cdc_*';

drop view if exists lab__versions_ignoring_null__cdc_diff;

drop view if exists lab__versions_ignoring_null__cdc_stage;

drop view if exists lab__versions_ignoring_null__cdc_staged;

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

-- ===== a key change, and an event that comes late =====

describe query
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean;

show views like 'lab__versions_ignoring_null__cdc_*';

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show tables in lab like 'versions_ignoring_null__cdc';

show views in lab like 'versions_ignoring_null__cdc';

describe history lab.versions_ignoring_null__cdc limit 1;

show tblproperties lab.versions_ignoring_null__cdc;

describe query
select _cdc_filled.* from lab.versions_ignoring_null__cdc;

cache lazy table lab__versions_ignoring_null__cdc_staged as select
    `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, ts, _arrived_at, _batch_id from lab.clean
) as _cdc_source
where `_batch_id` > 1L or `_batch_id` is null;

select
    count(*) as rows_read,
    count_if(_cdc_truncate) as truncates,
    count_if((not _cdc_truncate and (`k` is null))) as null_keys,
    count_if((`seq` is null)) as null_sequences,
    count_if(`ts` is null) as null_effective,
    count_if(`ts` > _cdc_arrived_at + interval 1 day) as in_future,
    count_if(`_batch_id` is null) as null_watermarks,
    concat('=', cast(min(`_batch_id`) as string)) as first_batch,
    concat('=', cast(max(`_batch_id`) as string)) as last_batch,
    concat('=', cast(slice(collect_list(case when (`seq` is null) or (not _cdc_truncate and (`k` is null)) or `ts` is null or `ts` > _cdc_arrived_at + interval 1 day
        then struct(`k`, `seq`) end), 1, 3) as string)) as examples
from lab__versions_ignoring_null__cdc_staged;

create temporary view lab__versions_ignoring_null__cdc_stage as
select * from lab__versions_ignoring_null__cdc_staged where `_batch_id` <= 2L;

select concat('=', min(`k`)), concat('=', max(`k`)) from (select `k` from lab__versions_ignoring_null__cdc_stage where not _cdc_truncate);

with keys as (
    select distinct `k` as key from (select `k` from lab__versions_ignoring_null__cdc_stage where not _cdc_truncate) where `k` is not null
),
positions as (
    select key, cast(conv(rpad(left(hex(substr(key, 2, 12)), 12), 12, '0'), 16, 10) as double) as position from keys
),
gaps as (
    select key, position - lag(position) over (order by key) as gap from positions
),
widest as (
    select
        key,
        gap > 0 and gap * 64 > sum(gap) over () as is_wide,
        row_number() over (order by gap desc nulls last, key) as place
    from gaps
),
ranges as (
    select key, count_if(is_wide and place < 32) over (order by key) as bucket from widest
)
select concat('=', cast(min(key) as string)) as lowest, concat('=', cast(max(key) as string)) as highest
from ranges
group by bucket;

cache lazy table lab__versions_ignoring_null__cdc_diff as with
events as (
    select
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, _cdc_schema, _cdc_visible, _cdc_valid_from, _cdc_valid_to,
        case when _cdc_filled is not null then named_struct('a', _cdc_filled.`a`, 'c', _cdc_filled.`c`) end as _cdc_filled,
        true as _cdc_stored
    from (
    select stored.*
    from lab.versions_ignoring_null__cdc version as of 1 as stored
    left semi join (select `k` from lab__versions_ignoring_null__cdc_stage where not _cdc_truncate) as touched on stored.`k` <=> touched.`k`
    where (stored.`k` = 'k1' or stored.`k` = 'k2')
) as state
    union all
    select
        `k`, `a`, `b`, `c`, `seq`, `ts`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, 0 as _cdc_schema,
        cast(null as boolean) as _cdc_visible,
        cast(null as timestamp) as _cdc_valid_from,
        cast(null as timestamp) as _cdc_valid_to,
        cast(null as struct<`a`:string, `c`:string>) as _cdc_filled,
        false as _cdc_stored
    from lab__versions_ignoring_null__cdc_stage
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
        count_if(not _cdc_stored) over (partition by `k`, `seq`) as _cdc_new_copies,
        max(_cdc_conflict) over (partition by `k`, `seq`) as _cdc_tied,
        min(`ts`) over (partition by `k`, `seq`) as _cdc_earliest_at,
        max(_cdc_stored) over (partition by `k`, `seq`) as _cdc_was_stored,
        max(case when not _cdc_stored then `_batch_id` end)
            over (partition by `k`) as _cdc_key_batch,
        max(case when _cdc_stored then struct(`seq`) end) over (partition by `k`) as _cdc_last_stored
    from compared
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
    select
        *,
        last_value(case when not _cdc_deleted and `a` is not null then struct(`a` as value) end, true) over in_segment.value as `_cdc_value_a`,
        last_value(case when not _cdc_deleted and `c` is not null then struct(`c` as value) end, true) over in_segment.value as `_cdc_value_c`
    from segmented
    window in_segment as (
        partition by `k`, _cdc_overridden, _cdc_segment order by `seq`, _cdc_synthetic
        rows between unbounded preceding and current row
    )
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
        _cdc_shown and not _cdc_deleted and not (lag(struct(_cdc_deleted as _cdc_deleted, `_cdc_value_a` as `a`, `b` as `b`)) over (partition by `k`, _cdc_overridden, _cdc_shown order by `seq`, _cdc_synthetic) <=> struct(_cdc_deleted as _cdc_deleted, `_cdc_value_a` as `a`, `b` as `b`)) as _cdc_head
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
        case when _cdc_now_visible and not (`_cdc_value_a` <=> `a` and `_cdc_value_c` <=> `c`) then named_struct('a', `_cdc_value_a`, 'c', `_cdc_value_c`) end as _cdc_now_filled
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
            or not (_cdc_now_filled <=> _cdc_filled)
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
    _cdc_now_filled as _cdc_filled,
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

select coalesce(sum(_cdc_new_copies), 0) - count_if(_cdc_insert) as duplicates, count_if(_cdc_insert) as inserted, count_if(_cdc_update) as updated, count_if(_cdc_tied and _cdc_new_copies > 0) as ties, count_if(_cdc_clamped) as clamped, count_if(_cdc_late) as late, count_if(_cdc_insert and _cdc_deleted) as deletes, count_if(_cdc_opens) as opened, count_if(_cdc_closes) as closed, count_if(_cdc_update and not _cdc_opens and not _cdc_closes) as moved, concat('=', cast(max(case when _cdc_insert then `_batch_id` end) as string)) as newest, concat('=', cast(slice(collect_list(case when _cdc_tied and _cdc_new_copies > 0 then struct(`k`, `seq`) end), 1, 3) as string)) as examples from lab__versions_ignoring_null__cdc_diff;

set spark.databricks.delta.commitInfo.userMetadata = {"lakehouse.cdc": {"mark": "=2", "run": null, "truncates": 0}};

set spark.databricks.delta.write.txnAppId = cdc:lab.versions_ignoring_null__cdc;

set spark.databricks.delta.write.txnVersion = 2;

merge into lab.versions_ignoring_null__cdc as stored
using (
    select `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`, _cdc_filled as _cdc_filled
    from lab__versions_ignoring_null__cdc_diff
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
    `_arrived_at` = changed.`_arrived_at`,
    `_cdc_filled` = changed.`_cdc_filled`
when not matched then insert (`k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `ts`, `_arrived_at`, `_cdc_filled`) values (changed.`k`, changed.`seq`, changed.`_batch_id`, changed.`_cdc_batch_id`, changed.`_cdc_valid_from`, changed.`_cdc_valid_to`, changed.`_cdc_visible`, changed.`_cdc_deleted`, changed.`_cdc_truncate`, changed.`_cdc_schema`, changed.`a`, changed.`b`, changed.`c`, changed.`ts`, changed.`_arrived_at`, changed.`_cdc_filled`);

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show views in lab like 'versions_ignoring_null|versions_ignoring_null__changes';

show views like 'lab__versions_ignoring_null__cdc_*';

drop view if exists lab__versions_ignoring_null__cdc_diff;

drop view if exists lab__versions_ignoring_null__cdc_stage;

drop view if exists lab__versions_ignoring_null__cdc_staged;

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;
