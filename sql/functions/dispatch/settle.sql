-- Settles attempts: callback, audit row, bet, and what follows for the bet, in one transaction. The
-- fence is the attempt number: a report counts while its callback is in flight with that attempt. A
-- report that comes too late changes no state and is written to the audit as late. A repeated
-- report changes nothing. A report whose bet or callback is locked by another transaction is
-- returned with cause locked; the daemon reports it again.
create or replace function predictu_dispatch.settle(reports predictu_dispatch.report[])
returns setof predictu_dispatch.change language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare
    bet_operator_ids text[];
    bet_ids text[];
    callback_operator_ids text[];
    request_ids uuid[];
begin
    perform predictu_dispatch.commit_durably();
    -- Bets first, callbacks after them. Each is a statement of its own, so that it sees everything
    -- that was committed before the lock was granted. Locked rows are skipped: an open transaction
    -- of a producer or a person must delay no other bet and no other operator.
    select array_agg(b.operator_id), array_agg(b.bet_id) into bet_operator_ids, bet_ids
      from (select b.operator_id, b.bet_id
              from predictu_dispatch.bet b
             where (b.operator_id, b.bet_id) in (select r.operator_id, r.bet_id from unnest(reports) r)
             order by b.operator_id, b.bet_id for no key update skip locked) b;
    select array_agg(c.operator_id), array_agg(c.request_id) into callback_operator_ids, request_ids
      from (select c.operator_id, c.request_id
              from predictu_dispatch.callback c
             where (c.operator_id, c.request_id) in (select r.operator_id, r.request_id from unnest(reports) r)
               and (c.bet_id is null or (c.operator_id, c.bet_id) in (select * from unnest(bet_operator_ids, bet_ids)))
             order by c.operator_id, c.request_id for no key update skip locked) c;
    if cardinality(request_ids) is distinct from cardinality(reports) then
        return query
        select r.operator_id, r.request_id, r.method, null::text, null::text, null::text, 'locked', r.attempt
          from unnest(reports) r
         where (r.operator_id, r.request_id) not in (select * from unnest(callback_operator_ids, request_ids));
        if found then
            reports := array(
                select r from unnest(reports) r
                 where (r.operator_id, r.request_id) in (select * from unnest(callback_operator_ids, request_ids)));
        end if;
    end if;

    return query
    with given as materialized (
        select * from unnest(reports)
    ), chosen as (
        -- If a daemon and a reaper report one attempt in one batch, the daemon's report counts.
        select distinct on (r.operator_id, r.request_id, r.attempt) r.*
          from given r
         order by r.operator_id, r.request_id, r.attempt, r.reaped
    ), decided as (
        update predictu_dispatch.callback c
           set state = case when c.retry_stopped and r.state = 'ready' then 'exhausted' else r.state end,
               reason = case when c.retry_stopped and r.state = 'ready' then 'rolled_back' else r.state_reason end,
               effect = r.effect,
               due_at = case when r.state = 'ready' and not c.retry_stopped
                             then clock_timestamp() + r.due_in_s * interval '1 second' else c.due_at end,
               lease_until = null,
               finished_at = case when r.state <> 'ready' or c.retry_stopped then clock_timestamp() end,
               operator_status = coalesce(r.operator_status, c.operator_status),
               operator_transaction_id = coalesce(r.operator_transaction_id, c.operator_transaction_id),
               balance = coalesce(r.balance, c.balance),
               anomaly = coalesce(r.anomaly, c.anomaly),
               review_since = case
                   when r.state in ('rejected', 'exhausted') and c.method not in ('PING', 'BALANCE', 'BET_MAKE')
                       then clock_timestamp()
                   -- coalesce, because with a null reason an "and" would still call the function.
                   when coalesce(r.state_reason, '') = 'nothing_to_reverse' then
                       case when r.state = 'delivered'
                             and predictu_dispatch.is_debit_confirmed(c.operator_id, (c.params ->> 'rollback_of')::uuid)
                            then clock_timestamp() end
               end
          from chosen r
         -- In flight. By its state, the planner would read all callbacks in flight for each report.
         where c.operator_id = r.operator_id and c.request_id = r.request_id and c.lease_until is not null
           and c.attempts = r.attempt
        returning c.operator_id, c.request_id, c.lane, c.state, c.reason, r.report_id
    ), written as (
        insert into predictu_dispatch.attempt (
            operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url,
            key_id, request_headers, request_body, response_status, response_headers, response_body, response_truncated,
            connect_ms, first_byte_ms, total_ms, error, report_id)
        select r.operator_id, r.request_id, r.method, r.attempt, r.evidence,
               case when d.request_id is null then 'late' else r.verdict end, r.reason, r.instance, r.started_at,
               r.finished_at, r.url, r.key_id, r.request_headers::jsonb, r.request_body, r.response_status,
               r.response_headers::jsonb, r.response_body, r.response_truncated, r.connect_ms, r.first_byte_ms,
               r.total_ms, r.error, r.report_id
          from given r
          left join decided d
            on d.operator_id = r.operator_id and d.request_id = r.request_id and d.report_id = r.report_id
         where d.request_id is not null or not (r.reaped or exists (
             select from predictu_dispatch.attempt a
              where a.operator_id = r.operator_id and a.request_id = r.request_id and a.attempt = r.attempt
                and a.started_at = r.started_at and a.report_id = r.report_id))
        returning operator_id, request_id, report_id
    )
    select r.operator_id, r.request_id, r.method, d.lane, d.state, d.reason,
           case when d.request_id is not null then 'settled' when w.request_id is not null then 'late' else 'repeated' end,
           r.attempt
      from given r
      left join decided d on d.operator_id = r.operator_id and d.request_id = r.request_id and d.report_id = r.report_id
      left join written w on w.operator_id = r.operator_id and w.request_id = r.request_id and w.report_id = r.report_id
     -- A reaper whose attempt was settled before has nothing to report.
     where d.request_id is not null or not r.reaped;

    if bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(bet_operator_ids, bet_ids);
    end if;
end $$;

revoke all on function predictu_dispatch.settle from public;
grant execute on function predictu_dispatch.settle to predictu_dispatcher;
