-- compatible_from: 0001
-- A move of a callback writes less WAL: what moves is at the end of the row, and its page has space
-- for the new version. Postgres then logs only what is between the first and the last byte that
-- changed. The checks of a row move from CHECK constraints, which each statement parses again, to
-- guard_callback().
--
-- The table of callbacks is written again, under a lock: producers and daemons wait meanwhile.

-- In the order in which all programs lock them.
lock table predictu_dispatch.bet in share row exclusive mode;
lock table predictu_dispatch.callback in access exclusive mode;

-- They name the table's row type; the files are applied again below.
drop view if exists predictu_dispatch.needs_review;
drop function if exists predictu_dispatch.get_callback(text, uuid);
drop function if exists predictu_dispatch.why_not_in_review(predictu_dispatch.callback);
drop function if exists predictu_dispatch.refuse_intervention(text, predictu_dispatch.callback, text, text);
drop function if exists predictu_dispatch.lock_callback(text, text, uuid);
drop function if exists predictu_dispatch.cancel_callback(text, uuid, text, text);
drop function if exists predictu_dispatch.retry_callback(text, uuid, text);
drop function if exists predictu_dispatch.resolve_callback(text, uuid, text, text);
-- The last four have triggers of the table.
delete from predictu_dispatch.schema_function
 where name in ('views/needs_review.sql', 'bets/get_callback.sql', 'interventions/why_not_in_review.sql',
                'interventions/refuse_intervention.sql', 'interventions/lock_callback.sql',
                'interventions/cancel_callback.sql', 'interventions/retry_callback.sql',
                'interventions/resolve_callback.sql', 'guards/guard_ready.sql', 'guards/refuse_delete.sql',
                'dispatch/notify_due.sql', 'dispatch/notify_outcome.sql');

alter table predictu_dispatch.callback rename to callback_before;
-- The names are used again.
do $$
declare
    used record;
begin
    for used in select conname from pg_constraint where conrelid = 'predictu_dispatch.callback_before'::regclass loop
        execute format('alter table predictu_dispatch.callback_before rename constraint %I to %I', used.conname,
                       'before_' || used.conname);
    end loop;
end $$;

-- The outbox. First what never moves, then what a claim or a retry moves, then what a settlement
-- moves. Values and their combinations are checked by guard_callback().
create table predictu_dispatch.callback (
    operator_id              text not null,
    request_id               uuid not null,
    method                   text not null,
    bet_id                   text,
    lane                     text not null,
    params                   jsonb not null,
    created_at               timestamptz not null default clock_timestamp(),
    expires_at               timestamptz,
    -- Attempts made before the last retry by a person: the budget of max_attempts counts from here.
    budget_from              integer not null default 0,
    -- True if rollback_bet() found this placement in flight: no further attempt follows.
    retry_stopped            boolean not null default false,
    -- The reason that a producer or a person gave.
    note                     text,
    due_at                   timestamptz not null default clock_timestamp(),
    -- Set by the first claim: every attempt sends the same bytes, also after a change of the
    -- operator's file.
    amount_format            text,
    leased_at                timestamptz,
    leased_by                text,
    attempts                 integer not null default 0,
    state                    text not null,
    effect                   text not null default 'none',
    lease_until              timestamptz,
    finished_at              timestamptz,
    reason                   text,
    operator_status          text,
    operator_transaction_id  text,
    balance                  bigint,
    anomaly                  text,
    -- Since when it needs manual review; null if it needs none.
    review_since             timestamptz
)
-- A new version of a row that stays on its page is logged as its difference. Half of a page is left
-- for them, because consecutive callbacks are claimed at once. Autovacuum removes dead rows and
-- index entries after a fiftieth of the table instead of a fifth, so that a short queue stays cheap
-- to read.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000,
      autovacuum_analyze_scale_factor = 0.02);

insert into predictu_dispatch.callback (
    operator_id, request_id, method, bet_id, lane, params, created_at, expires_at, budget_from, retry_stopped, note, due_at,
    amount_format, leased_at, leased_by, attempts, state, effect, lease_until, finished_at, reason, operator_status,
    operator_transaction_id, balance, anomaly, review_since)
select operator_id, request_id, method, bet_id, lane, params, created_at, expires_at, budget_from, retry_stopped, note, due_at,
       amount_format, leased_at, leased_by, attempts, state, effect, lease_until, finished_at, reason, operator_status,
       operator_transaction_id, balance, anomaly, review_since
  from predictu_dispatch.callback_before;
drop table predictu_dispatch.callback_before;
drop function if exists predictu_dispatch.guard_callback_move();

alter table predictu_dispatch.callback
    add primary key (operator_id, request_id),
    add foreign key (operator_id, bet_id) references predictu_dispatch.bet (operator_id, bet_id);

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

grant select on predictu_dispatch.callback to predictu_dispatcher, predictu_support;

-- It names blocks of the table that is gone.
delete from predictu_dispatch.purge_cursor;
analyze predictu_dispatch.callback;
