-- The hot path made lean: what a callback costs Postgres, whatever history, backlog and other people's snapshots do.
-- Source: DESIGN.md 6, "Claim, lease, settle"; decisions D39 to D42. Each function is as explained where it was first made.

-- Names of our own giving begin with the time, so that one moment's rows stand side by side in every index that has them: with
-- millions of finished callbacks each write would otherwise read, and log, a page of its own. Version 7 of RFC 9562.
create function predictu_dispatch.new_request_id() returns uuid language sql volatile parallel safe as $$
    -- The version's four bits become 7 where they were 4.
    select encode(set_bit(set_bit(
        overlay(uuid_send(gen_random_uuid()) placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- Brings bets to where their callbacks have gone; see 0004. Looked at once, and then written only where something has moved.
create or replace function predictu_dispatch.advance_bets(operator_ids text[], bet_ids text[])
returns setof predictu_dispatch.change language plpgsql
-- As 0007 says: look-ups by key, whatever the planner thinks of the tables' sizes. And always the same, so it is planned once: left
-- alone the planner thinks of each array's length anew, which takes longer than the work for a few rows.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare
    moved record;
    ended record;
    rollback_id uuid;
begin
    -- terminal delivered: closing → closed. BET_MAKE delivered: placing → open, or at once → closing where a terminal waits.
    select array_agg(found.operator_id) filter (where next_state is not null) as operator_ids,
           array_agg(found.bet_id) filter (where next_state is not null) as bet_ids,
           array_agg(found.next_state) filter (where next_state is not null) as states,
           array_agg(found.operator_id) filter (where is_released) as released_operator_ids,
           array_agg(found.terminal_request_id) filter (where is_released) as released_ids,
           bool_or(found.has_failed) as has_failed
      into moved
      from (select named.operator_id, named.bet_id, b.terminal_request_id,
                   case when b.state = 'closing' and terminal.state = 'delivered' then 'closed'
                        when b.state = 'placing' and placement.state = 'delivered' and terminal.state = 'waiting' then 'closing'
                        when b.state = 'placing' and placement.state = 'delivered' then 'open' end as next_state,
                   terminal.state = 'waiting' and (b.state = 'closing' or (b.state = 'placing' and placement.state = 'delivered'))
                       as is_released,
                   b.state = 'placing' and placement.state in ('rejected', 'exhausted', 'cancelled') as has_failed
              from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
             cross join lateral (
                 select b.state, b.placement_request_id, b.terminal_request_id from predictu_dispatch.bet b
                  where b.operator_id = named.operator_id and b.bet_id = named.bet_id limit 1) b
              left join lateral (
                  select c.state from predictu_dispatch.callback c
                   where c.operator_id = named.operator_id and c.request_id = b.placement_request_id and b.state = 'placing' limit 1
              ) placement on true
              left join lateral (
                  select c.state from predictu_dispatch.callback c
                   where c.operator_id = named.operator_id and c.request_id = b.terminal_request_id limit 1) terminal on true
           ) found
     where found.next_state is not null or found.is_released or found.has_failed;

    if moved.bet_ids is not null then
        update predictu_dispatch.bet b
           set state = m.state, updated_at = clock_timestamp()
          from unnest(moved.operator_ids, moved.bet_ids, moved.states) as m (operator_id, bet_id, state)
         where b.operator_id = m.operator_id and b.bet_id = m.bet_id;
    end if;

    if moved.has_failed then
        -- BET_MAKE ended without having been confirmed.
        for ended in
            select b as bet, placement.state, placement.reason, placement.effect, terminal.request_id as terminal_id,
                   terminal.state as terminal_state, terminal.method as terminal_method
              from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
             cross join lateral predictu_dispatch.get_bet(named.operator_id, named.bet_id) b
             cross join lateral predictu_dispatch.get_callback(named.operator_id, b.placement_request_id) placement
              left join lateral predictu_dispatch.get_callback(named.operator_id, b.terminal_request_id) terminal on true
             where b.state = 'placing' and placement.state in ('rejected', 'exhausted', 'cancelled')
        loop
            if ended.effect = 'none' then
                -- No debit ever took place: → void, and a waiting terminal is cancelled.
                update predictu_dispatch.bet b set state = 'void', updated_at = clock_timestamp()
                 where b.operator_id = (ended.bet).operator_id and b.bet_id = (ended.bet).bet_id;
                return query select * from predictu_dispatch.cancel_waiting((ended.bet).operator_id, ended.terminal_id,
                    case when ended.state = 'rejected' then 'bet_rejected' when ended.reason = 'rolled_back' then 'rolled_back'
                         else 'bet_void' end, false);
            elsif ended.terminal_state = 'waiting' and ended.terminal_method = 'BET_ROLLBACK' then
                -- The debit's fate is unknown, and its rollback waits already: → closing; it is released with the others.
                update predictu_dispatch.bet b set state = 'closing', updated_at = clock_timestamp()
                 where b.operator_id = (ended.bet).operator_id and b.bet_id = (ended.bet).bet_id;
                moved.released_operator_ids := array_append(moved.released_operator_ids, (ended.bet).operator_id);
                moved.released_ids := array_append(moved.released_ids, ended.terminal_id);
            else
                -- The debit's fate is unknown: → closing with a rollback; any other waiting terminal is cancelled and flagged.
                return query select * from predictu_dispatch.cancel_waiting((ended.bet).operator_id, ended.terminal_id, 'rolled_back', true);
                rollback_id := predictu_dispatch.add_rollback(ended.bet, 'closing', 'ready',
                    case ended.reason when 'rolled_back' then 'requested' else 'unknown_effect' end, null);
                return query select c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'rolled_back', null::integer
                               from predictu_dispatch.callback c
                              where c.operator_id = (ended.bet).operator_id and c.request_id = rollback_id;
            end if;
        end loop;
    end if;

    -- What waited for its bet to be closing may go now.
    if moved.released_ids is not null then
        return query
        update predictu_dispatch.callback terminal
           set state = 'ready', due_at = clock_timestamp()
          from unnest(moved.released_operator_ids, moved.released_ids) as released (operator_id, request_id)
         where terminal.operator_id = released.operator_id and terminal.request_id = released.request_id
        returning terminal.operator_id, terminal.request_id, terminal.method, terminal.lane, terminal.state, terminal.reason, 'released',
                  null::integer;
    end if;
end $$;

-- Settles attempts; see 0005. The reports are taken apart once, and what is rare is asked for only where it can be.
create or replace function predictu_dispatch.settle(reports predictu_dispatch.report[]) returns setof predictu_dispatch.change
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
set plan_cache_mode = force_generic_plan as $$
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
    ), told as (
        -- Where a daemon and a reaper report one attempt in one batch, the daemon's word counts: it has seen what came.
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
                   when r.state in ('rejected', 'exhausted') and c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp()
                   -- A reason that is null would not keep the function behind an "and" from being called.
                   when coalesce(r.state_reason, '') = 'nothing_to_reverse' then
                       case when r.state = 'delivered'
                             and predictu_dispatch.was_debited(c.operator_id, (c.params ->> 'rollback_of')::uuid) then clock_timestamp() end
               end
          from told r
         -- A lease is what being in flight means; asked by the state, the planner would look through all that is in flight for each report.
         where c.operator_id = r.operator_id and c.request_id = r.request_id and c.lease_until is not null and c.attempts = r.attempt
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
          from given r
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
      from given r
      left join decided d on d.operator_id = r.operator_id and d.request_id = r.request_id and d.report_id = r.report_id
      left join written w on w.operator_id = r.operator_id and w.request_id = r.request_id and w.report_id = r.report_id
     -- A reaper that came second has nothing to tell.
     where d.request_id is not null or not r.reaped;

    if bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(bet_operator_ids, bet_ids);
    end if;
end $$;

-- Claims; see 0005 and 0007. `due_from` is how far a daemon has read each operator's lane: what lies before it is finished, but as long
-- as somebody holds an old snapshot open its index entries stay, and each claim would walk over all of them. Null reads from the start.
drop function predictu_dispatch.claim(text, text[], text[], integer[], double precision[], double precision[], text[]);
create function predictu_dispatch.claim(
    instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[],
    rollback_leases_s double precision[], amount_formats text[], due_from timestamptz[] default null
) returns table (
    operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer, effect text,
    reason text, params text, created_at timestamptz, due_at timestamptz, expires_in_s double precision, leased_at timestamptz,
    lease_s double precision, amount_format text, minor_digits integer, placement_ended_s_ago double precision
) language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    picked record;
begin
    perform predictu_dispatch.commit_durably();
    -- In a statement of its own: the planner cannot know that the limits below are small, and in one statement with the update it
    -- would sooner read the whole table than look up what was picked.
    with want as materialized (
        select want.*, o.circuit, o.ping_request_id
          from unnest(operator_ids, lanes, free_slots, leases_s, rollback_leases_s, amount_formats, due_from)
               as want (operator_id, lane, free_slots, lease_s, rollback_lease_s, amount_format, due_from)
          join predictu_dispatch.operator o on o.operator_id = want.operator_id
         where o.paused_at is null and o.circuit <> 'open'
           and coalesce(case want.lane when 'interactive' then o.interactive_backoff_until else o.settlement_backoff_until end, '-infinity')
               <= now()
    )
    select array_agg(p.operator_id) as operator_ids, array_agg(p.request_id) as request_ids, array_agg(p.amount_format) as amount_formats,
           array_agg(p.lease_s) as leases_s
      into picked
      from (
          select due.operator_id, due.request_id, want.amount_format,
                 case due.method when 'BET_ROLLBACK' then want.rollback_lease_s else want.lease_s end as lease_s
            from want
           cross join lateral (
               select c.operator_id, c.request_id, c.method
                 from predictu_dispatch.callback c
                where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                  and c.due_at >= coalesce(want.due_from, '-infinity') and coalesce(c.expires_at, 'infinity') > now()
                order by c.due_at limit want.free_slots
                  for no key update skip locked
           ) due
           where want.circuit = 'closed'
          union all
          select ping.operator_id, ping.request_id, want.amount_format, want.lease_s
            from want
           cross join lateral (
               select c.operator_id, c.request_id
                 from predictu_dispatch.callback c
                where c.operator_id = want.operator_id and c.request_id = want.ping_request_id and c.state = 'ready'
                  and (c.expires_at is null or c.expires_at > now())
                  for no key update skip locked
           ) ping
           where want.circuit = 'half_open' and want.lane = 'interactive'
      ) p;
    if picked.request_ids is null then
        return;
    end if;
    return query
    update predictu_dispatch.callback c
       set state = 'in_flight', attempts = c.attempts + 1, leased_at = now(), leased_by = instance,
           lease_until = now() + lease.lease_s * interval '1 second',
           amount_format = coalesce(c.amount_format, lease.amount_format)
      from unnest(picked.operator_ids, picked.request_ids, picked.amount_formats, picked.leases_s)
           as lease (operator_id, request_id, amount_format, lease_s)
     where c.operator_id = lease.operator_id and c.request_id = lease.request_id
    returning c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts, c.budget_from, c.effect, c.reason, c.params::text,
              c.created_at, c.due_at, extract(epoch from c.expires_at - now())::double precision, c.leased_at, lease.lease_s,
              -- Needed for decimal amounts alone, and the list of currencies is long.
              c.amount_format, case c.amount_format when 'decimal' then predictu_dispatch.minor_digits(coalesce(c.params ->> 'currency', (
                  -- BET_LOSE names no currency, and its answer's balance is in the bet's.
                  select b.currency from predictu_dispatch.bet b where b.operator_id = c.operator_id and b.bet_id = c.bet_id
              ))) end,
              case when c.method = 'BET_ROLLBACK' then (
                  select extract(epoch from now() - placement.finished_at)::double precision
                    from predictu_dispatch.callback placement
                   where placement.operator_id = c.operator_id and placement.request_id = (c.params ->> 'rollback_of')::uuid
              ) end;
end $$;

-- enqueue_callback as in 0003, with request ids that begin with the time, and without its own notification: the trigger below tells.
create or replace function predictu_dispatch.enqueue_callback(
    operator_id text, method text, params jsonb, request_id uuid default null, expires_at timestamptz default null
) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    operator predictu_dispatch.operator;
    bet predictu_dispatch.bet;
    id uuid := coalesce(request_id, predictu_dispatch.new_request_id());
    lane text := predictu_dispatch.lane_of(method);
    bet_id text;
    enqueued_at timestamptz := clock_timestamp();
    deadline_s double precision;
    state text := 'ready';
begin
    if lane is null then
        raise exception using errcode = 'PD001', message = format('unknown method %s', coalesce(quote_literal(left(method, 80)), 'NULL')),
            hint = 'Methods are PING, BALANCE, BET_MAKE, BET_WIN, BET_LOSE, BET_SELL, BET_REFUND, BET_ROLLBACK.';
    end if;
    -- Before all that may have changed since: a producer that repeats itself, after the deadline or after its operator was
    -- disabled, must hear that the first time counted.
    if request_id is not null and predictu_dispatch.is_enqueued(operator_id, id, method, params) then
        return id;
    end if;
    operator := predictu_dispatch.enabled_operator(operator_id);
    perform predictu_dispatch.check_params(method, params);
    if expires_at <= enqueued_at or (isfinite(expires_at) and expires_at > enqueued_at + interval '10 years') then
        perform predictu_dispatch.refuse_params(method, format('expires_at %s is in the past, or more than 10 years away', expires_at),
            'Leave it null for the operator''s own deadline, or give infinity for none.');
    end if;
    if method = 'BET_ROLLBACK' and isfinite(expires_at) then
        perform predictu_dispatch.refuse_params(method, format('expires_at is %s', expires_at),
            'A rollback has no deadline: a debit that may stand must be given back, however late.');
    end if;
    if request_id is not null and exists (
        select from predictu_dispatch.bet b
         where b.operator_id = operator_id and b.placement_request_id = id
           and (method <> 'BET_MAKE' or b.bet_id <> params ->> 'bet_id')
    ) then
        raise exception using errcode = 'PD004',
            message = format('request_id %s of operator %s is the placement of a bet', id, operator_id),
            hint = 'The operator would take it for a repetition and do nothing; use a new id for a new callback.';
    end if;
    if method not in ('PING', 'BALANCE') then
        bet_id := params ->> 'bet_id';
    end if;

    if method = 'BET_MAKE' then
        insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount, placement_request_id)
        values (operator_id, bet_id, 'placing', params ->> 'player_id', params ->> 'currency', (params ->> 'amount')::bigint, id)
        on conflict do nothing;
        if not found then
            -- Whoever placed it has committed by now: either this very request, or another one.
            if predictu_dispatch.is_enqueued(operator_id, id, method, params) then
                return id;
            end if;
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method, 'the bet exists already',
                'A bet has one placement; a new placement needs a new bet_id.');
        end if;
    elsif bet_id is not null then
        select b.* into bet from predictu_dispatch.bet b where b.operator_id = operator_id and b.bet_id = bet_id for no key update;
        if not found then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method, 'the bet is unknown',
                'Enqueue its BET_MAKE first, or adopt_bet() a bet that was opened before this system existed.');
        end if;
        -- Once more under the bet's lock: the same request may have come in while we waited for it.
        if predictu_dispatch.is_enqueued(operator_id, id, method, params) then
            return id;
        end if;
        if bet.state not in ('placing', 'open') or exists (
            select from predictu_dispatch.callback c
             where c.operator_id = operator_id and c.request_id = bet.terminal_request_id and c.state <> 'cancelled'
        ) then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method,
                case bet.state when 'void' then 'the bet is void, its debit never took place'
                               else format('the bet is %s and has its terminal callback %s already', bet.state, bet.terminal_request_id) end,
                'A bet ends with exactly one of BET_WIN, BET_LOSE, BET_SELL, BET_REFUND, BET_ROLLBACK.');
        end if;
        perform predictu_dispatch.check_terminal(method, params, bet);
        state := case bet.state when 'placing' then 'waiting' else 'ready' end;
        update predictu_dispatch.bet b
           set state = case bet.state when 'placing' then 'placing' else 'closing' end, terminal_request_id = id, updated_at = clock_timestamp()
         where b.operator_id = operator_id and b.bet_id = bet_id;
    end if;

    deadline_s := case when method = 'BET_ROLLBACK' then 0 when lane = 'interactive' then operator.interactive_deadline_s
                       else operator.settlement_deadline_s end;
    insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, params, created_at, due_at, expires_at)
    values (operator_id, id, method, bet_id, lane, state, params, enqueued_at, enqueued_at,
            -- 'infinity' says that there is no deadline; kept as such, it could not be subtracted from before Postgres 17.
            nullif(coalesce(expires_at, enqueued_at + nullif(deadline_s, 0) * interval '1 second'), 'infinity'))
    on conflict do nothing;
    if not found then
        -- The same id came in from another transaction between our look and our insert; PD004 unless it says the same.
        if not predictu_dispatch.is_enqueued(operator_id, id, method, params) then
            raise exception using errcode = '40001', message = format('request_id %s was enqueued at the same moment', id),
                hint = 'Run the transaction again.';
        end if;
    end if;
    return id;
end $$;

-- Wakes the daemons when a callback that somebody waits for is committed. Commits that notify queue behind one lock of the whole server
-- until they are on disk, so of those that commit at the same moment only one notifies; a daemon that was woken looks once
-- more a little later, and so finds the others. It is decided at the commit, so that no open transaction silences the others.
-- A settlement is not told: nobody waits for it.
create function predictu_dispatch.notify_due() returns trigger language plpgsql as $$
begin
    if new.due_at < clock_timestamp() - interval '0.5 seconds' then
        -- Enqueued long before its commit: the daemons have read on, and must look back.
        perform pg_notify('predictu_dispatch_due', new.operator_id || ' behind');
    elsif pg_try_advisory_xact_lock(hashtext('predictu_dispatch.notify_due')) then
        perform pg_notify('predictu_dispatch_due', new.operator_id);
    end if;
    return null;
end $$;

create constraint trigger callback_due_told after insert on predictu_dispatch.callback deferrable initially deferred
    for each row when (new.state = 'ready' and new.lane = 'interactive') execute function predictu_dispatch.notify_due();

-- The moves that 0002 and 0008 allow, as they were, but looked at inside of a function: a long WHEN is read anew by each statement, which takes
-- longer than settling a bet; a function is read once by each connection.
create function predictu_dispatch.guard_callback_move() returns trigger language plpgsql as $$
begin
    if
        (old.state <> new.state and not (
            (old.state = 'waiting' and new.state in ('ready', 'cancelled'))
            or (old.state = 'ready' and new.state in ('in_flight', 'exhausted', 'cancelled'))
            or (old.state = 'in_flight' and new.state in ('delivered', 'rejected', 'ready', 'exhausted'))
            -- A re-drive by a person; a debit is never sent again by hand, and what moves no bet has nobody waiting for it any more.
            or (old.state in ('rejected', 'exhausted') and new.state = 'ready' and old.method not in ('PING', 'BALANCE', 'BET_MAKE'))
        ))
        or (old.state in ('rejected', 'exhausted') and new.state = 'ready' and old.review_since is null)
        or (old.effect <> new.effect and not (old.effect = 'none' or (old.effect = 'unknown' and new.effect = 'applied')))
        or new.attempts <> old.attempts + (old.state = 'ready' and new.state = 'in_flight')::integer
        or (old.retry_stopped and not new.retry_stopped)
        or (old.amount_format is not null and new.amount_format is distinct from old.amount_format)
        or (old.operator_id, old.request_id, old.method, old.lane, old.created_at)
           <> (new.operator_id, new.request_id, new.method, new.lane, new.created_at)
        or old.bet_id is distinct from new.bet_id
        -- By their bytes: 500 and 500.0 are equal numbers and different bodies.
        or record_image_ne(row(old.params), row(new.params))
    then
        raise exception using errcode = 'PD900',
            message = format('callback %s of operator %s (%s) must not go from %s, effect %s, attempt %s to %s, effect %s, attempt %s',
                             old.request_id, old.operator_id, old.method, old.state, old.effect, old.attempts,
                             new.state, new.effect, new.attempts),
            hint = 'See predictu_dispatch/core/lifecycle.py for what is allowed; identity and content never change.';
    end if;
    return new;
end $$;

drop trigger callback_moves on predictu_dispatch.callback;
create trigger callback_moves before update on predictu_dispatch.callback for each row execute function predictu_dispatch.guard_callback_move();
drop trigger callback_redriven_from_review on predictu_dispatch.callback;
drop function predictu_dispatch.refuse_callback_change();

create function predictu_dispatch.guard_bet_move() returns trigger language plpgsql as $$
begin
    if
        (old.state <> new.state and not (
            (old.state = 'placing' and new.state in ('open', 'closing', 'void'))
            or (old.state = 'open' and new.state = 'closing')
            or (old.state = 'closing' and new.state in ('closed', 'open'))
        ))
        or (old.operator_id, old.bet_id, old.player_id, old.currency, old.amount, old.placement_request_id)
           <> (new.operator_id, new.bet_id, new.player_id, new.currency, new.amount, new.placement_request_id)
    then
        raise exception using errcode = 'PD900',
            message = format('bet %s of operator %s must not go from %s to %s, nor change what it was placed with',
                             old.bet_id, old.operator_id, old.state, new.state),
            hint = 'See predictu_dispatch/core/lifecycle.py for what is allowed.';
    end if;
    return new;
end $$;

drop trigger bet_moves on predictu_dispatch.bet;
create trigger bet_moves before update on predictu_dispatch.bet for each row execute function predictu_dispatch.guard_bet_move();
drop function predictu_dispatch.refuse_bet_change();

-- A bet moves three times and none of what moves is in an index: with room on its page each move stays there and no index is written.
alter table predictu_dispatch.bet set (fillfactor = 70);
-- A callback's state is in its indexes, so each of its moves leaves a dead row and dead entries behind: cleared away after a fiftieth of
-- the table instead of a fifth, or a queue that is short would lie in a table and behind index entries that are long.
alter table predictu_dispatch.callback set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0.02);
alter table predictu_dispatch.bet set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0.02);

revoke all on all functions in schema predictu_dispatch from public;
grant execute on function
    predictu_dispatch.claim(text, text[], text[], integer[], double precision[], double precision[], text[], timestamptz[])
    to predictu_dispatcher;
