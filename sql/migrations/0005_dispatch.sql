-- What daemons may call: sync_operators, claim, settle, expire, prepare_partitions. A daemon has no right to write any table itself.

-- Makes the operators of a daemon's configuration known to the producers. An operator whose file is gone stays as it was: another
-- daemon may still have it. Operators that did not change are not written.
create function predictu_dispatch.sync_operators(
    operator_ids text[], enabled boolean[], interactive_deadlines_s double precision[], settlement_deadlines_s double precision[],
    fingerprints text[]
) returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into predictu_dispatch.operator as o
        (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)
    select * from unnest(operator_ids, sync_operators.enabled, interactive_deadlines_s, settlement_deadlines_s, fingerprints) order by 1
    on conflict (operator_id) do update
       set enabled = excluded.enabled, interactive_deadline_s = excluded.interactive_deadline_s,
           settlement_deadline_s = excluded.settlement_deadline_s, config_fingerprint = excluded.config_fingerprint, updated_at = now()
     where (o.enabled, o.interactive_deadline_s, o.settlement_deadline_s, o.config_fingerprint)
           is distinct from (excluded.enabled, excluded.interactive_deadline_s, excluded.settlement_deadline_s, excluded.config_fingerprint)
$$;

-- Leases due callbacks for one attempt each, for each (operator, lane) the oldest due first and no more than its free slots.
-- The lease is written and committed before the request leaves: whatever crashes, the attempt is known to have begun.
-- BET_ROLLBACK sits in the interactive lane with the settlement lane's timeouts, hence its lease of its own.
create function predictu_dispatch.claim(
    instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[],
    rollback_leases_s double precision[], amount_formats text[]
) returns table (
    operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer, effect text,
    reason text, params text, created_at timestamptz, due_at timestamptz, expires_in_s double precision, leased_at timestamptz,
    lease_s double precision, amount_format text, minor_digits integer, placement_ended_s_ago double precision
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    perform predictu_dispatch.commit_durably();
    return query
    with picked as materialized (
        select due.operator_id, due.request_id, want.amount_format,
               case due.method when 'BET_ROLLBACK' then want.rollback_lease_s else want.lease_s end as lease_s
          from unnest(operator_ids, lanes, free_slots, leases_s, rollback_leases_s, amount_formats)
               as want (operator_id, lane, free_slots, lease_s, rollback_lease_s, amount_format)
         cross join lateral (
             select c.operator_id, c.request_id, c.method
               from predictu_dispatch.callback c
              where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                and (c.expires_at is null or c.expires_at > now())
              order by c.due_at limit want.free_slots
                for no key update skip locked
         ) due
    )
    update predictu_dispatch.callback c
       set state = 'in_flight', attempts = c.attempts + 1, leased_at = now(), leased_by = instance,
           lease_until = now() + picked.lease_s * interval '1 second',
           amount_format = coalesce(c.amount_format, picked.amount_format)
      from picked
     where c.operator_id = picked.operator_id and c.request_id = picked.request_id
    returning c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts, c.budget_from, c.effect, c.reason, c.params::text,
              c.created_at, c.due_at, extract(epoch from c.expires_at - now())::double precision, c.leased_at, picked.lease_s,
              c.amount_format, predictu_dispatch.minor_digits(coalesce(c.params ->> 'currency', (
                  -- BET_LOSE names no currency, and its answer's balance is in the bet's.
                  select b.currency from predictu_dispatch.bet b where b.operator_id = c.operator_id and b.bet_id = c.bet_id
              ))),
              case when c.method = 'BET_ROLLBACK' then (
                  select extract(epoch from now() - placement.finished_at)::double precision
                    from predictu_dispatch.callback placement
                   where placement.operator_id = c.operator_id and placement.request_id = (c.params ->> 'rollback_of')::uuid
              ) end;
end $$;

-- What a daemon reports of one attempt: the fence (operator_id, request_id, attempt), what becomes of the callback, the audit row.
create type predictu_dispatch.report as (
    operator_id text, request_id uuid, attempt integer, bet_id text,
    -- What becomes of the callback: delivered, rejected, ready (due again after due_in_s) or exhausted.
    state text, state_reason text, effect text, due_in_s double precision,
    operator_status text, operator_transaction_id text, balance bigint, anomaly text,
    -- True where a reaper writes the row that a vanished daemon did not: then losing the fence means that there is nothing to write.
    reaped boolean,
    method text, evidence text, verdict text, reason text, instance text, started_at timestamptz, finished_at timestamptz,
    url text, key_id text, request_headers text, request_body text, response_status integer, response_headers text,
    response_body bytea, response_truncated boolean, connect_ms double precision, first_byte_ms double precision,
    total_ms double precision, error text, report_id uuid
);

-- A commit of ours is on disk before anything is done on its strength, also where the database says synchronous_commit = off.
create function predictu_dispatch.commit_durably() returns void language plpgsql as $$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end $$;

-- True where the operator has once confirmed the debit, or where the bet was adopted: then it stands, whatever is said later.
create function predictu_dispatch.was_debited(operator_id text, placement_request_id uuid) returns boolean
language sql stable as $$
    select coalesce((select placement.effect = 'applied' from predictu_dispatch.callback placement
                      where placement.operator_id = was_debited.operator_id
                        and placement.request_id = was_debited.placement_request_id), true)
$$;

-- Settles attempts: callback, audit row, bet, and what follows for the bet, in one transaction. The fence is the attempt number: a
-- report counts while its callback is in flight with that very attempt. One that comes too late changes no state and is written
-- to the audit as late; one that was settled before (a commit whose answer was lost) changes nothing at all. One whose bet or
-- callback another transaction holds is returned as 'locked': nothing was done for it, and it is to be reported again.
create function predictu_dispatch.settle(reports predictu_dispatch.report[]) returns setof predictu_dispatch.change
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    bet_operator_ids text[];
    bet_ids text[];
    callback_operator_ids text[];
    request_ids uuid[];
begin
    perform predictu_dispatch.commit_durably();
    -- Bets first, callbacks after them. What follows runs in a statement of its own, so it sees all that was committed before
    -- these locks were had. What somebody holds is not waited for: a producer's transaction, or a person's, may stay open for
    -- as long as it likes, and it must hold up no other bet and no other operator.
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
    return query
    select r.operator_id, r.request_id, r.method, null::text, null::text, null::text, 'locked', r.attempt
      from unnest(reports) r
     where (r.operator_id, r.request_id) not in (select * from unnest(callback_operator_ids, request_ids));
    if found then
        reports := array(
            select r from unnest(reports) r
             where (r.operator_id, r.request_id) in (select * from unnest(callback_operator_ids, request_ids)));
    end if;

    return query
    with told as (
        -- Where a daemon and a reaper report one attempt in one batch, the daemon's word counts: it has seen what came.
        select distinct on (r.operator_id, r.request_id, r.attempt) r.*
          from unnest(reports) r
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
                   when r.state in ('rejected', 'exhausted') and c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp()
                   when r.state = 'delivered' and r.state_reason = 'nothing_to_reverse'
                        and predictu_dispatch.was_debited(c.operator_id, (c.params ->> 'rollback_of')::uuid) then clock_timestamp()
               end
          from told r
         where c.operator_id = r.operator_id and c.request_id = r.request_id and c.state = 'in_flight' and c.attempts = r.attempt
        returning c.operator_id, c.request_id, c.lane, c.state, c.reason, r.report_id
    ), written as (
        insert into predictu_dispatch.attempt (
            operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url, key_id,
            request_headers, request_body, response_status, response_headers, response_body, response_truncated, connect_ms,
            first_byte_ms, total_ms, error, report_id)
        select r.operator_id, r.request_id, r.method, r.attempt, r.evidence, case when d.request_id is null then 'late' else r.verdict end,
               r.reason, r.instance, r.started_at, r.finished_at, r.url, r.key_id, r.request_headers::jsonb, r.request_body,
               r.response_status, r.response_headers::jsonb, r.response_body, r.response_truncated, r.connect_ms, r.first_byte_ms,
               r.total_ms, r.error, r.report_id
          from unnest(reports) r
          left join decided d on d.operator_id = r.operator_id and d.request_id = r.request_id and d.report_id = r.report_id
         where d.request_id is not null or not (r.reaped or exists (
             select from predictu_dispatch.attempt a
              where a.operator_id = r.operator_id and a.request_id = r.request_id and a.attempt = r.attempt
                and a.started_at = r.started_at and a.report_id = r.report_id))
        returning operator_id, request_id, report_id
    )
    select r.operator_id, r.request_id, r.method, d.lane, d.state, d.reason,
           case when d.request_id is not null then 'settled' when w.request_id is not null then 'late' else 'repeated' end,
           r.attempt
      from unnest(reports) r
      left join decided d on d.operator_id = r.operator_id and d.request_id = r.request_id and d.report_id = r.report_id
      left join written w on w.operator_id = r.operator_id and w.request_id = r.request_id and w.report_id = r.report_id
     -- A reaper that came second has nothing to tell.
     where d.request_id is not null or not r.reaped;

    if bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(bet_operator_ids, bet_ids);
    end if;
end $$;

-- Ends callbacks whose deadline passed before an attempt or between two; of each kind at most `most` at once. What somebody holds
-- is passed by and left to a later call: nobody's open transaction keeps the others' deadlines from being kept.
create function predictu_dispatch.expire(most integer) returns setof predictu_dispatch.change
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    locked record;
begin
    perform predictu_dispatch.commit_durably();
    -- The bets first, in a statement of their own, as in settle().
    select array_agg(overdue.operator_id) as operator_ids, array_agg(overdue.bet_id) as bet_ids into locked
      from (select b.operator_id, b.bet_id
              from predictu_dispatch.callback c
              join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
             where c.state = 'ready' and c.expires_at <= now()
             order by c.expires_at limit most
               for no key update of b skip locked) overdue;
    return query
    with of_bets as materialized (
        select c.operator_id, c.request_id
          from unnest(locked.operator_ids, locked.bet_ids) as named (operator_id, bet_id)
          join predictu_dispatch.callback c on c.operator_id = named.operator_id and c.bet_id = named.bet_id
         where c.state = 'ready' and c.expires_at <= now()
           for no key update of c skip locked
    ), of_none as materialized (
        select c.operator_id, c.request_id
          from predictu_dispatch.callback c
         where c.state = 'ready' and c.expires_at <= now() and c.bet_id is null
         order by c.expires_at limit most
           for no key update skip locked
    )
    update predictu_dispatch.callback c
       set state = 'exhausted', reason = 'deadline', finished_at = clock_timestamp(),
           review_since = case when c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp() end
      from (select * from of_bets union all select * from of_none) overdue
     where c.operator_id = overdue.operator_id and c.request_id = overdue.request_id
    returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'settled', null::integer;
    if locked.bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(locked.operator_ids, locked.bet_ids);
    end if;
end $$;

-- Makes the audit's partitions for this month and the `months_ahead` that follow. Safe to repeat and to race; a month that cannot
-- be made now is tried again at the next call, and its rows go to the default partition meanwhile.
create function predictu_dispatch.prepare_partitions(months_ahead integer) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
    month date;
    name text;
begin
    if not pg_try_advisory_xact_lock(hashtext('predictu_dispatch.prepare_partitions')) then
        return; -- Another daemon is at it.
    end if;
    for step in 0 .. months_ahead loop
        month := (date_trunc('month', now() at time zone 'UTC') + step * interval '1 month')::date;
        name := 'attempt_' || to_char(month, 'YYYY_MM');
        continue when to_regclass('predictu_dispatch.' || name) is not null;
        begin
            -- Made apart and attached: creating it in place would lock the whole audit against readers and writers.
            execute format('create table predictu_dispatch.%I (like predictu_dispatch.attempt including defaults including constraints)', name);
            execute format('alter table predictu_dispatch.attempt attach partition predictu_dispatch.%I for values from (%L) to (%L)',
                           name, month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
            execute format('create trigger attempt_not_emptied before truncate on predictu_dispatch.%I for each statement '
                           'execute function predictu_dispatch.refuse_audit_change()', name);
            execute format('alter table predictu_dispatch.%I enable always trigger attempt_not_emptied', name);
        exception
            -- Attaching needs the default partition for itself. While somebody reads there for long, waiting would stop every
            -- settle behind us; once rows of this month lie there, for want of the partition, they stay there.
            when lock_not_available or check_violation then
                raise warning 'predictu_dispatch.% is not made now: %', name, sqlerrm;
        end;
    end loop;
end $$;
select predictu_dispatch.prepare_partitions(2);
