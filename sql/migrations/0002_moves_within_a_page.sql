-- compatible_from: 0001
-- A move of a callback writes less WAL: what moves is at the end of the row, and its page has space
-- for the new version. Postgres then logs only what is between the first and the last byte that
-- changed. The checks of a row move from CHECK constraints, which each statement parses again, to
-- guard_callback().
--
-- A database that exists keeps its table, and so its order of columns: it writes somewhat more WAL.
-- A filled table is never copied into a new one, because older snapshots would not show its rows.
-- Everything here is instant; only the table of callbacks is locked, so no deadlock is possible
-- with a transaction that locks bets and then callbacks.

do $$ begin
    if exists (select from predictu_dispatch.schema_function) then
        lock table predictu_dispatch.callback in access exclusive mode;
        -- For new callbacks; see below.
        alter table predictu_dispatch.callback set (fillfactor = 50);
        -- The checks of 0001_schema.sql, by the names that Postgres gave them; others are not ours.
        alter table predictu_dispatch.callback
            drop constraint if exists callback_method_check,
            drop constraint if exists callback_lane_check,
            drop constraint if exists callback_state_check,
            drop constraint if exists callback_effect_check,
            drop constraint if exists callback_amount_format_check,
            drop constraint if exists callback_check,
            drop constraint if exists callback_check1,
            drop constraint if exists callback_check2,
            drop constraint if exists callback_check3,
            drop constraint if exists callback_check4,
            drop constraint if exists callback_check5,
            drop constraint if exists callback_check6,
            drop constraint if exists callback_check7,
            drop constraint if exists callback_check8,
            drop constraint if exists cancelled_never_attempted;
        -- guard_callback() takes its place, in this transaction.
        drop trigger if exists callback_move on predictu_dispatch.callback;
        drop function if exists predictu_dispatch.guard_callback_move();
        return;
    end if;

    -- This run creates the database: the table is empty, and nothing depends on it yet.
    drop table predictu_dispatch.callback;

    -- The outbox. First what never moves, then what a claim or a retry moves, then what a
    -- settlement moves. Values and their combinations are checked by guard_callback().
    create table predictu_dispatch.callback (
        operator_id              text not null,
        request_id               uuid not null,
        method                   text not null,
        bet_id                   text,
        lane                     text not null,
        params                   jsonb not null,
        created_at               timestamptz not null default clock_timestamp(),
        expires_at               timestamptz,
        -- Attempts made before the last retry by a person: the budget of max_attempts counts from
        -- here.
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
        review_since             timestamptz,
        primary key (operator_id, request_id),
        foreign key (operator_id, bet_id) references predictu_dispatch.bet (operator_id, bet_id)
    )
    -- A new version of a row that stays on its page is logged as its difference. Half of a page is
    -- left for them, because consecutive callbacks are claimed at once. Autovacuum removes dead
    -- rows and index entries after a fiftieth of the table instead of a fifth, so that a short
    -- queue stays cheap to read.
    with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000,
          autovacuum_analyze_scale_factor = 0.02, fillfactor = 50);

    -- One placement and one terminal that is not cancelled for each bet; also used to find a
    -- bet's callbacks.
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
    -- By operator, so that deadlines of one never wait for another. Callbacks with and without a
    -- bet are apart, because expire() looks for each kind by itself and must not read the other's
    -- entries.
    create index callback_expiring on predictu_dispatch.callback (operator_id, expires_at)
        where state = 'ready' and expires_at is not null and bet_id is null;
    create index callback_of_bet_expiring on predictu_dispatch.callback (operator_id, expires_at)
        where state = 'ready' and expires_at is not null and bet_id is not null;
    -- Callbacks that end at once while nothing may be sent, because their callers wait.
    create index callback_awaited on predictu_dispatch.callback (operator_id, method, due_at)
        where state = 'ready' and method in ('BALANCE', 'BET_MAKE');
    create index callback_in_review on predictu_dispatch.callback (operator_id, review_since) where review_since is not null;

    grant select on predictu_dispatch.callback to predictu_dispatcher, predictu_support;
    revoke all on predictu_dispatch.callback from public;
end $$;
