-- What no function, daemon or person may do, locked by triggers: the moves of callbacks and bets, and the audit that only grows.
--
-- The lists of moves are those of predictu_dispatch/core/lifecycle.py; a test tries every pair of states here against that table.
-- PD900 is never the answer to bad input: it says that a program was about to break a rule of the design, and that it was stopped.

create function predictu_dispatch.refuse_callback_change() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'PD900',
        message = format('callback %s of operator %s (%s) must not go from %s, effect %s, attempt %s to %s, effect %s, attempt %s',
                         old.request_id, old.operator_id, old.method, old.state, old.effect, old.attempts,
                         new.state, new.effect, new.attempts),
        hint = 'See predictu_dispatch/core/lifecycle.py for what is allowed; identity and content never change.';
end $$;

create trigger callback_moves before update on predictu_dispatch.callback for each row when (
    (old.state <> new.state and not (
        (old.state = 'waiting' and new.state in ('ready', 'cancelled'))
        or (old.state = 'ready' and new.state in ('in_flight', 'exhausted', 'cancelled'))
        or (old.state = 'in_flight' and new.state in ('delivered', 'rejected', 'ready', 'exhausted'))
        -- A re-drive by a person; a debit is never sent again by hand, and what moves no bet has nobody waiting for it any more.
        or (old.state in ('rejected', 'exhausted') and new.state = 'ready' and old.method not in ('PING', 'BALANCE', 'BET_MAKE'))
    ))
    or (old.effect <> new.effect and not (old.effect = 'none' or (old.effect = 'unknown' and new.effect = 'applied')))
    or new.attempts <> old.attempts + (old.state = 'ready' and new.state = 'in_flight')::integer
    or (old.retry_stopped and not new.retry_stopped)
    or (old.amount_format is not null and new.amount_format is distinct from old.amount_format)
    or (old.operator_id, old.request_id, old.method, old.lane, old.created_at)
       <> (new.operator_id, new.request_id, new.method, new.lane, new.created_at)
    or old.bet_id is distinct from new.bet_id
    -- By their bytes: 500 and 500.0 are equal numbers and different bodies.
    or record_image_ne(row(old.params), row(new.params))
) execute function predictu_dispatch.refuse_callback_change();

create function predictu_dispatch.refuse_bet_change() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'PD900',
        message = format('bet %s of operator %s must not go from %s to %s, nor change what it was placed with',
                         old.bet_id, old.operator_id, old.state, new.state),
        hint = 'See predictu_dispatch/core/lifecycle.py for what is allowed.';
end $$;

create trigger bet_moves before update on predictu_dispatch.bet for each row when (
    (old.state <> new.state and not (
        (old.state = 'placing' and new.state in ('open', 'closing', 'void'))
        or (old.state = 'open' and new.state = 'closing')
        or (old.state = 'closing' and new.state = 'closed')
    ))
    or (old.operator_id, old.bet_id, old.player_id, old.currency, old.amount, old.placement_request_id)
       <> (new.operator_id, new.bet_id, new.player_id, new.currency, new.amount, new.placement_request_id)
) execute function predictu_dispatch.refuse_bet_change();

-- A bet's state against its callbacks, looked at after the statement that moved it.
create function predictu_dispatch.guard_bet() returns trigger language plpgsql as $$
declare
    seen record;
    fault text;
begin
    select coalesce(bool_or(c.method = 'BET_MAKE' and c.state in ('ready', 'in_flight')), false) as debit_may_go,
           coalesce(bool_or(c.method = 'BET_MAKE' and c.state = 'delivered'), false) as debited,
           coalesce(bool_or(c.method = 'BET_MAKE' and c.effect <> 'none'), false) as maybe_debited,
           coalesce(bool_or(c.method = 'BET_MAKE'), false) as placed_here,
           coalesce(bool_or(c.method <> 'BET_MAKE' and c.state not in ('waiting', 'cancelled')), false) as terminal_may_go,
           coalesce(bool_or(c.method <> 'BET_MAKE' and c.state = 'delivered'), false) as ended
      into seen
      from predictu_dispatch.callback c
     where c.operator_id = new.operator_id and c.bet_id = new.bet_id;
    fault := case
        when new.state = 'placing' and seen.terminal_may_go then 'its terminal callback could reach the operator before its debit'
        when new.state <> 'placing' and seen.debit_may_go then 'its debit could still be sent'
        when new.state = 'open' and seen.terminal_may_go then 'a terminal callback is on its way already'
        when new.state = 'open' and seen.placed_here and not seen.debited then 'its debit was never confirmed'
        when new.state = 'closed' and not seen.ended then 'no terminal callback was delivered'
        when new.state = 'void' and seen.debited then 'its debit was confirmed'
        when new.state = 'void' and seen.maybe_debited then 'its debit may have taken place'
        when new.state = 'void' and seen.terminal_may_go then 'a terminal callback is on its way already'
    end;
    if fault is not null then
        raise exception using errcode = 'PD900',
            message = format('bet %s of operator %s must not be %s: %s', new.bet_id, new.operator_id, new.state, fault),
            hint = 'See predictu_dispatch/core/lifecycle.py for what is allowed.';
    end if;
    return null;
end $$;

create trigger bet_holds_with_its_callbacks after insert or update of state on predictu_dispatch.bet
    for each row execute function predictu_dispatch.guard_bet();

-- A callback may be sent only from 'ready', and may become 'ready' only while its bet says so.
create function predictu_dispatch.guard_ready() returns trigger language plpgsql as $$
declare
    bet_state text := (select b.state from predictu_dispatch.bet b where b.operator_id = new.operator_id and b.bet_id = new.bet_id);
begin
    if bet_state is distinct from (case when new.method = 'BET_MAKE' then 'placing' else 'closing' end) then
        raise exception using errcode = 'PD900',
            message = format('%s %s of operator %s must not be sent while its bet %s is %s',
                             new.method, new.request_id, new.operator_id, new.bet_id, coalesce(bet_state, 'unknown')),
            hint = 'See predictu_dispatch/core/lifecycle.py for what is allowed.';
    end if;
    return null;
end $$;

create trigger callback_ready_when_inserted after insert on predictu_dispatch.callback
    for each row when (new.bet_id is not null and new.state <> 'waiting') execute function predictu_dispatch.guard_ready();
-- A retry (in_flight to ready) was looked at when it first became ready, and its bet cannot have moved since without its settling.
create trigger callback_ready_when_released after update of state on predictu_dispatch.callback
    for each row when (new.bet_id is not null and new.state = 'ready' and old.state not in ('ready', 'in_flight'))
    execute function predictu_dispatch.guard_ready();

-- The audit can only grow, for every role, the owner's included; retention drops whole partitions.
create function predictu_dispatch.refuse_audit_change() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'PD900',
        message = format('the audit can only grow: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Rows of attempt are never changed or deleted; retention drops whole partitions.';
end $$;

create trigger attempt_only_grows before update or delete on predictu_dispatch.attempt
    for each row execute function predictu_dispatch.refuse_audit_change();
alter table predictu_dispatch.attempt enable always trigger attempt_only_grows;
-- TRUNCATE triggers are not handed down to partitions, so each gets its own; see prepare_partitions().
create trigger attempt_not_emptied before truncate on predictu_dispatch.attempt
    for each statement execute function predictu_dispatch.refuse_audit_change();
alter table predictu_dispatch.attempt enable always trigger attempt_not_emptied;
create trigger attempt_not_emptied before truncate on predictu_dispatch.attempt_default
    for each statement execute function predictu_dispatch.refuse_audit_change();
alter table predictu_dispatch.attempt_default enable always trigger attempt_not_emptied;

-- Wakes the producer that waits for a balance, a placement or a rollback. A hint: who misses it asks outcome() again.
create function predictu_dispatch.notify_outcome() returns trigger language plpgsql as $$
begin
    perform pg_notify('predictu_dispatch_outcome', new.operator_id || ' ' || new.request_id);
    return null;
end $$;

create trigger callback_outcome after update of state on predictu_dispatch.callback
    for each row when (new.lane = 'interactive' and new.finished_at is not null and old.finished_at is null)
    execute function predictu_dispatch.notify_outcome();
