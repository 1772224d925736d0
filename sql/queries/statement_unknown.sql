-- The callbacks whose outcome was unknown at a moment, as far as it was known then; the oldest first.
-- predictu_dispatch/reconciliation/README.md defines it. Whatever happened later changes nothing.
-- $1 operator_id; $2 currency; $3 the moment
with asked as (
    -- Each part has an index: not final now; final since the moment; final before it, effect unknown.
    select c.* from predictu_dispatch.callback c
     where c.operator_id = $1 and c.lane in ('interactive', 'settlement') and c.state = 'ready'
    union all
    select c.* from predictu_dispatch.callback c where c.operator_id = $1 and c.state = 'in_flight'
    union all
    select c.* from predictu_dispatch.callback c
     where c.operator_id = $1 and c.bet_id is not null and c.finished_at >= $3::timestamptz
    union all
    select c.* from predictu_dispatch.callback c
     where c.operator_id = $1 and c.bet_id is not null and c.finished_at < $3::timestamptz and c.effect = 'unknown'
       and c.state <> 'delivered'
), known as (
    select a.*, b.player_id, b.terminal_request_id, paid.amount,
           case when a.lease_until is not null and a.leased_at < $3::timestamptz then a.leased_at end as sent_at
      from asked a
      join predictu_dispatch.bet b on b.operator_id = a.operator_id and b.bet_id = a.bet_id and b.currency = $2
     cross join lateral (
         select case when a.method in ('BET_WIN', 'BET_SELL') then (predictu_dispatch.params_money(a.params))[3]::bigint
                     else b.amount end as amount) paid
     where a.attempts > 0 and a.created_at < $3::timestamptz
       and a.method in ('BET_MAKE', 'BET_WIN', 'BET_SELL', 'BET_REFUND', 'BET_ROLLBACK')
       -- An unreadable amount is listed, too.
       and (paid.amount > 0) is not false
)
select k.request_id, k.bet_id, k.player_id, k.method, case k.method when 'BET_MAKE' then 'debit' else 'credit' end as direction,
       k.amount, coalesce(least(k.sent_at, tried.since), tried.last_at, k.created_at) as since,
       coalesce(ended.state, case when k.sent_at is not null or tried.is_under_way then 'in_flight' else 'ready' end) as state
  from known k
  -- The first retry by a person after the moment: it has the state as it was until then.
  left join lateral (
      select i.before from predictu_dispatch.intervention i
       where i.operator_id = k.operator_id and i.request_id = k.request_id and i.action = 'retry'
         and i.done_at >= $3::timestamptz
       order by i.done_at limit 1) retried on true
  -- How it had ended before the moment, if it had.
  left join lateral (
      select k.state, k.effect where k.finished_at < $3::timestamptz
      union all
      select retried.before ->> 'state', retried.before ->> 'effect'
       where (retried.before ->> 'review_since')::timestamptz < $3::timestamptz
      limit 1) ended on true
 cross join lateral (
      select min(t.started_at) filter (where
                 u.is_under_way or t.evidence = 'unanswered'
                 or (t.evidence = 'answered' and t.verdict = 'retry' and t.reason is distinct from 'nothing_to_reverse')
                 or (t.verdict = 'rejected' and t.reason = 'unknown_status')) as since,
             max(t.started_at) as last_at, coalesce(bool_or(u.is_under_way), false) as is_under_way
        from predictu_dispatch.attempt t
       -- Its answer may have come just before the moment; what counts is when it was settled.
       cross join lateral (
           select t.finished_at >= $3::timestamptz
                  or (ended.state is null
                      and t.attempt = coalesce((retried.before ->> 'attempts')::integer, k.attempts)
                      and t.verdict = coalesce(retried.before ->> 'state', k.state)) as is_under_way) u
       where t.operator_id = k.operator_id and t.request_id = k.request_id and t.verdict <> 'late'
         and t.started_at >= k.created_at - interval '1 day' and t.started_at < $3::timestamptz) tried
  left join predictu_dispatch.callback reversal
    on k.method = 'BET_MAKE' and reversal.operator_id = k.operator_id and reversal.request_id = k.terminal_request_id
   and reversal.method = 'BET_ROLLBACK'
 where case when ended.state is not null then ended.effect = 'unknown'
            else k.sent_at is not null or tried.since is not null end
   and not coalesce(reversal.state = 'delivered' and reversal.finished_at < $3::timestamptz, false)
   and not exists (
       select from predictu_dispatch.intervention i
        where i.operator_id = k.operator_id and i.request_id in (k.request_id, reversal.request_id)
          and i.action = 'resolve' and i.done_at < $3::timestamptz)
 order by since, k.request_id
