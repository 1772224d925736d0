-- What the daemons of a fleet tell each other: who is alive, who has which share of an operator's limits, how each operator is.
-- Source: DESIGN.md 6, "Many operators, many hosts"; decisions D27 to D31.

-- The daemons. No key, as with schema_migration: it is not distributed by operator, and announce() lets one at a time write it.
create table predictu_dispatch.daemon (
    instance    text not null,
    -- Drawn anew by each process: two processes that call themselves the same are told apart by it.
    session_id  uuid not null,
    host        text not null,
    pid         integer not null,
    version     text not null,
    started_at  timestamptz not null default clock_timestamp(),
    -- Since when it has announced itself without a gap: one that was away itself cannot say that the others are gone.
    here_since  timestamptz not null default clock_timestamp(),
    seen_at     timestamptz not null default clock_timestamp()
);

-- What each daemon may use of an operator's limits. The sum over the daemons never exceeds the limit: nobody takes what another
-- has not given back, or has not lost by silence.
create table predictu_dispatch.share (
    operator_id         text not null,
    instance            text not null,
    interactive_slots   integer not null default 0 check (interactive_slots >= 0),
    settlement_slots    integer not null default 0 check (settlement_slots >= 0),
    -- Null where the operator's rate is not limited.
    requests_per_s      double precision check (requests_per_s >= 0),
    -- The limits as this daemon's file says them, over the whole fleet; a rate of 0 is none.
    interactive_max     integer not null,
    settlement_max      integer not null,
    requests_per_s_max  double precision not null,
    primary key (operator_id, instance)
);

alter table predictu_dispatch.operator
    -- Raised by every write of what follows: a daemon that decided on something older writes nothing.
    add column revision                bigint not null default 0,
    -- When the circuit last changed; null where it was never open.
    add column circuit_since           timestamptz,
    -- When the next PING is due; null where none is planned. While the circuit is open that PING decides.
    add column ping_at                 timestamptz,
    add column ping_request_id         uuid,
    -- Until when the operator asked to be left alone (Retry-After), by lane.
    add column interactive_backoff_until  timestamptz,
    add column settlement_backoff_until   timestamptz,
    -- A maintenance window: nothing is sent.
    add column paused_at               timestamptz,
    add column paused_by               text,
    add column pause_reason            text,
    add check ((paused_at is null) = (paused_by is null) and (paused_at is null) = (pause_reason is null));

-- A daemon that was not seen for so long counts as gone.
create function predictu_dispatch.heartbeat_timeout() returns interval language sql immutable parallel safe as $$
    select interval '3 seconds'
$$;

-- Tells the daemons at once that an operator's circuit, pause or hold has changed; they look every second anyway.
create function predictu_dispatch.notify_operator() returns trigger language plpgsql as $$
begin
    perform pg_notify('predictu_dispatch_operator', new.operator_id);
    return null;
end $$;

create trigger operator_changed after update on predictu_dispatch.operator
    for each row when (
        (old.circuit, old.paused_at, old.interactive_backoff_until, old.settlement_backoff_until, old.enabled)
        is distinct from (new.circuit, new.paused_at, new.interactive_backoff_until, new.settlement_backoff_until, new.enabled)
    ) execute function predictu_dispatch.notify_operator();

-- Sends the operator a PING through the ordinary way: the one that is under way already, or a new one. While the circuit is open
-- it is the PING that decides (half_open).
create function predictu_dispatch.start_ping(operator_id text) returns uuid language plpgsql as $$
#variable_conflict use_variable
declare
    known predictu_dispatch.operator;
    id uuid;
begin
    select o.* into known from predictu_dispatch.operator o where o.operator_id = operator_id for no key update;
    select c.request_id into id from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = known.ping_request_id and c.state in ('ready', 'in_flight');
    if not found then
        id := gen_random_uuid();
        insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params, expires_at)
        values (operator_id, id, 'PING', 'interactive', 'ready', '{}',
                clock_timestamp() + nullif(known.interactive_deadline_s, 0) * interval '1 second');
    end if;
    update predictu_dispatch.operator o
       set ping_request_id = id, revision = o.revision + 1,
           circuit = case o.circuit when 'open' then 'half_open' else o.circuit end
     where o.operator_id = operator_id;
    perform pg_notify('predictu_dispatch_due', operator_id);
    return id;
end $$;

-- How many of the daemons an operator is served by: no more than its rate bears. Each of them may be one request ahead, and with a
-- twentieth of the rate that is at most a fifth above it in any second, if each has 20/3 requests a second or more.
create function predictu_dispatch.serving(daemons bigint, requests_per_s double precision) returns bigint
language sql immutable parallel safe as $$
    select case when requests_per_s > 0 then greatest(least(daemons, floor(requests_per_s * 0.15)::bigint), 1) else daemons end
$$;

-- A limit divided among the first `daemons`, the very first ones getting what does not divide.
create function predictu_dispatch.share_of(most integer, daemons bigint, place bigint) returns integer
language sql immutable parallel safe as $$
    select case when place < daemons then (most / daemons + (place < most % daemons)::integer)::integer else 0 end
$$;

-- A rate likewise, in whole requests a second, the first one getting the fraction as well: so the shares add up to the last digit.
create function predictu_dispatch.rate_share_of(most double precision, daemons bigint, place bigint) returns double precision
language sql immutable parallel safe as $$
    select case place when 0 then most - (floor(most) - predictu_dispatch.share_of(floor(most)::integer, daemons, 0))
                      else predictu_dispatch.share_of(floor(most)::integer, daemons, place) end
$$;

-- What a daemon has from now on: no more than its share and than the others leave, but never less than it goes on using. `used` is
-- what it may fill until it hears the answer, so that what it gives back here is really free for another.
create function predictu_dispatch.granted(fair double precision, most double precision, others double precision, had double precision,
                                          used double precision)
returns double precision language sql immutable parallel safe as $$
    select greatest(least(fair, most - others), least(had, used), 0)
$$;

-- Says that this daemon is alive and what it goes on using; returns what it may use. Where `is_fair` is false a share is still to be
-- given back, by this daemon or to it, and it should announce itself again soon. Raises PD007 while another live daemon has its name.
create function predictu_dispatch.heartbeat(
    instance text, session_id uuid, host text, pid integer, version text, operator_ids text[], interactive_max integer[],
    settlement_max integer[], requests_per_s_max double precision[], interactive_used integer[], settlement_used integer[],
    requests_per_s_used double precision[]
) returns table (
    operator_id text, interactive_slots integer, settlement_slots integer, requests_per_s double precision, is_fair boolean
) language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
    moment timestamptz;
    silent_since timestamptz;
    other predictu_dispatch.daemon;
    is_here_long boolean;
begin
    -- One at a time: what one gives back, the next may take. Nobody holds this lock for longer than this function takes.
    perform pg_advisory_xact_lock(hashtext('predictu_dispatch.heartbeat'));
    moment := clock_timestamp();
    silent_since := moment - predictu_dispatch.heartbeat_timeout();
    select d.* into other from predictu_dispatch.daemon d
     where d.instance = heartbeat.instance and d.session_id <> heartbeat.session_id and d.seen_at > silent_since;
    if found then
        raise exception using errcode = 'PD007',
            message = format('another daemon called %s is running on host %s, process %s', quote_literal(instance), other.host, other.pid),
            hint = 'Give each daemon a name of its own: [daemon] instance in dispatcher.toml.';
    end if;
    update predictu_dispatch.daemon d
       set session_id = heartbeat.session_id, host = heartbeat.host, pid = heartbeat.pid, version = heartbeat.version, seen_at = moment,
           started_at = case d.session_id when heartbeat.session_id then d.started_at else moment end,
           here_since = case when d.seen_at > silent_since then d.here_since else moment end
     where d.instance = heartbeat.instance
    returning d.here_since < silent_since into is_here_long;
    if not found then
        insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, started_at, here_since, seen_at)
        values (instance, session_id, host, pid, version, moment, moment, moment);
    end if;
    if is_here_long then
        -- The gone ones have lost their shares. After an outage of the database all are silent, and whoever comes first must wait.
        delete from predictu_dispatch.share s
         where not exists (select from predictu_dispatch.daemon d where d.instance = s.instance and d.seen_at > silent_since);
        delete from predictu_dispatch.daemon d where d.seen_at < moment - interval '1 day';
    end if;
    delete from predictu_dispatch.share s where s.instance = heartbeat.instance and s.operator_id <> all (operator_ids);
    insert into predictu_dispatch.share as s (operator_id, instance, interactive_max, settlement_max, requests_per_s_max)
    select asked.operator_id, heartbeat.instance, asked.interactive_max, asked.settlement_max, asked.requests_per_s_max
      from unnest(operator_ids, heartbeat.interactive_max, heartbeat.settlement_max, heartbeat.requests_per_s_max)
           as asked (operator_id, interactive_max, settlement_max, requests_per_s_max)
    on conflict (operator_id, instance) do update
       set interactive_max = excluded.interactive_max, settlement_max = excluded.settlement_max,
           requests_per_s_max = excluded.requests_per_s_max
     where (s.interactive_max, s.settlement_max, s.requests_per_s_max)
           is distinct from (excluded.interactive_max, excluded.settlement_max, excluded.requests_per_s_max);

    return query
    with asked as (
        select * from unnest(operator_ids, interactive_used, settlement_used, requests_per_s_used)
                      as asked (operator_id, interactive_used, settlement_used, requests_per_s_used)
    ), divided as (
        select s.operator_id, count(*) filter (where d.instance is not null) as daemons,
               count(*) filter (where d.instance < heartbeat.instance) as place,
               coalesce(sum(s.interactive_slots) filter (where s.instance <> heartbeat.instance), 0) as others_interactive,
               coalesce(sum(s.settlement_slots) filter (where s.instance <> heartbeat.instance), 0) as others_settlement,
               coalesce(sum(s.requests_per_s) filter (where s.instance <> heartbeat.instance), 0) as others_per_s
          from predictu_dispatch.share s
          left join predictu_dispatch.daemon d on d.instance = s.instance and d.seen_at > silent_since
         where s.operator_id = any (operator_ids)
         group by s.operator_id
    ), fair as (
        select s.operator_id, predictu_dispatch.share_of(s.interactive_max, n.serving, v.place) as interactive,
               predictu_dispatch.share_of(s.settlement_max, n.serving, v.place) as settlement,
               predictu_dispatch.rate_share_of(nullif(s.requests_per_s_max, 0), n.serving, v.place) as per_s
          from predictu_dispatch.share s join divided v on v.operator_id = s.operator_id
         cross join lateral (select predictu_dispatch.serving(v.daemons, s.requests_per_s_max) as serving) n
         where s.instance = heartbeat.instance
    ), counted as (
        select s.operator_id,
               predictu_dispatch.granted(f.interactive, s.interactive_max, v.others_interactive, s.interactive_slots, a.interactive_used)::integer
                   as interactive_slots,
               predictu_dispatch.granted(f.settlement, s.settlement_max, v.others_settlement, s.settlement_slots, a.settlement_used)::integer
                   as settlement_slots,
               case when f.per_s is not null
                    then predictu_dispatch.granted(f.per_s, s.requests_per_s_max, v.others_per_s, coalesce(s.requests_per_s, 0),
                                                   coalesce(a.requests_per_s_used, s.requests_per_s_max)) end as requests_per_s
          from predictu_dispatch.share s
          join divided v on v.operator_id = s.operator_id
          join fair f on f.operator_id = s.operator_id
          join asked a on a.operator_id = s.operator_id
         where s.instance = heartbeat.instance
    ), written as (
        update predictu_dispatch.share s
           set interactive_slots = n.interactive_slots, settlement_slots = n.settlement_slots, requests_per_s = n.requests_per_s
          from counted n
         where s.operator_id = n.operator_id and s.instance = heartbeat.instance
           and (s.interactive_slots, s.settlement_slots, s.requests_per_s)
               is distinct from (n.interactive_slots, n.settlement_slots, n.requests_per_s)
    )
    -- What it still uses above its share it must not fill again.
    select n.operator_id, least(n.interactive_slots, f.interactive), least(n.settlement_slots, f.settlement),
           least(n.requests_per_s, f.per_s),
           (n.interactive_slots, n.settlement_slots, n.requests_per_s) is not distinct from (f.interactive, f.settlement, f.per_s)
      from counted n join fair f on f.operator_id = n.operator_id;
end $$;

-- This daemon stops: its shares are free at once.
create function predictu_dispatch.deregister(instance text, session_id uuid) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
begin
    perform pg_advisory_xact_lock(hashtext('predictu_dispatch.heartbeat'));
    delete from predictu_dispatch.daemon d where d.instance = deregister.instance and d.session_id = deregister.session_id;
    if found then
        delete from predictu_dispatch.share s where s.instance = deregister.instance;
    end if;
end $$;

-- Writes what a daemon has decided on operators that it saw at these revisions; returns those which were still so and which nobody
-- locked. The others it looks at again. Null keeps a time as it is; `ping_in_s` null plans no PING, `pings` starts one.
create function predictu_dispatch.write_circuits(
    operator_ids text[], revisions bigint[], circuits text[], healths text[], consecutive_failures integer[],
    success_s_ago double precision[], failure_s_ago double precision[], ping_in_s double precision[], pings boolean[],
    interactive_backoff_s double precision[], settlement_backoff_s double precision[]
) returns setof text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    named text;
begin
    perform predictu_dispatch.commit_durably();
    for named in
        with decided as (
            select * from unnest(operator_ids, revisions, circuits, healths, write_circuits.consecutive_failures, success_s_ago,
                                 failure_s_ago, ping_in_s, interactive_backoff_s, settlement_backoff_s)
                          as decided (operator_id, revision, circuit, health, consecutive_failures, success_s_ago, failure_s_ago,
                                      ping_in_s, interactive_backoff_s, settlement_backoff_s)
        ), locked as materialized (
            select o.operator_id from predictu_dispatch.operator o join decided d on d.operator_id = o.operator_id
             where o.revision = d.revision order by o.operator_id for no key update of o skip locked
        )
        update predictu_dispatch.operator o
           set circuit = d.circuit, health = d.health, consecutive_failures = d.consecutive_failures, revision = o.revision + 1,
               circuit_since = case when o.circuit = d.circuit or d.circuit = 'half_open' then o.circuit_since
                                    when o.circuit = 'half_open' and d.circuit = 'open' then o.circuit_since else now() end,
               last_success_at = greatest(o.last_success_at, now() - d.success_s_ago * interval '1 second'),
               last_failure_at = greatest(o.last_failure_at, now() - d.failure_s_ago * interval '1 second'),
               ping_at = now() + d.ping_in_s * interval '1 second',
               interactive_backoff_until = greatest(o.interactive_backoff_until, now() + d.interactive_backoff_s * interval '1 second'),
               settlement_backoff_until = greatest(o.settlement_backoff_until, now() + d.settlement_backoff_s * interval '1 second')
          from decided d, locked
         where o.operator_id = d.operator_id and locked.operator_id = d.operator_id
        returning o.operator_id
    loop
        if pings[array_position(operator_ids, named)] then
            perform predictu_dispatch.start_ping(named);
        end if;
        return next named;
    end loop;
end $$;

-- With the deadline in it: what is overdue stands at the head until it is ended, and each claim must pass by it without a look at the
-- table.
drop index predictu_dispatch.callback_due;
create index callback_due on predictu_dispatch.callback (operator_id, lane, due_at, (coalesce(expires_at, 'infinity'::timestamptz)))
    where state = 'ready';

-- As in 0005, with the operators that are to be left alone left out before any callback of theirs is looked at: paused, asked for by
-- a Retry-After, or with an open circuit. While that is half open, the one PING that decides may go.
create or replace function predictu_dispatch.claim(
    instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[],
    rollback_leases_s double precision[], amount_formats text[]
) returns table (
    operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer, effect text,
    reason text, params text, created_at timestamptz, due_at timestamptz, expires_in_s double precision, leased_at timestamptz,
    lease_s double precision, amount_format text, minor_digits integer, placement_ended_s_ago double precision
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    picked record;
begin
    perform predictu_dispatch.commit_durably();
    -- In a statement of its own: the planner cannot know that the limits below are small, and in one statement with the update it
    -- would sooner read the whole table than look up what was picked.
    with want as materialized (
        select want.*, o.circuit, o.ping_request_id
          from unnest(operator_ids, lanes, free_slots, leases_s, rollback_leases_s, amount_formats)
               as want (operator_id, lane, free_slots, lease_s, rollback_lease_s, amount_format)
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
                  and coalesce(c.expires_at, 'infinity') > now()
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

-- For each operator by itself, so that one operator's deadlines never wait for another's; and apart for what has a bet and what has
-- none, because each is looked for by itself, and must not walk over a hundred thousand of the other.
drop index predictu_dispatch.callback_expiring;
create index callback_expiring on predictu_dispatch.callback (operator_id, expires_at)
    where state = 'ready' and expires_at is not null and bet_id is null;
create index callback_of_bet_expiring on predictu_dispatch.callback (operator_id, expires_at)
    where state = 'ready' and expires_at is not null and bet_id is not null;
-- What somebody waits for, and what is therefore refused at once where nothing may be sent.
create index callback_awaited on predictu_dispatch.callback (operator_id, method, due_at)
    where state = 'ready' and method in ('BALANCE', 'BET_MAKE');

-- Ends callbacks that must not wait any longer: those whose deadline passed before an attempt or between two, and BALANCE and BET_MAKE
-- of an operator that is paused or whose circuit is not closed; the newest of these first, because someone is waiting. Of each
-- operator and kind at most `most` at once. What somebody holds is passed by and left to a later call: nobody's open transaction
-- keeps the others' deadlines from being kept.
create or replace function predictu_dispatch.expire(most integer) returns setof predictu_dispatch.change
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    locked record;
    ending record;
begin
    perform predictu_dispatch.commit_durably();
    -- The bets first, in a statement of their own, as in settle().
    select array_agg(b.operator_id) as operator_ids, array_agg(b.bet_id) as bet_ids into locked
      from (select distinct found.operator_id, found.bet_id
              from predictu_dispatch.operator o
             cross join lateral (
                 select * from (
                     select b.operator_id, b.bet_id
                       from predictu_dispatch.callback c
                    join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
                   where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now() and c.bet_id is not null
                   order by c.expires_at limit most
                     for no key update of b skip locked) picked
                 union all
                 select * from (
                     select b.operator_id, b.bet_id
                       from predictu_dispatch.callback c
                    join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
                   where (o.paused_at is not null or o.circuit <> 'closed')
                     and c.operator_id = o.operator_id and c.state = 'ready' and c.method = 'BET_MAKE'
                   order by c.due_at desc limit most
                     for no key update of b skip locked) picked
             ) found) b;
    -- As in claim(): found first, looked up then.
    select array_agg(e.operator_id) as operator_ids, array_agg(e.request_id) as request_ids, array_agg(e.reason) as reasons into ending
      from (
          select * from (
              select c.operator_id, c.request_id,
                     case when c.expires_at <= now() then 'deadline' when o.paused_at is null then 'circuit_open' else 'paused' end as reason
                from unnest(locked.operator_ids, locked.bet_ids) as named (operator_id, bet_id)
                join predictu_dispatch.operator o on o.operator_id = named.operator_id
                join predictu_dispatch.callback c on c.operator_id = named.operator_id and c.bet_id = named.bet_id
               where c.state = 'ready'
                 and (c.expires_at <= now() or (c.method = 'BET_MAKE' and (o.paused_at is not null or o.circuit <> 'closed')))
                 for no key update of c skip locked) of_bets
          union all
          select found.*
            from predictu_dispatch.operator o
           cross join lateral (
               select * from (
                   select c.operator_id, c.request_id, 'deadline' as reason
                     from predictu_dispatch.callback c
                    where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now() and c.bet_id is null
                    order by c.expires_at limit most
                      for no key update skip locked) overdue
               union all
               select * from (
                   select c.operator_id, c.request_id, case when o.paused_at is null then 'circuit_open' else 'paused' end
                     from predictu_dispatch.callback c
                    where (o.paused_at is not null or o.circuit <> 'closed')
                      and c.operator_id = o.operator_id and c.state = 'ready' and c.method = 'BALANCE'
                      and (c.expires_at is null or c.expires_at > now())
                    order by c.due_at desc limit most
                      for no key update skip locked) refused
           ) found
      ) e;
    if ending.request_ids is not null then
        return query
        update predictu_dispatch.callback c
           set state = 'exhausted', reason = e.reason, finished_at = clock_timestamp(),
               review_since = case when c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp() end
          from unnest(ending.operator_ids, ending.request_ids, ending.reasons) as e (operator_id, request_id, reason)
         where c.operator_id = e.operator_id and c.request_id = e.request_id
        returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'settled', null::integer;
    end if;
    if locked.bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(locked.operator_ids, locked.bet_ids);
    end if;
end $$;

-- What is not final yet, by operator, lane and state; each part reads one partial index, never the history. It may count millions,
-- so it does that on one core and without compiling anything: nobody waits for it, and others wait for the cores.
create function predictu_dispatch.backlog() returns table (
    operator_id text, lane text, state text, callbacks bigint, unknown_effect bigint, oldest_due_s double precision
) language sql stable set jit = off set max_parallel_workers_per_gather = 0 as $$
    select operator_id, lane, state, count(*) as callbacks, count(*) filter (where effect = 'unknown') as unknown_effect,
           extract(epoch from now() - min(due_at))::double precision as oldest_due_s
      from (
          select operator_id, lane, state, effect, due_at from predictu_dispatch.callback where state = 'ready'
          union all
          select operator_id, lane, state, effect, null from predictu_dispatch.callback where state = 'in_flight'
          union all
          select operator_id, lane, state, effect, null from predictu_dispatch.callback where state = 'waiting'
      ) unfinished
     group by operator_id, lane, state
$$;

-- As in 0005, where it is explained, but for one condition.
create or replace function predictu_dispatch.settle(reports predictu_dispatch.report[]) returns setof predictu_dispatch.change
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

-- A bet, and a callback, by its key. A function of its own is a look-up of its own, whatever the planner thinks of the tables' sizes.
create function predictu_dispatch.get_bet(operator_id text, bet_id text) returns setof predictu_dispatch.bet
language sql stable rows 1 set enable_seqscan = off as $$
    select b.* from predictu_dispatch.bet b where b.operator_id = get_bet.operator_id and b.bet_id = get_bet.bet_id
$$;

create function predictu_dispatch.get_callback(operator_id text, request_id uuid) returns setof predictu_dispatch.callback
language sql stable rows 1 set enable_seqscan = off as $$
    select c.* from predictu_dispatch.callback c
     where c.operator_id = get_callback.operator_id and c.request_id = get_callback.request_id
$$;

-- As in 0004, where it is explained, with each bet and callback looked up by its key.
create or replace function predictu_dispatch.advance_bets(operator_ids text[], bet_ids text[])
returns setof predictu_dispatch.change language plpgsql as $$
declare
    ended record;
    rollback_id uuid;
begin
    -- terminal delivered: closing → closed.
    update predictu_dispatch.bet b
       set state = 'closed', updated_at = clock_timestamp()
      from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
     cross join lateral predictu_dispatch.get_bet(named.operator_id, named.bet_id) known
     cross join lateral predictu_dispatch.get_callback(named.operator_id, known.terminal_request_id) terminal
     where b.operator_id = named.operator_id and b.bet_id = named.bet_id
       and known.state = 'closing' and terminal.state = 'delivered';

    -- BET_MAKE delivered: placing → open, or at once → closing where a terminal waits, which becomes ready.
    update predictu_dispatch.bet b
       set updated_at = clock_timestamp(), state = case when exists (
               select from predictu_dispatch.callback terminal
                where terminal.operator_id = b.operator_id and terminal.request_id = b.terminal_request_id and terminal.state = 'waiting'
           ) then 'closing' else 'open' end
      from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
     cross join lateral predictu_dispatch.get_bet(named.operator_id, named.bet_id) known
     cross join lateral predictu_dispatch.get_callback(named.operator_id, known.placement_request_id) placement
     where b.operator_id = named.operator_id and b.bet_id = named.bet_id
       and known.state = 'placing' and placement.state = 'delivered';

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
            -- The debit's fate is unknown, and its rollback waits already: → closing; it is released below.
            update predictu_dispatch.bet b set state = 'closing', updated_at = clock_timestamp()
             where b.operator_id = (ended.bet).operator_id and b.bet_id = (ended.bet).bet_id;
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

    -- What waited for its bet to be closing may go now.
    return query
    update predictu_dispatch.callback terminal
       set state = 'ready', due_at = clock_timestamp()
      from (select named.operator_id, known.request_id
              from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
             cross join lateral predictu_dispatch.get_bet(named.operator_id, named.bet_id) b
             cross join lateral predictu_dispatch.get_callback(named.operator_id, b.terminal_request_id) known
             where b.state = 'closing' and known.state = 'waiting'
            -- Found before it is updated: joined the other way round, each bet would look through all its operator's callbacks.
            offset 0) released
     where terminal.operator_id = released.operator_id and terminal.request_id = released.request_id
    returning terminal.operator_id, terminal.request_id, terminal.method, terminal.lane, terminal.state, terminal.reason, 'released',
              null::integer;
end $$;

-- These look up a few rows by their keys. What the planner knows of a young or lopsided database makes reading a whole table, once for
-- each operator, look cheaper; and a plan made while the tables were small is kept for as long as a daemon's connection lives.
do $$
declare
    name regprocedure;
begin
    for name in select p.oid from pg_proc p
                 where p.pronamespace = 'predictu_dispatch'::regnamespace
                   and p.proname in ('claim', 'settle', 'expire', 'advance_bets', 'guard_bet')
    loop
        execute format('alter function %s set enable_seqscan = off', name);
        execute format('alter function %s set jit = off', name);
    end loop;
end $$;
alter function predictu_dispatch.expire(integer) set plan_cache_mode = force_custom_plan;
alter function predictu_dispatch.advance_bets(text[], text[]) set enable_hashjoin = off;
alter function predictu_dispatch.advance_bets(text[], text[]) set enable_mergejoin = off;

-- As in 0005, but it waits for no row that somebody holds, and touches none that stays as it is. Returns the operators that it could
-- not write because somebody holds them.
drop function predictu_dispatch.sync_operators(text[], boolean[], double precision[], double precision[], text[]);
create function predictu_dispatch.sync_operators(
    operator_ids text[], enabled boolean[], interactive_deadlines_s double precision[], settlement_deadlines_s double precision[],
    fingerprints text[]
) returns setof text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    insert into predictu_dispatch.operator
        (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)
    select * from unnest(operator_ids, sync_operators.enabled, interactive_deadlines_s, settlement_deadlines_s, fingerprints) order by 1
    on conflict (operator_id) do nothing;
    return query
    with given as (
        select * from unnest(operator_ids, sync_operators.enabled, interactive_deadlines_s, settlement_deadlines_s, fingerprints)
                      as given (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, fingerprint)
    ), differing as (
        select given.* from given join predictu_dispatch.operator o on o.operator_id = given.operator_id
         where (o.enabled, o.interactive_deadline_s, o.settlement_deadline_s, o.config_fingerprint)
               is distinct from (given.enabled, given.interactive_deadline_s, given.settlement_deadline_s, given.fingerprint)
    ), locked as materialized (
        select o.operator_id from predictu_dispatch.operator o join differing on differing.operator_id = o.operator_id
         order by o.operator_id for no key update of o skip locked
    ), written as (
        update predictu_dispatch.operator o
           set enabled = differing.enabled, interactive_deadline_s = differing.interactive_deadline_s,
               settlement_deadline_s = differing.settlement_deadline_s, config_fingerprint = differing.fingerprint, updated_at = now()
          from differing, locked
         where o.operator_id = differing.operator_id and locked.operator_id = differing.operator_id
        returning o.operator_id
    )
    select differing.operator_id from differing where differing.operator_id not in (select written.operator_id from written);
end $$;

revoke all on all functions in schema predictu_dispatch from public;
grant execute on function
    predictu_dispatch.heartbeat(text, uuid, text, integer, text, text[], integer[], integer[], double precision[], integer[], integer[],
                               double precision[]),
    predictu_dispatch.deregister(text, uuid),
    predictu_dispatch.write_circuits(text[], bigint[], text[], text[], integer[], double precision[], double precision[],
                                     double precision[], boolean[], double precision[], double precision[])
    to predictu_dispatcher;
grant execute on function predictu_dispatch.sync_operators(text[], boolean[], double precision[], double precision[], text[])
    to predictu_dispatcher;
grant execute on function predictu_dispatch.heartbeat_timeout(), predictu_dispatch.backlog() to predictu_dispatcher, predictu_support;
grant select on predictu_dispatch.daemon, predictu_dispatch.share to predictu_dispatcher, predictu_support;
