-- compatible_from: 0001
-- The tables, types, indexes and roles. Functions, triggers and views are in sql/functions/.
--
-- Every primary and unique key begins with operator_id, so that the schema can be distributed by
-- operator; reference tables are excepted. States are text with CHECK. Amounts are in subunits.

create schema if not exists predictu_dispatch;

-- Roles belong to the whole server. They may exist already, and another database's migration may
-- create them at the same time.
do $$
declare
    role text;
begin
    foreach role in array array['predictu_producer', 'predictu_dispatcher', 'predictu_support', 'predictu_retention'] loop
        begin
            if not exists (select from pg_roles where rolname = role) then
                execute format('create role %I nologin', role);
            end if;
        exception when duplicate_object or unique_violation then
            null;
        end;
    end loop;
end $$;

-- The applied migrations. No key: it is read whole.
create table predictu_dispatch.schema_migration (
    version          integer not null,
    name             text not null,
    sha256           text not null,
    -- The oldest release, named by the last migration that it has, that may run on the schema.
    compatible_from  integer not null,
    applied_at       timestamptz not null default now()
);

-- The files of sql/functions/ as they were last applied. No key: it is read whole.
create table predictu_dispatch.schema_function (
    name        text not null,
    sha256      text not null,
    applied_at  timestamptz not null default now()
);

create table predictu_dispatch.operator (
    operator_id                text primary key check (operator_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    enabled                    boolean not null,
    -- Seconds from enqueueing; 0 means that the lane has no deadline.
    interactive_deadline_s     double precision not null check (interactive_deadline_s >= 0),
    settlement_deadline_s      double precision not null check (settlement_deadline_s >= 0),
    config_fingerprint         text not null,
    health                     text not null default 'unknown' check (health in ('unknown', 'healthy', 'degraded', 'down')),
    circuit                    text not null default 'closed' check (circuit in ('closed', 'open', 'half_open')),
    -- When the circuit last changed; null if it was never open.
    circuit_since              timestamptz,
    consecutive_failures       integer not null default 0 check (consecutive_failures >= 0),
    last_success_at            timestamptz,
    last_failure_at            timestamptz,
    -- When the next PING is due; null if none is planned. While the circuit is open, it decides.
    ping_at                    timestamptz,
    ping_request_id            uuid,
    -- From Retry-After, by lane.
    interactive_backoff_until  timestamptz,
    settlement_backoff_until   timestamptz,
    -- A maintenance window: nothing is sent.
    paused_at                  timestamptz,
    paused_by                  text,
    pause_reason               text,
    -- Raised by every write of circuit, PING, backoff or pause: a daemon that decided on an older
    -- revision writes nothing.
    revision                   bigint not null default 0,
    updated_at                 timestamptz not null default now(),
    check ((paused_at is null) = (paused_by is null) and (paused_at is null) = (pause_reason is null))
);

create table predictu_dispatch.bet (
    operator_id           text not null,
    bet_id                text not null check (length(bet_id) between 1 and 200),
    state                 text not null check (state in ('placing', 'open', 'closing', 'closed', 'void')),
    player_id             text not null,
    currency              text not null,
    amount                bigint not null check (amount > 0),
    -- No callback has this id if the bet was adopted, because this system never sent its placement.
    placement_request_id  uuid not null,
    -- The terminal callback that counts; a cancelled one stays here until another takes its place.
    terminal_request_id   uuid,
    created_at            timestamptz not null default clock_timestamp(),
    updated_at            timestamptz not null default clock_timestamp(),
    primary key (operator_id, bet_id),
    -- The operator knows a debit by this id: two bets with one placement would be rolled back
    -- twice.
    unique (operator_id, placement_request_id),
    check (state not in ('closing', 'closed') or terminal_request_id is not null)
)
-- A bet moves three times and no index has a column that moves. With free space on its page a move
-- stays there and writes no index.
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000,
      autovacuum_analyze_scale_factor = 0.02);

-- The outbox.
create table predictu_dispatch.callback (
    operator_id              text not null,
    request_id               uuid not null,
    method                   text not null check (method in ('PING', 'BALANCE', 'BET_MAKE', 'BET_WIN', 'BET_LOSE',
                                                             'BET_SELL', 'BET_REFUND', 'BET_ROLLBACK')),
    bet_id                   text,
    lane                     text not null check (lane in ('interactive', 'settlement')),
    state                    text not null check (state in ('waiting', 'ready', 'in_flight', 'delivered', 'rejected',
                                                            'exhausted', 'cancelled')),
    reason                   text,
    effect                   text not null default 'none' check (effect in ('none', 'unknown', 'applied')),
    attempts                 integer not null default 0,
    -- Attempts made before the last retry by a person: the budget of max_attempts counts from here.
    budget_from              integer not null default 0,
    -- True if rollback_bet() found this placement in flight: no further attempt follows.
    retry_stopped            boolean not null default false,
    params                   jsonb not null,
    -- Set by the first claim: every attempt sends the same bytes, also after a change of the
    -- operator's file.
    amount_format            text check (amount_format in ('subunits', 'decimal')),
    created_at               timestamptz not null default clock_timestamp(),
    due_at                   timestamptz not null default clock_timestamp(),
    expires_at               timestamptz,
    leased_at                timestamptz,
    leased_by                text,
    lease_until              timestamptz,
    finished_at              timestamptz,
    operator_status          text,
    operator_transaction_id  text,
    balance                  bigint,
    anomaly                  text,
    -- Since when it needs manual review; null if it needs none.
    review_since             timestamptz,
    -- The reason that a producer or a person gave.
    note                     text,
    primary key (operator_id, request_id),
    foreign key (operator_id, bet_id) references predictu_dispatch.bet (operator_id, bet_id),
    check ((bet_id is null) = (method in ('PING', 'BALANCE'))),
    check (lane = case when method in ('PING', 'BALANCE', 'BET_MAKE', 'BET_ROLLBACK') then 'interactive' else 'settlement' end),
    check (state <> 'waiting' or method not in ('PING', 'BALANCE', 'BET_MAKE')),
    check ((state = 'in_flight') = (lease_until is not null)),
    check ((state in ('delivered', 'rejected', 'exhausted', 'cancelled')) = (finished_at is not null)),
    check (state not in ('in_flight', 'delivered', 'rejected') or attempts > 0),
    check (state <> 'delivered' or effect = 'applied' or reason = 'nothing_to_reverse'),
    check (attempts >= budget_from and budget_from >= 0),
    check (review_since is null or state in ('rejected', 'exhausted', 'cancelled') or reason = 'nothing_to_reverse'),
    -- A cancelled terminal makes room for another one and may reopen its bet, so it must never have
    -- reached the operator.
    constraint cancelled_never_attempted check (state <> 'cancelled' or attempts = 0)
)
-- Every move of a callback changes its indexes and leaves dead rows and entries. Autovacuum removes
-- them after a fiftieth of the table instead of a fifth, so that a short queue stays cheap to read.
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0.02);

-- One placement and one terminal that is not cancelled for each bet; also used to find a bet's
-- callbacks.
create unique index callback_of_bet on predictu_dispatch.callback (operator_id, bet_id, (
    case when state = 'cancelled' then null when method = 'BET_MAKE' then 'placement' else 'terminal' end
)) where bet_id is not null;
-- claim() reads the head of this index for each operator and lane, so a backlog of one operator
-- costs the others nothing. The deadline is in it, because a claim must skip overdue entries
-- without reading the table.
create index callback_due on predictu_dispatch.callback
    (operator_id, lane, due_at, (coalesce(expires_at, 'infinity'::timestamptz))) where state = 'ready';
create index callback_waiting on predictu_dispatch.callback (operator_id, lane) where state = 'waiting';
create index callback_leased on predictu_dispatch.callback (lease_until) where state = 'in_flight';
-- By operator, so that deadlines of one never wait for another. Callbacks with and without a bet
-- are apart, because expire() looks for each kind by itself and must not read the other's entries.
create index callback_expiring on predictu_dispatch.callback (operator_id, expires_at)
    where state = 'ready' and expires_at is not null and bet_id is null;
create index callback_of_bet_expiring on predictu_dispatch.callback (operator_id, expires_at)
    where state = 'ready' and expires_at is not null and bet_id is not null;
-- Callbacks that end at once while nothing may be sent, because their callers wait.
create index callback_awaited on predictu_dispatch.callback (operator_id, method, due_at)
    where state = 'ready' and method in ('BALANCE', 'BET_MAKE');
create index callback_in_review on predictu_dispatch.callback (operator_id, review_since) where review_since is not null;

-- The audit: one row for each attempt that was decided, and one for each late answer.
create table predictu_dispatch.attempt (
    operator_id         text not null,
    request_id          uuid not null,
    method              text not null,
    attempt             integer not null check (attempt > 0),
    evidence            text not null check (evidence in ('not_sent', 'unanswered', 'answered')),
    verdict             text not null check (verdict in ('delivered', 'rejected', 'retry', 'late')),
    reason              text,
    instance            text not null,
    -- The time of the claim on the database's clock: equal in all rows of one attempt, so that the
    -- unique index below holds.
    started_at          timestamptz not null,
    finished_at         timestamptz not null,
    url                 text,
    key_id              text,
    request_headers     jsonb,
    request_body        text,
    response_status     integer,
    -- An array of [name, value] in the order received, because a name may occur twice.
    response_headers    jsonb,
    -- Bytes as received: an answer need not be text.
    response_body       bytea,
    response_truncated  boolean not null default false,
    connect_ms          double precision,
    first_byte_ms       double precision,
    total_ms            double precision,
    error               text,
    -- Identifies a daemon's report, so that a settle repeated after a lost connection writes no
    -- second row.
    report_id           uuid not null
) partition by range (started_at);

-- Exactly one row decides an attempt; late answers stand beside it, one for each report.
create unique index attempt_decided on predictu_dispatch.attempt
    (operator_id, request_id, attempt, started_at, (case when verdict = 'late' then report_id end)) nulls not distinct;

-- Takes the rows of a month that has no partition, so that no audit row is ever refused.
create table predictu_dispatch.attempt_default partition of predictu_dispatch.attempt default;

-- The live daemons. No key: it is not distributed by operator, and heartbeat() writes it under a
-- lock.
create table predictu_dispatch.daemon (
    instance        text not null,
    -- Generated by each process: distinguishes two processes with the same instance.
    session_id      uuid not null,
    host            text not null,
    pid             integer not null,
    version         text not null,
    -- The last migration that its release has: `migrate` refuses to leave a running daemon behind.
    schema_version  integer not null,
    started_at      timestamptz not null default clock_timestamp(),
    -- Since when it has sent heartbeats without a gap: a daemon that was silent itself cannot know
    -- that the others have stopped.
    present_since   timestamptz not null default clock_timestamp(),
    seen_at         timestamptz not null default clock_timestamp()
);

-- What each daemon may use of an operator's limits. The sum over the daemons never exceeds the
-- limit: no daemon takes a share that another has not returned, or lost by silence.
create table predictu_dispatch.share (
    operator_id         text not null,
    instance            text not null,
    interactive_slots   integer not null default 0 check (interactive_slots >= 0),
    settlement_slots    integer not null default 0 check (settlement_slots >= 0),
    -- Null if the operator's rate is not limited.
    requests_per_s      double precision check (requests_per_s >= 0),
    -- The limits of the whole fleet as this daemon's file has them; a rate of 0 is no limit.
    interactive_max     integer not null,
    settlement_max      integer not null,
    requests_per_s_max  double precision not null,
    primary key (operator_id, instance)
);

-- Maintenance that one daemon at a time does for all; see claim_chore(). A reference table of three
-- rows: a chore concerns all operators.
create table predictu_dispatch.maintenance_chore (
    chore       text primary key check (chore in ('partitions', 'reap', 'backlog')),
    due_at      timestamptz not null default now(),
    claimed_by  text,
    claimed_at  timestamptz,
    -- What the chore found, for all daemons; see fleet_figures().
    result      jsonb,
    result_at   timestamptz
);
insert into predictu_dispatch.maintenance_chore (chore) values ('partitions'), ('reap'), ('backlog');

-- What people did.
create table predictu_dispatch.intervention (
    operator_id      text not null,
    intervention_id  uuid not null default gen_random_uuid(),
    -- Null if it concerns the operator itself.
    request_id       uuid,
    action           text not null check (action in ('pause', 'resume', 'retry', 'cancel', 'resolve')),
    reason           text,
    -- Who, as the command says: a login name and a host, or the value of --by.
    done_by          text not null,
    -- Who, as the database knows: the login role of the session.
    database_role    text not null default session_user,
    done_at          timestamptz not null default clock_timestamp(),
    primary key (operator_id, intervention_id),
    check ((request_id is null) = (action in ('pause', 'resume'))),
    check (reason is not null or action in ('resume', 'retry'))
);
create index intervention_of_callback on predictu_dispatch.intervention (operator_id, request_id, done_at)
    where request_id is not null;

-- What remains of a removed callback: its id stays taken and repeating it stays harmless, for ever.
-- An operator that forgets earlier than we do never gets a second debit, and one that forgets later
-- never takes a new callback for an old one.
create table predictu_dispatch.request_tombstone (
    operator_id  text not null,
    request_id   uuid not null,
    method       text not null,
    -- See params_digest(). Null, as state and effect, for the placement of an adopted bet.
    content      bytea check (octet_length(content) = 16),
    state        text,
    reason       text,
    effect       text,
    removed_at   timestamptz not null default now(),
    primary key (operator_id, request_id)
);

-- What remains of a removed bet: its bet_id is never used again.
create table predictu_dispatch.bet_tombstone (
    operator_id  text not null,
    bet_id       text not null,
    state        text not null,
    removed_at   timestamptz not null default now(),
    primary key (operator_id, bet_id)
);

-- How far purge_finished() has read the table of callbacks. No key: it has one row.
create table predictu_dispatch.purge_cursor (
    cutoff      timestamptz not null,
    -- Null after the end was reached.
    next_block  bigint,
    -- Bets and callbacks that were skipped because they were locked.
    locked      bigint not null default 0
);

-- How far purge_audit() has read each partition. No key: one transaction at a time writes it.
create table predictu_dispatch.audit_purge_cursor (
    part        text not null,
    -- The table that is read, so that what was read of one is never assumed of another of its name.
    source      oid not null,
    -- Null after the end was reached.
    next_block  bigint,
    scanned     bigint not null default 0,
    needed      bigint not null default 0,
    moved_at    timestamptz not null default now()
);

-- What settle(), expire() and advance_bets() changed, for the daemon's metrics and to wake its
-- lanes.
create type predictu_dispatch.change as (
    operator_id text, request_id uuid, method text, lane text, state text, reason text,
    -- Of a report, which has its attempt number: settled, late, repeated, locked.
    -- Of a callback that changed with its bet: released, cancelled, rolled_back.
    cause text, attempt integer
);

-- A daemon's report of one attempt: the fence (operator_id, request_id, attempt), the callback's
-- new state, and the audit row.
create type predictu_dispatch.report as (
    operator_id text, request_id uuid, attempt integer, bet_id text,
    -- The callback's new state: delivered, rejected, ready (due again after due_in_s) or exhausted.
    state text, state_reason text, effect text, due_in_s double precision,
    operator_status text, operator_transaction_id text, balance bigint, anomaly text,
    -- True if a reaper reports for a daemon that stopped: if the fence is lost, nothing is written.
    reaped boolean,
    method text, evidence text, verdict text, reason text, instance text, started_at timestamptz,
    finished_at timestamptz, url text, key_id text, request_headers text, request_body text,
    response_status integer, response_headers text, response_body bytea, response_truncated boolean,
    connect_ms double precision, first_byte_ms double precision, total_ms double precision, error text,
    report_id uuid
);

-- Producers may call functions and read nothing. Retention reads its cursor. Daemons and support
-- read; daemons write through functions only.
revoke all on all tables in schema predictu_dispatch from public;
grant usage on schema predictu_dispatch to predictu_producer, predictu_dispatcher, predictu_support, predictu_retention;
grant select on predictu_dispatch.schema_migration, predictu_dispatch.purge_cursor
    to predictu_dispatcher, predictu_support, predictu_retention;
grant select on predictu_dispatch.operator, predictu_dispatch.bet, predictu_dispatch.callback, predictu_dispatch.attempt,
    predictu_dispatch.daemon, predictu_dispatch.share, predictu_dispatch.intervention,
    predictu_dispatch.request_tombstone, predictu_dispatch.bet_tombstone
    to predictu_dispatcher, predictu_support;
