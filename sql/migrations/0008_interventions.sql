-- What people do about operators and callbacks: pause, resume, retry, cancel, resolve, each recorded with who and when; and ping.
-- Source: DESIGN.md 4, 5, 8 and 11. Commands call these with the daemon's own DSN, so they belong to predictu_dispatcher.

create table predictu_dispatch.intervention (
    operator_id      text not null,
    intervention_id  uuid not null default gen_random_uuid(),
    -- Null where it is about the operator itself.
    request_id       uuid,
    action           text not null check (action in ('pause', 'resume', 'retry', 'cancel', 'resolve')),
    reason           text,
    -- Who, as the command says: a login name and a host, or what --by gave.
    done_by          text not null,
    -- Who, as the database knows: the login role of the session.
    database_role    text not null default session_user,
    done_at          timestamptz not null default clock_timestamp(),
    primary key (operator_id, intervention_id),
    check ((request_id is null) = (action in ('pause', 'resume'))),
    check (reason is not null or action in ('resume', 'retry'))
);
create index intervention_of_callback on predictu_dispatch.intervention (operator_id, request_id, done_at) where request_id is not null;

-- Like the audit, it can only grow, for every role, the owner's included.
create function predictu_dispatch.refuse_intervention_change() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'PD900',
        message = format('what people did can only grow: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Rows of intervention are never changed or deleted.';
end $$;

create trigger intervention_only_grows before update or delete on predictu_dispatch.intervention
    for each row execute function predictu_dispatch.refuse_intervention_change();
alter table predictu_dispatch.intervention enable always trigger intervention_only_grows;
create trigger intervention_not_emptied before truncate on predictu_dispatch.intervention
    for each statement execute function predictu_dispatch.refuse_intervention_change();
alter table predictu_dispatch.intervention enable always trigger intervention_not_emptied;

-- What was attempted even once is never 'cancelled': only what certainly never left may make place for another terminal, and only
-- so may a bet open again. Not valid: it holds for every row from now on, and looks at no old one under the table's lock.
alter table predictu_dispatch.callback add constraint cancelled_was_never_attempted check (state <> 'cancelled' or attempts = 0) not valid;

-- A re-drive is of what is on the review list. What was resolved is off it for good: it was settled by other means, and sending it
-- again might pay twice.
create trigger callback_redriven_from_review before update of state on predictu_dispatch.callback
    for each row when (old.state in ('rejected', 'exhausted') and new.state = 'ready' and old.review_since is null)
    execute function predictu_dispatch.refuse_callback_change();

-- As in 0002, and closing → open: its terminal was taken back before any attempt. That there is none left which may have reached
-- the operator, and that the debit was confirmed, is looked at by guard_bet() as for every move to 'open'.
drop trigger bet_moves on predictu_dispatch.bet;
create trigger bet_moves before update on predictu_dispatch.bet for each row when (
    (old.state <> new.state and not (
        (old.state = 'placing' and new.state in ('open', 'closing', 'void'))
        or (old.state = 'open' and new.state = 'closing')
        or (old.state = 'closing' and new.state in ('closed', 'open'))
    ))
    or (old.operator_id, old.bet_id, old.player_id, old.currency, old.amount, old.placement_request_id)
       <> (new.operator_id, new.bet_id, new.player_id, new.currency, new.amount, new.placement_request_id)
) execute function predictu_dispatch.refuse_bet_change();

-- A moment as the refusals below name it.
create function predictu_dispatch.in_words(at_moment timestamptz) returns text language sql stable parallel safe as $$
    select to_char(at_moment at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
$$;

-- Who and why, as they will be kept. Raises PD003.
create function predictu_dispatch.check_intervention(action text, reason text, done_by text) returns void language plpgsql as $$
begin
    if coalesce(done_by, '') !~ '\S' or length(done_by) > 200 then
        perform predictu_dispatch.refuse_params(action, format('by is %s', coalesce(quote_literal(left(done_by, 80)), 'NULL')),
            'Say who does it, in 1 to 200 characters, for example alice@host-1.');
    end if;
    if (reason is null and action not in ('retry', 'resume')) or reason !~ '\S' or length(reason) > 500 then
        perform predictu_dispatch.refuse_params(action, format('reason is %s', coalesce(quote_literal(left(reason, 80)), 'NULL')),
            'Say why, in 1 to 500 characters; whoever looks at it later has nothing else.');
    end if;
end $$;

create function predictu_dispatch.record_intervention(
    operator_id text, request_id uuid, action text, reason text, done_by text, done_at timestamptz
) returns void language sql as $$
    insert into predictu_dispatch.intervention (operator_id, request_id, action, reason, done_by, done_at)
    values (operator_id, request_id, action, reason, done_by, done_at)
$$;

create function predictu_dispatch.refuse_locked(what text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'PD006', message = format('%s is locked by another transaction; nothing was done', what),
        hint = 'Try again in a moment. If it stays so, a transaction was left open: look for it in pg_stat_activity.';
end $$;

-- The operator's row, locked until the transaction ends. Raises PD002, and PD006 after the caller's lock_timeout.
create function predictu_dispatch.lock_operator(operator_id text) returns predictu_dispatch.operator language plpgsql as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
begin
    select o.* into locked from predictu_dispatch.operator o where o.operator_id = operator_id for no key update;
    if not found then
        raise exception using errcode = 'PD002', message = format('unknown operator %s', coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'An operator becomes known when a daemon starts with its file in config/operators/.';
    end if;
    return locked;
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(format('operator %s', quote_literal(operator_id)));
end $$;

-- The callback, locked until the transaction ends, and before it its bet. Raises PD005, and PD006 after the caller's lock_timeout.
create function predictu_dispatch.lock_callback(action text, operator_id text, request_id uuid) returns predictu_dispatch.callback
language plpgsql as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
begin
    perform from predictu_dispatch.bet b
      where b.operator_id = operator_id and b.bet_id = (
            select c.bet_id from predictu_dispatch.callback c where c.operator_id = operator_id and c.request_id = request_id
      ) for no key update;
    -- In a statement of its own, so that it sees what was committed before the bet's lock was had.
    select c.* into locked from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = request_id for no key update;
    if not found then
        raise exception using errcode = 'PD005',
            message = format('%s of %s is refused: operator %s has no such callback', action, coalesce(request_id::text, 'NULL'),
                             coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'Look at the request_id and the operator_id.';
    end if;
    return locked;
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(format('callback %s of operator %s, or its bet,', request_id, quote_literal(operator_id)));
end $$;

create function predictu_dispatch.refuse_intervention(action text, locked predictu_dispatch.callback, fault text, hint text) returns void
language plpgsql as $$
begin
    raise exception using errcode = 'PD005',
        message = format('%s of %s %s of operator %s is refused: %s', action, locked.method, locked.request_id, locked.operator_id, fault),
        hint = hint;
end $$;

-- Why a callback is not on the review list, in words.
create function predictu_dispatch.off_review(locked predictu_dispatch.callback) returns text language sql stable as $$
    select case
        when locked.state in ('waiting', 'ready', 'in_flight') then format('it is on its way (%s)', locked.state)
        else coalesce((
            select format('%s resolved it at %s: %s', i.done_by, predictu_dispatch.in_words(i.done_at), i.reason)
              from predictu_dispatch.intervention i
             where i.operator_id = locked.operator_id and i.request_id = locked.request_id and i.action = 'resolve'
             order by i.done_at desc limit 1
        ), format('it is %s and nobody has to look at it', locked.state))
    end
$$;

-- A bet's terminal that needs review is due again: same request_id, same bytes, attempt numbers go on, and the budget of attempts
-- and the deadline, of the same span as at its enqueueing, start afresh. Raises PD003, PD005, PD006.
create function predictu_dispatch.retry_callback(operator_id text, request_id uuid, by text) returns predictu_dispatch.callback
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
    redriven_at timestamptz;
    budgeted_at timestamptz;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('retry', null, by);
    locked := predictu_dispatch.lock_callback('retry', operator_id, request_id);
    if locked.method = 'BET_MAKE' then
        perform predictu_dispatch.refuse_intervention('retry', locked, 'a debit is never sent again by hand',
            'Place a new bet. A debit that may stand is given back by the bet''s own BET_ROLLBACK; show --bet tells how far that is.');
    elsif locked.method in ('PING', 'BALANCE') then
        perform predictu_dispatch.refuse_intervention('retry', locked, 'nobody waits for its answer any more',
            'Enqueue a new one; for an operator''s health there is: predictu-dispatch ping.');
    elsif locked.state = 'delivered' then
        perform predictu_dispatch.refuse_intervention('retry', locked, 'the operator has confirmed it',
            'If it needs review all the same, settle it with the operator, and then: predictu-dispatch resolve.');
    elsif locked.state = 'cancelled' then
        perform predictu_dispatch.refuse_intervention('retry', locked, format('it was cancelled (%s) and must not be sent', locked.reason),
            'Another callback may have taken its place: show --bet tells. Once it is settled: predictu-dispatch resolve.');
    elsif locked.review_since is null then
        perform predictu_dispatch.refuse_intervention('retry', locked, predictu_dispatch.off_review(locked),
            case when locked.state in ('rejected', 'exhausted')
                 then 'It was settled by other means: sending it now might pay twice.'
                 else 'Why it is not being sent this moment, says: predictu-dispatch why.' end);
    end if;
    redriven_at := clock_timestamp();
    -- Each re-drive sets the deadline anew, so the span is what lies between it and the last one.
    select max(i.done_at) into budgeted_at from predictu_dispatch.intervention i
     where i.operator_id = operator_id and i.request_id = request_id and i.action = 'retry';
    update predictu_dispatch.callback c
       set state = 'ready', reason = null, due_at = redriven_at, finished_at = null, review_since = null, budget_from = c.attempts,
           expires_at = redriven_at + (c.expires_at - coalesce(budgeted_at, c.created_at))
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into locked;
    perform predictu_dispatch.record_intervention(operator_id, request_id, 'retry', null, by, redriven_at);
    perform pg_notify('predictu_dispatch_due', operator_id);
    return locked;
end $$;

-- What was never attempted is taken back; its bet becomes void (BET_MAKE), or may have another terminal. Raises PD003, PD005, PD006.
create function predictu_dispatch.cancel_callback(operator_id text, request_id uuid, reason text, by text)
returns predictu_dispatch.callback
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
    cancelled predictu_dispatch.callback;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('cancel', reason, by);
    locked := predictu_dispatch.lock_callback('cancel', operator_id, request_id);
    if locked.finished_at is not null then
        perform predictu_dispatch.refuse_intervention('cancel', locked, format('it is %s already', locked.state),
            'What has ended stays as it is; what needs review and was settled by other means: predictu-dispatch resolve.');
    elsif locked.attempts > 0 then
        perform predictu_dispatch.refuse_intervention('cancel', locked,
            case locked.state when 'in_flight' then format('it is being sent at this moment, attempt %s', locked.attempts)
                            else format('it was attempted already, %s time(s)', locked.attempts) end,
            case locked.method when 'BET_MAKE' then 'The operator may have booked it. rollback_bet() takes a placement back at any moment.'
                             else 'The operator may have it. Wait until it has ended.' end);
    elsif locked.method = 'BET_ROLLBACK' then
        perform predictu_dispatch.refuse_intervention('cancel', locked, 'a debit that may stand must be given back',
            'If it was given back by other means, wait until the rollback has ended, and then: predictu-dispatch resolve.');
    end if;
    update predictu_dispatch.callback c
       set state = 'cancelled', reason = 'taken_back', finished_at = clock_timestamp(), note = concat_ws('; ', c.note, reason)
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into cancelled;
    if locked.method = 'BET_MAKE' then
        perform predictu_dispatch.advance_bets(array[operator_id], array[locked.bet_id]);
    elsif locked.bet_id is not null and locked.state = 'ready' then
        update predictu_dispatch.bet b set state = 'open', updated_at = clock_timestamp()
         where b.operator_id = operator_id and b.bet_id = locked.bet_id;
    end if;
    perform predictu_dispatch.record_intervention(operator_id, request_id, 'cancel', reason, by, cancelled.finished_at);
    return cancelled;
end $$;

-- What was settled with the operator by other means is off the review list, for good; nothing else changes. Raises PD003, PD005, PD006.
create function predictu_dispatch.resolve_callback(operator_id text, request_id uuid, reason text, by text)
returns predictu_dispatch.callback
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('resolve', reason, by);
    locked := predictu_dispatch.lock_callback('resolve', operator_id, request_id);
    if locked.review_since is null then
        perform predictu_dispatch.refuse_intervention('resolve', locked, predictu_dispatch.off_review(locked),
            'Only what is on the review list is resolved: predictu-dispatch status lists it.');
    end if;
    update predictu_dispatch.callback c
       set review_since = null, note = concat_ws('; ', c.note, reason)
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into locked;
    perform predictu_dispatch.record_intervention(operator_id, request_id, 'resolve', reason, by, clock_timestamp());
    return locked;
end $$;

-- A maintenance window: nothing is sent to the operator until resume_operator(). Raises PD002, PD003, PD005, PD006.
create function predictu_dispatch.pause_operator(operator_id text, reason text, by text) returns predictu_dispatch.operator
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('pause', reason, by);
    locked := predictu_dispatch.lock_operator(operator_id);
    if locked.paused_at is not null then
        raise exception using errcode = 'PD005',
            message = format('operator %s is paused already, since %s by %s: %s', operator_id,
                             predictu_dispatch.in_words(locked.paused_at), locked.paused_by, locked.pause_reason),
            hint = format('To end it: predictu-dispatch resume %s', operator_id);
    end if;
    update predictu_dispatch.operator o
       set paused_at = clock_timestamp(), paused_by = by, pause_reason = reason, revision = o.revision + 1
     where o.operator_id = operator_id
    returning o.* into locked;
    perform predictu_dispatch.record_intervention(operator_id, null, 'pause', reason, by, locked.paused_at);
    return locked;
end $$;

-- The maintenance window is over; returns the operator as it was while paused. Raises PD002, PD003, PD005, PD006.
create function predictu_dispatch.resume_operator(operator_id text, reason text, by text) returns predictu_dispatch.operator
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('resume', reason, by);
    locked := predictu_dispatch.lock_operator(operator_id);
    if locked.paused_at is null then
        raise exception using errcode = 'PD005', message = format('operator %s is not paused', operator_id),
            hint = 'What keeps a callback from being sent, says: predictu-dispatch why.';
    end if;
    update predictu_dispatch.operator o
       set paused_at = null, paused_by = null, pause_reason = null, revision = o.revision + 1
     where o.operator_id = operator_id;
    perform predictu_dispatch.record_intervention(operator_id, null, 'resume', reason, by, clock_timestamp());
    perform pg_notify('predictu_dispatch_due', operator_id);
    return locked;
end $$;

-- A PING through the ordinary way, also while the circuit is open: then it is the one that decides. Raises PD002, PD005, PD006.
create function predictu_dispatch.ping_operator(operator_id text) returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
begin
    perform predictu_dispatch.enabled_operator(operator_id);
    locked := predictu_dispatch.lock_operator(operator_id);
    if locked.paused_at is not null then
        raise exception using errcode = 'PD005',
            message = format('operator %s is paused since %s by %s: %s; nothing is sent to it', operator_id,
                             predictu_dispatch.in_words(locked.paused_at), locked.paused_by, locked.pause_reason),
            hint = format('To end it: predictu-dispatch resume %s', operator_id);
    end if;
    return predictu_dispatch.start_ping(operator_id);
end $$;

revoke all on all functions in schema predictu_dispatch from public;
grant execute on function
    predictu_dispatch.retry_callback(text, uuid, text), predictu_dispatch.cancel_callback(text, uuid, text, text),
    predictu_dispatch.resolve_callback(text, uuid, text, text), predictu_dispatch.pause_operator(text, text, text),
    predictu_dispatch.resume_operator(text, text, text), predictu_dispatch.ping_operator(text)
    to predictu_dispatcher;
grant select on predictu_dispatch.intervention to predictu_dispatcher, predictu_support;
