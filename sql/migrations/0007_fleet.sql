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
    -- 0 where the operator's rate is not limited.
    requests_per_s      double precision not null default 0 check (requests_per_s >= 0),
    -- The limits as this daemon's file says them, over the whole fleet.
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
    add column interactive_held_until  timestamptz,
    add column settlement_held_until   timestamptz,
    -- A maintenance window: nothing is sent.
    add column paused_at               timestamptz,
    add column paused_by               text,
    add column pause_reason            text,
    add check ((paused_at is null) = (paused_by is null) and (paused_at is null) = (pause_reason is null));

-- A daemon that was not seen for so long counts as gone.
create function predictu_dispatch.silence_allowed() returns interval language sql immutable parallel safe as $$
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
        (old.circuit, old.paused_at, old.interactive_held_until, old.settlement_held_until, old.enabled)
        is distinct from (new.circuit, new.paused_at, new.interactive_held_until, new.settlement_held_until, new.enabled)
    ) execute function predictu_dispatch.notify_operator();

-- A PING for the operator through the ordinary way: the one that is under way already, or a new one. The caller holds the
-- operator's row. While the circuit is open it is the PING that decides (half_open).
create function predictu_dispatch.start_ping(operator_id text) returns uuid language plpgsql as $$
#variable_conflict use_variable
declare
    known predictu_dispatch.operator;
    id uuid := gen_random_uuid();
begin
    select o.* into known from predictu_dispatch.operator o where o.operator_id = operator_id for no key update;
    if exists (select from predictu_dispatch.callback c
                where c.operator_id = operator_id and c.request_id = known.ping_request_id and c.state in ('ready', 'in_flight')) then
        return known.ping_request_id;
    end if;
    insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params, expires_at)
    values (operator_id, id, 'PING', 'interactive', 'ready', '{}',
            clock_timestamp() + nullif(known.interactive_deadline_s, 0) * interval '1 second');
    update predictu_dispatch.operator o
       set ping_request_id = id, revision = o.revision + 1,
           circuit = case o.circuit when 'open' then 'half_open' else o.circuit end
     where o.operator_id = operator_id;
    perform pg_notify('predictu_dispatch_due', operator_id);
    return id;
end $$;
