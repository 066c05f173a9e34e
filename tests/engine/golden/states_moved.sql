-- ===== first load =====

describe query
select k, a, b, c, _op, seq, move as _move, _unsent, _arrived_at, _batch_id from lab.clean;

show views like 'lab__states_moved__cdc_*';

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show tables in lab like 'states_moved__cdc';

cache lazy table lab__states_moved__cdc_staged as select
    `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, move as _move, _unsent, _arrived_at, _batch_id from lab.clean
) as _cdc_source;

select
    count(*) as rows_read,
    count_if(_cdc_truncate) as truncates,
    count_if((not _cdc_truncate and (`k` is null))) as null_keys,
    count_if((`seq` is null)) as null_sequences,
    count_if(false) as null_effective,
    count_if(false) as in_future,
    count_if(`_batch_id` is null) as null_watermarks,
    concat('=', cast(min(`_batch_id`) as string)) as first_batch,
    concat('=', cast(max(`_batch_id`) as string)) as last_batch,
    concat('=', cast(slice(collect_list(case when (`seq` is null) or (not _cdc_truncate and (`k` is null))
        then struct(`k`, `seq`) end), 1, 3) as string)) as examples
from lab__states_moved__cdc_staged;

create temporary view lab__states_moved__cdc_stage as
select * from lab__states_moved__cdc_staged where `_batch_id` <= 1L;

cache lazy table lab__states_moved__cdc_moves as with events as (
    select `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`, _cdc_deleted, _cdc_truncate from lab__states_moved__cdc_stage as staged
),
takers as (
    select distinct `k`, `seq`, `_move`
    from events
    where not _cdc_deleted and not _cdc_truncate
        and (not (not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'a'), false)) or not (not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'b'), false)) or not (not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'c'), false)))
),
givers as (
    select distinct `k`, `seq`, `_move`
    from events
    where _cdc_deleted and not _cdc_truncate
)
select
    takers.`k`, takers.`seq`,
    struct(givers.`k`) as _cdc_old_key,
    struct(givers.`seq`) as _cdc_move,
    count(*) over (partition by takers.`k`, takers.`seq`) as _cdc_givers,
    count(*) over (partition by givers.`k`, givers.`seq`) as _cdc_takers
from takers
inner join givers
    on takers.`_move` = givers.`_move` and
        not (takers.`k` <=> givers.`k`);

select count(*) as moves, coalesce(max(greatest(_cdc_givers, _cdc_takers)), 1) as most from lab__states_moved__cdc_moves;

cache lazy table lab__states_moved__cdc_diff as with
events as (
    select
        `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, 0 as _cdc_schema,
        cast(null as boolean) as _cdc_visible,
        cast(null as timestamp) as _cdc_valid_from,
        cast(null as timestamp) as _cdc_valid_to,
        cast(null as struct<`a`:string, `b`:string, `c`:string>) as _cdc_filled,
        false as _cdc_stored
    from lab__states_moved__cdc_stage
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
            and (`c` <=> lag(`c`) over by_key)
            and (`_move` <=> lag(`_move`) over by_key)
            and (`_unsent` <=> lag(`_unsent`) over by_key)) as _cdc_conflict
    from distributed
    window by_key as (partition by `k` order by `seq`, _cdc_stored desc, `_batch_id`)
),
counted as (
    select
        *,
        count_if(not _cdc_stored) over (partition by `k`, `seq`) as _cdc_new_copies,
        max(_cdc_conflict) over (partition by `k`, `seq`) as _cdc_tied,
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
        last_value(case when not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'a'), false) then struct(`a` as value) end, true) over in_segment.value as `_cdc_value_a`,
        last_value(case when not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'b'), false) then struct(`b` as value) end, true) over in_segment.value as `_cdc_value_b`,
        last_value(case when not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'c'), false) then struct(`c` as value) end, true) over in_segment.value as `_cdc_value_c`
    from segmented
    window in_segment as (
        partition by `k`, _cdc_overridden, _cdc_segment order by `seq`, _cdc_synthetic
        rows between unbounded preceding and current row
    )
),
placed_in_time as (
    select
        *,
        not _cdc_deleted and not _cdc_truncate and not _cdc_overridden
            and lead(_cdc_segment) over (
                partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic
            ) is null as _cdc_now_visible
    from filled
),
derived as (
    select
        *,
        case when _cdc_now_visible and not (`_cdc_value_a` <=> `a` and `_cdc_value_b` <=> `b` and `_cdc_value_c` <=> `c`) then named_struct('a', `_cdc_value_a`, 'b', `_cdc_value_b`, 'c', `_cdc_value_c`) end as _cdc_now_filled
    from placed_in_time
),
compared_to_stored as (
    select
        *,
        not _cdc_was_stored as _cdc_insert,
        _cdc_was_stored and (
            not _cdc_stored
            or not (_cdc_now_visible <=> _cdc_visible)
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
    `_move`,
    `_unsent`,
    `_arrived_at`,
    `_batch_id`,
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    cast(null as timestamp) as _cdc_valid_from,
    cast(null as timestamp) as _cdc_valid_to,
    coalesce(_cdc_key_batch, 1L) as _cdc_batch_id,
    _cdc_now_filled as _cdc_filled,
    _cdc_schema,
    _cdc_insert,
    _cdc_update,
    _cdc_tied,
    _cdc_new_copies,
    _cdc_insert and struct(`seq`) < _cdc_last_stored as _cdc_late,
    false as _cdc_clamped,
    _cdc_now_visible and not coalesce(_cdc_visible, false) as _cdc_opens,
    coalesce(_cdc_visible, false) and not _cdc_now_visible as _cdc_closes
from compared_to_stored
where _cdc_insert or _cdc_update or _cdc_new_copies > 0;

select coalesce(sum(_cdc_new_copies), 0) - count_if(_cdc_insert) as duplicates, count_if(_cdc_insert) as inserted, count_if(_cdc_update) as updated, count_if(_cdc_tied and _cdc_new_copies > 0) as ties, count_if(_cdc_clamped) as clamped, count_if(_cdc_late) as late, count_if(_cdc_insert and _cdc_deleted) as deletes, count_if(_cdc_opens) as opened, count_if(_cdc_closes) as closed, count_if(_cdc_update and not _cdc_opens and not _cdc_closes) as moved, concat('=', cast(max(case when _cdc_insert then `_batch_id` end) as string)) as newest, concat('=', cast(slice(collect_list(case when _cdc_tied and _cdc_new_copies > 0 then struct(`k`, `seq`) end), 1, 3) as string)) as examples from lab__states_moved__cdc_diff;

show tables in lab like 'states_moved|states_moved__changes';

create table lab.states_moved__cdc
using delta
cluster by (`k`)
comment 'Every event of states_moved, hidden ones included. Read the view of that name instead.'
tblproperties ('lakehouse.cdc.options' = '{"identity": {"delete_when": "_op = \'d\'", "sequence_by": ["seq"], "truncate_when": "_op = \'t\'", "unique_key": ["k"], "watermark": "_batch_id"}, "shape": {"effective_at": "", "fill": ["a", "b", "c"], "ignore_null": [], "moved_from": ["_move"], "strategy": "cdc_scd1", "tracked": [], "unsent": "_unsent"}}', 'lakehouse.cdc.schemas' = '[["a", "b", "c", "_move", "_unsent"]]', 'lakehouse.cdc.derived_by' = 'an invocation', 'lakehouse.cdc.views' = '4cd5b6a7cfe38a48aa16c90f13824541')
as
select `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `_move`, `_unsent`, `_arrived_at`, `_cdc_filled` from lab__states_moved__cdc_diff where false;

set spark.databricks.delta.write.txnAppId = cdc:lab.states_moved__cdc;

set spark.databricks.delta.write.txnVersion = 1;

set spark.databricks.delta.commitInfo.userMetadata = {"lakehouse.cdc": {"mark": "=1", "run": null, "truncates": 0}};

insert into lab.states_moved__cdc
select /*+ repartition_by_range(1, `k`) */
    `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `_move`, `_unsent`, `_arrived_at`, `_cdc_filled`
from lab__states_moved__cdc_diff
where _cdc_insert
sort by `k`;

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show views in lab like 'states_moved|states_moved__changes';

show tables in lab like 'states_moved';

create or replace view lab.states_moved (
    `k`,
    `a`,
    `b`,
    `c`,
    `seq`,
    `_move`,
    `_arrived_at`,
    `_batch_id` comment 'Highest batch of an event that changed this row.'
)
as
select
    `k`,
    case when _cdc_filled is null then `a` else _cdc_filled.`a` end as `a`,
    case when _cdc_filled is null then `b` else _cdc_filled.`b` end as `b`,
    case when _cdc_filled is null then `c` else _cdc_filled.`c` end as `c`,
    `seq`,
    `_move`,
    `_arrived_at`,
    _cdc_batch_id as _batch_id
from lab.states_moved__cdc
where _cdc_visible;

create or replace view lab.states_moved__changes
comment 'Keys touched by each batch, vanished ones included. One row per key and batch that last moved one of its rows.'
as
select distinct
    `k`,
    _cdc_batch_id as _batch_id
from lab.states_moved__cdc
where not _cdc_truncate;

show views like 'lab__states_moved__cdc_*';

drop view if exists lab__states_moved__cdc_diff;

drop view if exists lab__states_moved__cdc_moves;

drop view if exists lab__states_moved__cdc_stage;

drop view if exists lab__states_moved__cdc_staged;

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

-- ===== a key change, and an event that comes late =====

describe query
select k, a, b, c, _op, seq, move as _move, _unsent, _arrived_at, _batch_id from lab.clean;

show views like 'lab__states_moved__cdc_*';

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show tables in lab like 'states_moved__cdc';

show views in lab like 'states_moved__cdc';

describe history lab.states_moved__cdc limit 1;

show tblproperties lab.states_moved__cdc;

describe query
select _cdc_filled.* from lab.states_moved__cdc;

cache lazy table lab__states_moved__cdc_staged as select
    `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`,
    coalesce(_op = 'd', false) as _cdc_deleted,
    coalesce(_op = 't', false) as _cdc_truncate,
    `_arrived_at` as _cdc_arrived_at
from (
select k, a, b, c, _op, seq, move as _move, _unsent, _arrived_at, _batch_id from lab.clean
) as _cdc_source
where `_batch_id` > 1L or `_batch_id` is null;

select
    count(*) as rows_read,
    count_if(_cdc_truncate) as truncates,
    count_if((not _cdc_truncate and (`k` is null))) as null_keys,
    count_if((`seq` is null)) as null_sequences,
    count_if(false) as null_effective,
    count_if(false) as in_future,
    count_if(`_batch_id` is null) as null_watermarks,
    concat('=', cast(min(`_batch_id`) as string)) as first_batch,
    concat('=', cast(max(`_batch_id`) as string)) as last_batch,
    concat('=', cast(slice(collect_list(case when (`seq` is null) or (not _cdc_truncate and (`k` is null))
        then struct(`k`, `seq`) end), 1, 3) as string)) as examples
from lab__states_moved__cdc_staged;

create temporary view lab__states_moved__cdc_stage as
select * from lab__states_moved__cdc_staged where `_batch_id` <= 2L;

cache lazy table lab__states_moved__cdc_moves as with events as (
    select `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`, _cdc_deleted, _cdc_truncate from (select * from lab.states_moved__cdc version as of 1) as stored
    union all
    select `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`, _cdc_deleted, _cdc_truncate from lab__states_moved__cdc_stage as staged
),
takers as (
    select distinct `k`, `seq`, `_move`
    from events
    where not _cdc_deleted and not _cdc_truncate
        and (not (not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'a'), false)) or not (not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'b'), false)) or not (not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'c'), false)))
),
givers as (
    select distinct `k`, `seq`, `_move`
    from events
    where _cdc_deleted and not _cdc_truncate
)
select
    takers.`k`, takers.`seq`,
    struct(givers.`k`) as _cdc_old_key,
    struct(givers.`seq`) as _cdc_move,
    count(*) over (partition by takers.`k`, takers.`seq`) as _cdc_givers,
    count(*) over (partition by givers.`k`, givers.`seq`) as _cdc_takers
from takers
inner join givers
    on takers.`_move` = givers.`_move` and
        not (takers.`k` <=> givers.`k`);

select count(*) as moves, coalesce(max(greatest(_cdc_givers, _cdc_takers)), 1) as most from lab__states_moved__cdc_moves;

drop table if exists lab.states_moved__cdc_scratch_moves;

create table lab.states_moved__cdc_scratch_moves using parquet as select * from lab__states_moved__cdc_moves;

select count(*) from (select `k` from lab__states_moved__cdc_stage where not _cdc_truncate) as touched left semi join (select `k` from lab.states_moved__cdc_scratch_moves
union all
select _cdc_old_key.`k` as `k` from lab.states_moved__cdc_scratch_moves) as moved on touched.`k` <=> moved.`k`;

select concat('=', min(`k`)), concat('=', max(`k`)) from (select `k` from lab__states_moved__cdc_stage where not _cdc_truncate union all select `k` from lab.states_moved__cdc_scratch_moves
union all
select _cdc_old_key.`k` as `k` from lab.states_moved__cdc_scratch_moves);

with keys as (
    select distinct `k` as key from (select `k` from lab__states_moved__cdc_stage where not _cdc_truncate union all select `k` from lab.states_moved__cdc_scratch_moves
union all
select _cdc_old_key.`k` as `k` from lab.states_moved__cdc_scratch_moves) where `k` is not null
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

drop table if exists lab.states_moved__cdc_scratch_chains0;

create table lab.states_moved__cdc_scratch_chains0 using parquet as with
events as (
    select
        `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, _cdc_schema, _cdc_visible, _cdc_valid_from, _cdc_valid_to,
        case when _cdc_filled is not null then named_struct('a', _cdc_filled.`a`, 'b', _cdc_filled.`b`, 'c', _cdc_filled.`c`) end as _cdc_filled,
        true as _cdc_stored
    from (
    select stored.*
    from lab.states_moved__cdc version as of 1 as stored
    left semi join (select `k` from lab__states_moved__cdc_stage where not _cdc_truncate union all select `k` from lab.states_moved__cdc_scratch_moves
union all
select _cdc_old_key.`k` as `k` from lab.states_moved__cdc_scratch_moves) as touched on stored.`k` <=> touched.`k`
    where (stored.`k` = 'k1' or stored.`k` = 'k2')
) as state
    union all
    select
        `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, 0 as _cdc_schema,
        cast(null as boolean) as _cdc_visible,
        cast(null as timestamp) as _cdc_valid_from,
        cast(null as timestamp) as _cdc_valid_to,
        cast(null as struct<`a`:string, `b`:string, `c`:string>) as _cdc_filled,
        false as _cdc_stored
    from lab__states_moved__cdc_stage
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
            and (`c` <=> lag(`c`) over by_key)
            and (`_move` <=> lag(`_move`) over by_key)
            and (`_unsent` <=> lag(`_unsent`) over by_key)) as _cdc_conflict
    from distributed
    window by_key as (partition by `k` order by `seq`, _cdc_stored desc, `_batch_id`)
),
counted as (
    select
        *,
        count_if(not _cdc_stored) over (partition by `k`, `seq`) as _cdc_new_copies,
        max(_cdc_conflict) over (partition by `k`, `seq`) as _cdc_tied,
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
moved as (
    select placed.*, moves._cdc_move is not null as _cdc_moved
    from placed
    left join lab.states_moved__cdc_scratch_moves as moves
        on placed.`k` <=> moves.`k`
        and placed.`seq` <=> moves.`seq`
        and not placed._cdc_synthetic
),
segmented as (
    select
        *,
        count_if(_cdc_deleted or _cdc_moved) over (
            partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic
            rows between unbounded preceding and current row
        ) as _cdc_segment
    from moved
),
placed_segments as (
    select
        *,
        lag(_cdc_segment) over (
            partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic
        ) as _cdc_segment_before
    from segmented
)
select
    taker.`k`,
    taker._cdc_segment,
    struct(giver.`k`, giver._cdc_segment_before as _cdc_segment) as _cdc_root,
    1 as _cdc_depth
from lab.states_moved__cdc_scratch_moves as moves
inner join placed_segments as taker
    on taker.`k` <=> moves.`k` and taker.`seq` <=> moves.`seq`
    and not taker._cdc_synthetic
inner join placed_segments as giver
    on giver.`k` <=> moves._cdc_old_key.`k` and giver.`seq` <=> moves._cdc_move.`seq` and  not giver._cdc_synthetic
where giver._cdc_segment_before is not null;

select count(*)
from lab.states_moved__cdc_scratch_chains0 as link
left semi join lab.states_moved__cdc_scratch_chains0 as further
    on further.`k` <=> link._cdc_root.`k` and further.`_cdc_segment` <=> link._cdc_root.`_cdc_segment`;

cache lazy table lab__states_moved__cdc_diff as with
events as (
    select
        `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, _cdc_schema, _cdc_visible, _cdc_valid_from, _cdc_valid_to,
        case when _cdc_filled is not null then named_struct('a', _cdc_filled.`a`, 'b', _cdc_filled.`b`, 'c', _cdc_filled.`c`) end as _cdc_filled,
        true as _cdc_stored
    from (
    select stored.*
    from lab.states_moved__cdc version as of 1 as stored
    left semi join (select `k` from lab__states_moved__cdc_stage where not _cdc_truncate union all select `k` from lab.states_moved__cdc_scratch_moves
union all
select _cdc_old_key.`k` as `k` from lab.states_moved__cdc_scratch_moves) as touched on stored.`k` <=> touched.`k`
    where (stored.`k` = 'k1' or stored.`k` = 'k2')
) as state
    union all
    select
        `k`, `a`, `b`, `c`, `seq`, `_move`, `_unsent`, `_arrived_at`, `_batch_id`,
        _cdc_deleted, _cdc_truncate, 0 as _cdc_schema,
        cast(null as boolean) as _cdc_visible,
        cast(null as timestamp) as _cdc_valid_from,
        cast(null as timestamp) as _cdc_valid_to,
        cast(null as struct<`a`:string, `b`:string, `c`:string>) as _cdc_filled,
        false as _cdc_stored
    from lab__states_moved__cdc_stage
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
            and (`c` <=> lag(`c`) over by_key)
            and (`_move` <=> lag(`_move`) over by_key)
            and (`_unsent` <=> lag(`_unsent`) over by_key)) as _cdc_conflict
    from distributed
    window by_key as (partition by `k` order by `seq`, _cdc_stored desc, `_batch_id`)
),
counted as (
    select
        *,
        count_if(not _cdc_stored) over (partition by `k`, `seq`) as _cdc_new_copies,
        max(_cdc_conflict) over (partition by `k`, `seq`) as _cdc_tied,
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
moved as (
    select placed.*, moves._cdc_move is not null as _cdc_moved
    from placed
    left join lab.states_moved__cdc_scratch_moves as moves
        on placed.`k` <=> moves.`k`
        and placed.`seq` <=> moves.`seq`
        and not placed._cdc_synthetic
),
segmented as (
    select
        *,
        count_if(_cdc_deleted or _cdc_moved) over (
            partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic
            rows between unbounded preceding and current row
        ) as _cdc_segment
    from moved
),
chained as (
    select
        segmented.*,
        coalesce(chains._cdc_root, struct(segmented.`k`, segmented._cdc_segment as _cdc_segment)) as _cdc_chain,
        coalesce(chains._cdc_depth, 0) as _cdc_depth
    from segmented
    left join lab.states_moved__cdc_scratch_chains0 as chains
        on segmented.`k` <=> chains.`k` and segmented.`_cdc_segment` <=> chains.`_cdc_segment`
),
filled as (
    select
        *,
        last_value(case when not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'a'), false) then struct(`a` as value) end, true) over in_segment.value as `_cdc_value_a`,
        last_value(case when not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'b'), false) then struct(`b` as value) end, true) over in_segment.value as `_cdc_value_b`,
        last_value(case when not _cdc_deleted and not coalesce(array_contains(`_unsent`, 'c'), false) then struct(`c` as value) end, true) over in_segment.value as `_cdc_value_c`
    from chained
    window in_segment as (
        partition by _cdc_chain, _cdc_overridden order by _cdc_depth, `seq`, _cdc_synthetic
        rows between unbounded preceding and current row
    )
),
placed_in_time as (
    select
        *,
        not _cdc_deleted and not _cdc_truncate and not _cdc_overridden
            and lead(_cdc_segment) over (
                partition by `k`, _cdc_overridden order by `seq`, _cdc_synthetic
            ) is null as _cdc_now_visible
    from filled
),
derived as (
    select
        *,
        case when _cdc_now_visible and not (`_cdc_value_a` <=> `a` and `_cdc_value_b` <=> `b` and `_cdc_value_c` <=> `c`) then named_struct('a', `_cdc_value_a`, 'b', `_cdc_value_b`, 'c', `_cdc_value_c`) end as _cdc_now_filled
    from placed_in_time
),
compared_to_stored as (
    select
        *,
        not _cdc_was_stored as _cdc_insert,
        _cdc_was_stored and (
            not _cdc_stored
            or not (_cdc_now_visible <=> _cdc_visible)
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
    `_move`,
    `_unsent`,
    `_arrived_at`,
    `_batch_id`,
    _cdc_deleted,
    _cdc_truncate,
    _cdc_now_visible as _cdc_visible,
    cast(null as timestamp) as _cdc_valid_from,
    cast(null as timestamp) as _cdc_valid_to,
    coalesce(_cdc_key_batch, 2L) as _cdc_batch_id,
    _cdc_now_filled as _cdc_filled,
    _cdc_schema,
    _cdc_insert,
    _cdc_update,
    _cdc_tied,
    _cdc_new_copies,
    _cdc_insert and struct(`seq`) < _cdc_last_stored as _cdc_late,
    false as _cdc_clamped,
    _cdc_now_visible and not coalesce(_cdc_visible, false) as _cdc_opens,
    coalesce(_cdc_visible, false) and not _cdc_now_visible as _cdc_closes
from compared_to_stored
where _cdc_insert or _cdc_update or _cdc_new_copies > 0;

select coalesce(sum(_cdc_new_copies), 0) - count_if(_cdc_insert) as duplicates, count_if(_cdc_insert) as inserted, count_if(_cdc_update) as updated, count_if(_cdc_tied and _cdc_new_copies > 0) as ties, count_if(_cdc_clamped) as clamped, count_if(_cdc_late) as late, count_if(_cdc_insert and _cdc_deleted) as deletes, count_if(_cdc_opens) as opened, count_if(_cdc_closes) as closed, count_if(_cdc_update and not _cdc_opens and not _cdc_closes) as moved, concat('=', cast(max(case when _cdc_insert then `_batch_id` end) as string)) as newest, concat('=', cast(slice(collect_list(case when _cdc_tied and _cdc_new_copies > 0 then struct(`k`, `seq`) end), 1, 3) as string)) as examples from lab__states_moved__cdc_diff;

set spark.databricks.delta.commitInfo.userMetadata = {"lakehouse.cdc": {"mark": "=2", "run": null, "truncates": 0}};

set spark.databricks.delta.write.txnAppId = cdc:lab.states_moved__cdc;

set spark.databricks.delta.write.txnVersion = 2;

merge into lab.states_moved__cdc as stored
using (
    select `k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `_move`, `_unsent`, `_arrived_at`, _cdc_filled as _cdc_filled
    from lab__states_moved__cdc_diff
    where _cdc_insert or _cdc_update
) as changed
on stored.`k` <=> changed.`k` and stored.`seq` <=> changed.`seq`
    and (stored.`k` = 'k1' or stored.`k` = 'k2')
when not matched then insert (`k`, `seq`, `_batch_id`, `_cdc_batch_id`, `_cdc_valid_from`, `_cdc_valid_to`, `_cdc_visible`, `_cdc_deleted`, `_cdc_truncate`, `_cdc_schema`, `a`, `b`, `c`, `_move`, `_unsent`, `_arrived_at`, `_cdc_filled`) values (changed.`k`, changed.`seq`, changed.`_batch_id`, changed.`_cdc_batch_id`, changed.`_cdc_valid_from`, changed.`_cdc_valid_to`, changed.`_cdc_visible`, changed.`_cdc_deleted`, changed.`_cdc_truncate`, changed.`_cdc_schema`, changed.`a`, changed.`b`, changed.`c`, changed.`_move`, changed.`_unsent`, changed.`_arrived_at`, changed.`_cdc_filled`);

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;

show tables in lab like 'states_moved__cdc_scratch_*';

drop table if exists lab.states_moved__cdc_scratch_chains0;

drop table if exists lab.states_moved__cdc_scratch_moves;

show views in lab like 'states_moved|states_moved__changes';

show views like 'lab__states_moved__cdc_*';

drop view if exists lab__states_moved__cdc_diff;

drop view if exists lab__states_moved__cdc_moves;

drop view if exists lab__states_moved__cdc_stage;

drop view if exists lab__states_moved__cdc_staged;

reset spark.databricks.delta.write.txnAppId;

reset spark.databricks.delta.write.txnVersion;

reset spark.databricks.delta.commitInfo.userMetadata;
