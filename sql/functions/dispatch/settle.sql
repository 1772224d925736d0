-- Settles attempts: callback, audit row, bet, and what follows for the bet, in one transaction. The
-- fence is the attempt number: a report counts while its callback is in flight with that attempt. A
-- report that comes too late changes no state and is written to the audit as late. A repeated
-- report changes nothing. A report whose bet or callback is locked by another transaction is
-- returned with cause locked; the daemon reports it again. A report of an attempt that was never
-- claimed is returned with cause unknown_attempt and writes nothing.
-- What identifies the attempt in the audit is not taken from the report: method, instance and
-- started_at are the lease's, or those of the attempt's deciding row. finished_at is between
-- started_at and a second from now. Otherwise a stolen login could write rows of any month, and so
-- block that month's partition.
create or replace function predictu_dispatch.settle(reports predictu_dispatch.attempt_report[])
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
        select r.operator_id, r.request_id, r.method, null::text, null::text, null::text,
               case when c.request_id is not null then 'locked' else 'unknown_attempt' end, r.attempt
          from unnest(reports) r
          left join predictu_dispatch.callback c
            on c.operator_id = r.operator_id and c.request_id = r.request_id and c.bet_id is not distinct from r.bet_id
           and r.attempt between 1 and c.attempts
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
        returning c.operator_id, c.request_id, r.attempt, c.lane, c.state, c.reason, c.method, c.leased_by, c.leased_at,
                  r.report_id
    ), known as (
        select r.*, coalesce(d.report_id = r.report_id, false) as is_decisive, d.lane as new_lane,
               d.state as new_state, d.reason as new_reason, coalesce(d.method, a.method, c.method) as known_method,
               coalesce(d.leased_by, a.instance, c.leased_by) as leased_by,
               coalesce(d.leased_at, a.started_at, c.leased_at) as leased_at
          from given r
          left join decided d
            on d.operator_id = r.operator_id and d.request_id = r.request_id and d.attempt = r.attempt
          -- Decided before: the callback has the start of its last attempt, and all else if retention
          -- is replacing that month; an earlier one's start is the report's, or the attempt is
          -- unknown. So only one partition is searched, and only for a late report: without the
          -- offsets, the planner would search for each one.
          left join lateral (
              select c.method, c.leased_by, c.leased_at
                from predictu_dispatch.callback c
               where d.request_id is null and c.operator_id = r.operator_id and c.request_id = r.request_id
                 and c.attempts = r.attempt
              offset 0) c on true
          left join lateral (
              select a.method, a.instance, a.started_at
                from predictu_dispatch.attempt_record a
               where d.request_id is null and not r.reaped
                 and a.operator_id = r.operator_id and a.request_id = r.request_id and a.attempt = r.attempt
                 and a.started_at = coalesce(c.leased_at, r.started_at) and a.verdict <> 'late'
              offset 0) a on true
    ), written as (
        insert into predictu_dispatch.attempt_record (
            operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url,
            key_id, request_headers, request_body, response_status, response_headers, response_body, response_truncated,
            connect_ms, first_byte_ms, total_ms, error, report_id,
            peer, peer_certificate_sha256, token_signature, response_body_sha256, response_body_repeats)
        select k.operator_id, k.request_id, k.known_method, k.attempt, k.evidence,
               case when k.is_decisive then k.verdict else 'late' end, k.reason, k.leased_by, k.leased_at,
               greatest(k.leased_at, least(k.finished_at, clock_timestamp() + interval '1 second')), k.url, k.key_id,
               k.request_headers::jsonb, k.request_body, k.response_status, k.response_headers::jsonb, k.response_body,
               k.response_truncated, k.connect_ms, k.first_byte_ms, k.total_ms, k.error, k.report_id,
               k.peer, k.peer_certificate_sha256, k.token_signature,
               k.response_body_sha256, k.response_body_repeats
          from known k
         where k.is_decisive or not k.reaped and k.leased_at is not null and not exists (
             select from predictu_dispatch.attempt_record a
              where a.operator_id = k.operator_id and a.request_id = k.request_id and a.attempt = k.attempt
                and a.started_at = k.leased_at and a.report_id = k.report_id)
        returning operator_id, request_id, report_id
    )
    select k.operator_id, k.request_id, k.method, case when k.is_decisive then k.new_lane end,
           case when k.is_decisive then k.new_state end, case when k.is_decisive then k.new_reason end,
           case when k.is_decisive then 'settled' when w.request_id is not null then 'late'
                when k.leased_at is null then 'unknown_attempt' else 'repeated' end,
           k.attempt
      from known k
      left join written w on w.operator_id = k.operator_id and w.request_id = k.request_id and w.report_id = k.report_id
     -- A reaper whose attempt was settled before has nothing to report.
     where k.is_decisive or not k.reaped;

    if bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(bet_operator_ids, bet_ids);
    end if;
end $$;

revoke all on function predictu_dispatch.settle(predictu_dispatch.attempt_report[]) from public;
grant execute on function predictu_dispatch.settle(predictu_dispatch.attempt_report[]) to predictu_dispatcher;
