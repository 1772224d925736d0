-- compatible_from: 0001
-- Finance: the view `ledger`, and the runs that reconcile our records with an operator's ledger.
-- predictu_dispatch/reconciliation/README.md defines the rules.

-- As in 0006_roles.sql.
do $$ begin
    if not exists (select from pg_roles where rolname = 'predictu_reconciler') then
        create role predictu_reconciler nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception using errcode = 'insufficient_privilege',
            message = format('role predictu_reconciler is missing, and %s may not create roles', session_user),
            hint = 'Run this as a login with CREATEROLE, then migrate again: create role predictu_reconciler nologin;';
end $$;
grant usage on schema predictu_dispatch to predictu_reconciler;
grant select on predictu_dispatch.schema_migration, predictu_dispatch.operator, predictu_dispatch.bet,
    predictu_dispatch.callback, predictu_dispatch.attempt, predictu_dispatch.intervention, predictu_dispatch.currency, predictu_dispatch.request_tombstone, predictu_dispatch.bet_tombstone
    to predictu_reconciler;

-- The time before which retention may have removed callbacks; never earlier than it was. purge_cursor
-- forgets it, if the retention period becomes longer or a legal hold is lifted. No key: it has one row.
create table predictu_dispatch.removed_history (
    removed_before timestamptz not null
);
alter table predictu_dispatch.removed_history replica identity full;
insert into predictu_dispatch.removed_history (removed_before)
select max(c.cutoff) from predictu_dispatch.purge_cursor c having max(c.cutoff) is not null;
revoke all on predictu_dispatch.removed_history from public;
grant select on predictu_dispatch.removed_history
    to predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;

-- One run for one operator and a period of accounting days.
create table predictu_dispatch.reconciliation_run (
    operator_id      text not null,
    run_id           uuid not null default gen_random_uuid(),
    first_day        date not null,
    last_day         date not null check (last_day >= first_day),
    time_zone        text not null,
    day_starts       time not null,
    -- The first moment of each day of the period, and the period's end.
    day_edges        timestamptz[] not null,
    settle_s         double precision not null,
    no_end_days      integer not null,
    -- The period's end, or the start of the run if that is earlier.
    cut_at           timestamptz not null,
    -- For each file or URL: name, sha256, bytes, lines, read, ignored, unreadable.
    sources          jsonb not null default '[]',
    lines_read       bigint not null default 0,
    lines_ignored    bigint not null default 0,
    lines_unreadable bigint not null default 0,
    -- The given ledger: the period up to the cut, extended to the first and last line.
    given_from       timestamptz,
    given_until      timestamptz,
    rows_ours        bigint,
    -- [{"currency", "day", "ours", "theirs"}]: read from `ledger` and from the lines, independently of
    -- the items, to check them.
    sums             jsonb not null default '[]',
    started_at       timestamptz not null default clock_timestamp(),
    -- Null for a run that has not finished: it counts for nothing.
    finished_at      timestamptz,
    -- True if all lines could be read and the identity holds.
    is_complete      boolean not null default false,
    -- The differences that are open since this run, and those that are not any more; see
    -- open_differences().
    opened           bigint,
    closed           bigint,
    done_by          text not null,
    database_role    text not null default session_user,
    primary key (operator_id, run_id)
);
create index reconciliation_run_newest on predictu_dispatch.reconciliation_run (operator_id, last_day, finished_at);

-- The readable lines of a run's ledger, only while it runs. A crash of the server empties it, and
-- ends the run with it.
create unlogged table predictu_dispatch.reconciliation_line (
    operator_id    text not null,
    run_id         uuid not null,
    -- Position of the source in reconciliation_run.sources, from 0.
    source         integer not null,
    -- The record's first line in its file, from 1.
    line           bigint not null,
    booked_at      timestamptz not null,
    day            date not null,
    transaction_id text,
    request_id     uuid,
    method         text,
    bet_id         text,
    player_id      text,
    currency       text not null,
    -- Subunits, as the player's wallet sees it: a debit is negative.
    amount         bigint not null,
    is_debit       boolean not null,
    primary key (operator_id, run_id, source, line)
);

-- The first unreadable lines of a run; reconciliation_run counts all.
create table predictu_dispatch.reconciliation_unreadable (
    operator_id text not null,
    run_id      uuid not null,
    source      integer not null,
    line        bigint not null,
    column_name text not null,
    why         text not null,
    primary key (operator_id, run_id, source, line),
    foreign key (operator_id, run_id) references predictu_dispatch.reconciliation_run
);

-- What a run found, for each class, currency and accounting day. An item's rows are counted once: in
-- its currency (the callback's, else the line's) and on its day (ours, else theirs, in the period).
create table predictu_dispatch.reconciliation_total (
    operator_id text not null,
    run_id      uuid not null,
    class       text not null,
    currency    text not null,
    day         date not null,
    items       bigint not null,
    rows_ours   bigint not null,
    rows_theirs bigint not null,
    -- Subunits, as the player's wallet sees them.
    ours        numeric not null,
    theirs      numeric not null,
    disputed    numeric not null,
    -- The part of disputed that players have too little in the operator's ledger.
    owed        numeric not null,
    primary key (operator_id, run_id, class, currency, day),
    foreign key (operator_id, run_id) references predictu_dispatch.reconciliation_run
);

-- The items of a run that are not simply agreed: the first 10,000 of each class. reconciliation_total
-- counts all.
create table predictu_dispatch.reconciliation_item (
    operator_id    text not null,
    run_id         uuid not null,
    -- Computed from operator, key, class and amounts: the same in every run while nothing changes.
    item_id        uuid not null,
    -- What the item is about: request:ID, transaction:ID, bet:ID/METHOD or line:SOURCE/LINE.
    key            text not null,
    class          text not null,
    request_id     uuid,
    method         text,
    bet_id         text,
    player_id      text,
    transaction_id text,
    currency       text not null,
    day            date not null,
    confirmed_at   timestamptz,
    -- [{"currency", "day", "ours", "theirs"}], in subunits.
    amounts        jsonb not null,
    -- [{"source", "line", "booked_at", "transaction_id", "request_id", "method", "bet_id", "player_id",
    -- "currency", "amount"}], at most 100.
    lines          jsonb not null,
    -- Subunits of `currency`.
    disputed       numeric not null,
    -- A difference that counts now; open_differences() and accept_difference() maintain it, so that
    -- nobody has to read the runs of years.
    is_open        boolean not null default false,
    primary key (operator_id, run_id, item_id),
    foreign key (operator_id, run_id) references predictu_dispatch.reconciliation_run
);
create index reconciliation_item_of_key on predictu_dispatch.reconciliation_item (operator_id, key);
create index reconciliation_item_by_id on predictu_dispatch.reconciliation_item (operator_id, item_id);
create index reconciliation_item_open on predictu_dispatch.reconciliation_item (operator_id, request_id) where is_open;

revoke all on predictu_dispatch.reconciliation_run, predictu_dispatch.reconciliation_line,
    predictu_dispatch.reconciliation_unreadable, predictu_dispatch.reconciliation_total,
    predictu_dispatch.reconciliation_item from public;
grant select on predictu_dispatch.reconciliation_run, predictu_dispatch.reconciliation_line,
    predictu_dispatch.reconciliation_unreadable, predictu_dispatch.reconciliation_total,
    predictu_dispatch.reconciliation_item to predictu_reconciler;
grant select on predictu_dispatch.reconciliation_run, predictu_dispatch.reconciliation_unreadable,
    predictu_dispatch.reconciliation_total, predictu_dispatch.reconciliation_item
    to predictu_support, predictu_operations, predictu_auditor;
-- With the view reconciliation_open, for `reconcile list`.
grant select on predictu_dispatch.reconciliation_run, predictu_dispatch.reconciliation_total to predictu_dispatcher;
-- Only the functions write runs, totals and items; a login copies its lines.
grant insert, delete on predictu_dispatch.reconciliation_line to predictu_reconciler;

-- What people say about a difference is an intervention; a difference may have no callback. The rows
-- that are there satisfy the narrower checks before, so they are not read while everybody waits.
alter table predictu_dispatch.intervention
    drop constraint intervention_action_known,
    drop constraint intervention_names_its_callback,
    add constraint intervention_action_known
        check (action in ('pause', 'resume', 'retire', 'retry', 'cancel', 'abandon', 'resolve', 'explain', 'accept'))
        not valid,
    add constraint intervention_names_its_callback
        check (action in ('explain', 'accept') or (request_id is null) = (action in ('pause', 'resume', 'retire')))
        not valid,
    add constraint intervention_names_its_difference
        check (action not in ('explain', 'accept') or coalesce(before ? 'item_id', false)) not valid;
comment on column predictu_dispatch.intervention.action is 'The action, such as retry, cancel, resolve, pause or explain.';
comment on column predictu_dispatch.intervention.request_id is
    'The callback; null if the action concerns the operator itself, or a difference without a callback.';
comment on column predictu_dispatch.intervention.before is 'The callback, the operator or the difference before the action.';
comment on column predictu_dispatch.intervention.after is 'The callback, the operator or the difference after the action.';

-- A chore that reads the figures for metrics; see reconciliation_figures().
alter table predictu_dispatch.maintenance_chore
    drop constraint maintenance_chore_chore_check,
    add constraint maintenance_chore_chore_check
        check (chore in ('partitions', 'reap', 'backlog', 'seal', 'cosign', 'reconciliation'));
insert into predictu_dispatch.maintenance_chore (chore) values ('reconciliation');
