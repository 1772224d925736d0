-- The outbox, the bets, the operators and the audit.
--
-- Every primary and unique key begins with operator_id, so that the schema can be distributed by operator without a change.
-- States are text with CHECK; the allowed moves between them stand in 0002_guards.sql. Amounts are always subunits.

create table predictu_dispatch.operator (
    operator_id             text primary key check (operator_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    enabled                 boolean not null,
    -- Seconds from enqueueing; 0 means that callbacks of the lane do not expire by themselves.
    interactive_deadline_s  double precision not null check (interactive_deadline_s >= 0),
    settlement_deadline_s   double precision not null check (settlement_deadline_s >= 0),
    health                  text not null default 'unknown' check (health in ('unknown', 'healthy', 'degraded', 'down')),
    circuit                 text not null default 'closed' check (circuit in ('closed', 'open', 'half_open')),
    consecutive_failures    integer not null default 0 check (consecutive_failures >= 0),
    last_success_at         timestamptz,
    last_failure_at         timestamptz,
    config_fingerprint      text not null,
    updated_at              timestamptz not null default now()
);

create table predictu_dispatch.bet (
    operator_id           text not null,
    bet_id                text not null check (length(bet_id) between 1 and 200),
    state                 text not null check (state in ('placing', 'open', 'closing', 'closed', 'void')),
    player_id             text not null,
    currency              text not null,
    amount                bigint not null check (amount > 0),
    -- An adopted bet has a placement that this system never sent: then no callback of this id exists.
    placement_request_id  uuid not null,
    -- The terminal callback that counts; a cancelled one stays named here until another takes its place.
    terminal_request_id   uuid,
    created_at            timestamptz not null default clock_timestamp(),
    updated_at            timestamptz not null default clock_timestamp(),
    primary key (operator_id, bet_id),
    -- The operator knows a debit by this id: two bets with one placement would be one debit, given back twice.
    unique (operator_id, placement_request_id),
    check (state not in ('closing', 'closed') or terminal_request_id is not null)
);

create table predictu_dispatch.callback (
    operator_id              text not null,
    request_id               uuid not null,
    method                   text not null check (method in ('PING', 'BALANCE', 'BET_MAKE', 'BET_WIN', 'BET_LOSE', 'BET_SELL',
                                                             'BET_REFUND', 'BET_ROLLBACK')),
    bet_id                   text,
    lane                     text not null check (lane in ('interactive', 'settlement')),
    state                    text not null check (state in ('waiting', 'ready', 'in_flight', 'delivered', 'rejected', 'exhausted',
                                                            'cancelled')),
    reason                   text,
    effect                   text not null default 'none' check (effect in ('none', 'unknown', 'applied')),
    attempts                 integer not null default 0,
    -- Attempts made before the last re-drive: the budget of max_attempts counts from here.
    budget_from              integer not null default 0,
    -- True once rollback_bet() has met this placement in flight: whatever that attempt brings, there is no other.
    retry_stopped            boolean not null default false,
    params                   jsonb not null,
    -- Fixed by the first claim: the body must be the same bytes on every attempt, also after the operator's file has changed.
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
    -- Since when a person must look at it; null where nobody must.
    review_since             timestamptz,
    -- What a producer or a person said of it, in words.
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
    check (review_since is null or state in ('rejected', 'exhausted', 'cancelled') or reason = 'nothing_to_reverse')
);

-- One placement and one terminal that is not cancelled for each bet, whatever anybody does; also the way from a bet to its callbacks.
create unique index callback_of_bet on predictu_dispatch.callback (operator_id, bet_id, (
    case when state = 'cancelled' then null when method = 'BET_MAKE' then 'placement' else 'terminal' end
)) where bet_id is not null;
-- The claim reads the head of this index for each operator and lane by itself, so one operator's backlog costs another nothing.
create index callback_due on predictu_dispatch.callback (operator_id, lane, due_at) where state = 'ready';
create index callback_waiting on predictu_dispatch.callback (operator_id, lane) where state = 'waiting';
create index callback_leased on predictu_dispatch.callback (lease_until) where state = 'in_flight';
create index callback_expiring on predictu_dispatch.callback (expires_at) where state = 'ready' and expires_at is not null;
create index callback_in_review on predictu_dispatch.callback (operator_id, review_since) where review_since is not null;

create table predictu_dispatch.attempt (
    operator_id         text not null,
    request_id          uuid not null,
    method              text not null,
    attempt             integer not null check (attempt > 0),
    evidence            text not null check (evidence in ('not_sent', 'unanswered', 'answered')),
    verdict             text not null check (verdict in ('delivered', 'rejected', 'retry', 'late')),
    reason              text,
    instance            text not null,
    -- The moment of the claim, on the database's clock: the same in every row of one attempt, which makes the key below hold.
    started_at          timestamptz not null,
    finished_at         timestamptz not null,
    url                 text,
    key_id              text,
    request_headers     jsonb,
    request_body        text,
    response_status     integer,
    -- An array of [name, value] in the order received, because a name may come twice.
    response_headers    jsonb,
    -- Bytes as they came: an answer need not be text.
    response_body       bytea,
    response_truncated  boolean not null default false,
    connect_ms          double precision,
    first_byte_ms       double precision,
    total_ms            double precision,
    error               text,
    -- Names the report of one daemon, so that a settle repeated after a broken connection writes no second row.
    report_id           uuid not null
) partition by range (started_at);

-- Exactly one row decides an attempt; late answers to it stand beside it, one for each report.
create unique index attempt_decided on predictu_dispatch.attempt
    (operator_id, request_id, attempt, started_at, (case when verdict = 'late' then report_id end)) nulls not distinct;

-- No audit row is ever refused for want of a partition: what no month takes lands here.
create table predictu_dispatch.attempt_default partition of predictu_dispatch.attempt default;

create view predictu_dispatch.needs_review as
select request_id, operator_id, method, bet_id, state, effect, (params ->> 'amount')::bigint as amount, review_since as since,
       case
           when state = 'delivered'
               then 'The operator once confirmed the debit, and now knows of none to reverse: the player may be owed the stake.'
           when state = 'rejected'
               then format('The operator refused it with %s; it is not retried by itself.', coalesce(operator_status, reason))
                    || case effect when 'unknown' then ' An earlier attempt may have been applied all the same.' else '' end
           when state = 'cancelled'
               then 'Its bet''s placement has an unknown fate and is being rolled back, so this must not be sent any more.'
           when reason = 'deadline' and effect = 'unknown'
               then 'Its deadline passed; whether the operator applied it is not known.'
           when reason = 'deadline'
               then 'Its deadline passed and the operator has certainly not applied it.'
           when effect = 'unknown'
               then format('It was tried %s times; whether the operator applied it is not known.', attempts)
           else format('It was tried %s times and the operator has certainly not applied it.', attempts)
       end as reason
from predictu_dispatch.callback
where review_since is not null;
