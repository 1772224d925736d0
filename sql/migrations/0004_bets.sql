-- A bet's life: how it follows its callbacks, rollback_bet, adopt_bet and outcome.
-- Source: DESIGN.md 5 and 11; the table is predictu_dispatch/core/lifecycle.py, and a test walks it against these functions.

-- What a settle, an expiry or a rollback has changed, for the daemon's metrics and for waking its lanes.
create type predictu_dispatch.change as (
    operator_id text, request_id uuid, method text, lane text, state text, reason text,
    -- settled, late, repeated, locked (of a report, which names its attempt); released, cancelled, rolled_back (of a bet that followed).
    cause text, attempt integer
);

-- Gives the bet its rollback, after its waiting terminal, if any, was cancelled. Returns the rollback's request_id.
create function predictu_dispatch.add_rollback(
    bet predictu_dispatch.bet, bet_state text, callback_state text, cause text, note text
) returns uuid language plpgsql as $$
declare
    id uuid := gen_random_uuid();
begin
    update predictu_dispatch.bet b set state = bet_state, terminal_request_id = id, updated_at = clock_timestamp()
     where b.operator_id = bet.operator_id and b.bet_id = bet.bet_id;
    insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, reason, params, note)
    values (bet.operator_id, id, 'BET_ROLLBACK', bet.bet_id, 'interactive', callback_state, cause,
            jsonb_build_object('player_id', bet.player_id, 'currency', bet.currency, 'amount', bet.amount, 'bet_id', bet.bet_id,
                               'rollback_of', bet.placement_request_id), note);
    if callback_state = 'ready' then
        perform pg_notify('predictu_dispatch_due', bet.operator_id);
    end if;
    return id;
end $$;

-- Takes back a terminal that waits; flagged ones are listed in needs_review.
create function predictu_dispatch.cancel_waiting(operator_id text, request_id uuid, reason text, flagged boolean)
returns setof predictu_dispatch.change language sql as $$
    update predictu_dispatch.callback c
       set state = 'cancelled', reason = cancel_waiting.reason, finished_at = clock_timestamp(),
           review_since = case when flagged then clock_timestamp() end
     where c.operator_id = cancel_waiting.operator_id and c.request_id = cancel_waiting.request_id and c.state = 'waiting'
    returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'cancelled', null::integer
$$;

-- Brings bets to where their callbacks have gone; a bet that is there already stays. The caller holds the bets' locks and names
-- each once, and its changes to callbacks are done.
create function predictu_dispatch.advance_bets(operator_ids text[], bet_ids text[])
returns setof predictu_dispatch.change language plpgsql as $$
declare
    ended record;
    rollback_id uuid;
begin
    -- terminal delivered: closing → closed.
    update predictu_dispatch.bet b
       set state = 'closed', updated_at = clock_timestamp()
      from unnest(operator_ids, bet_ids) as named (operator_id, bet_id), predictu_dispatch.callback terminal
     where b.operator_id = named.operator_id and b.bet_id = named.bet_id and b.state = 'closing'
       and terminal.operator_id = b.operator_id and terminal.request_id = b.terminal_request_id and terminal.state = 'delivered';

    -- BET_MAKE delivered: placing → open, or at once → closing where a terminal waits, which becomes ready.
    update predictu_dispatch.bet b
       set updated_at = clock_timestamp(), state = case when exists (
               select from predictu_dispatch.callback terminal
                where terminal.operator_id = b.operator_id and terminal.request_id = b.terminal_request_id and terminal.state = 'waiting'
           ) then 'closing' else 'open' end
      from unnest(operator_ids, bet_ids) as named (operator_id, bet_id), predictu_dispatch.callback placement
     where b.operator_id = named.operator_id and b.bet_id = named.bet_id and b.state = 'placing'
       and placement.operator_id = b.operator_id and placement.request_id = b.placement_request_id and placement.state = 'delivered';

    -- BET_MAKE ended without having been confirmed.
    for ended in
        select b as bet, placement.state, placement.reason, placement.effect, terminal.request_id as terminal_id,
               terminal.state as terminal_state, terminal.method as terminal_method
          from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
          join predictu_dispatch.bet b on b.operator_id = named.operator_id and b.bet_id = named.bet_id and b.state = 'placing'
          join predictu_dispatch.callback placement
            on placement.operator_id = b.operator_id and placement.request_id = b.placement_request_id
           and placement.state in ('rejected', 'exhausted', 'cancelled')
          left join predictu_dispatch.callback terminal
            on terminal.operator_id = b.operator_id and terminal.request_id = b.terminal_request_id
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
      from unnest(operator_ids, bet_ids) as named (operator_id, bet_id), predictu_dispatch.bet b
     where b.operator_id = named.operator_id and b.bet_id = named.bet_id and b.state = 'closing'
       and terminal.operator_id = b.operator_id and terminal.request_id = b.terminal_request_id and terminal.state = 'waiting'
    returning terminal.operator_id, terminal.request_id, terminal.method, terminal.lane, terminal.state, terminal.reason, 'released',
              null::integer;
end $$;

-- The trade failed downstream. Returns the rollback's request_id, or null where nothing has to go over the wire. Raises PD005.
create function predictu_dispatch.rollback_bet(operator_id text, bet_id text, reason text) returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    bet predictu_dispatch.bet;
    placement predictu_dispatch.callback;
    terminal predictu_dispatch.callback;
    rollback_id uuid;
begin
    select b.* into bet from predictu_dispatch.bet b where b.operator_id = operator_id and b.bet_id = bet_id for no key update;
    if not found then
        perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'rollback', 'the bet is unknown',
            'Look at the operator_id and the bet_id; a bet that was never placed needs no rollback.');
    end if;
    -- The placement before the terminal: a claim holds it for a moment only, and we must see what that claim made of it.
    select c.* into placement from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = bet.placement_request_id for no key update;
    select c.* into terminal from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = bet.terminal_request_id for no key update;

    if terminal.method = 'BET_ROLLBACK' and (bet.state <> 'placing' or placement.retry_stopped) then
        return terminal.request_id;
    elsif bet.state = 'void' then
        return null;
    elsif bet.state in ('closing', 'closed') then
        perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'rollback',
            format('the bet is %s, its %s %s is %s', bet.state, terminal.method, terminal.request_id, terminal.state),
            'Two terminal callbacks must never reach an operator for one bet; settle the difference with the operator.');
    elsif bet.state = 'open' then
        return predictu_dispatch.add_rollback(bet, 'closing', 'ready', 'requested', reason);
    end if;

    if terminal.state = 'waiting' and terminal.method <> 'BET_ROLLBACK' then
        perform predictu_dispatch.cancel_waiting(operator_id, terminal.request_id, 'rolled_back', false);
        terminal := null;
    end if;
    if placement.state = 'in_flight' then
        update predictu_dispatch.callback c set retry_stopped = true
         where c.operator_id = operator_id and c.request_id = placement.request_id;
        if terminal.state = 'waiting' then
            return terminal.request_id;
        end if;
        return predictu_dispatch.add_rollback(bet, 'placing', 'waiting', 'requested', reason);
    end if;
    update predictu_dispatch.callback c
       set state = case c.attempts when 0 then 'cancelled' else 'exhausted' end, reason = 'rolled_back',
           finished_at = clock_timestamp(), note = rollback_bet.reason
     where c.operator_id = operator_id and c.request_id = placement.request_id;
    perform predictu_dispatch.advance_bets(array[operator_id], array[bet_id]);
    select b.terminal_request_id into rollback_id from predictu_dispatch.bet b
     where b.operator_id = operator_id and b.bet_id = bet_id and b.state = 'closing';
    update predictu_dispatch.callback c set note = rollback_bet.reason
     where c.operator_id = operator_id and c.request_id = rollback_id and c.note is null;
    return rollback_id;
end $$;

-- Registers a bet opened before this system existed, so that it can be settled here. Raises PD002, PD003, PD005.
create function predictu_dispatch.adopt_bet(
    operator_id text, bet_id text, player_id text, currency text, amount bigint, placement_request_id uuid
) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    earlier predictu_dispatch.bet;
begin
    perform predictu_dispatch.enabled_operator(operator_id);
    perform predictu_dispatch.check_params('adopt_bet', jsonb_build_object(
        'player_id', player_id, 'currency', currency, 'amount', amount, 'bet_id', bet_id));
    if amount = 0 or placement_request_id is null then
        perform predictu_dispatch.refuse_params('adopt_bet',
            case when amount = 0 then '"amount" is 0' else '"placement_request_id" is NULL' end,
            'Give the debit that the operator has booked and the request_id under which it was booked.');
    end if;
    if exists (select from predictu_dispatch.callback c where c.operator_id = operator_id and c.request_id = placement_request_id) then
        raise exception using errcode = 'PD004',
            message = format('placement_request_id %s of operator %s is a callback of this system', placement_request_id, operator_id),
            hint = 'Only a bet that was placed before this system existed is adopted.';
    end if;
    insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount, placement_request_id)
    values (operator_id, bet_id, 'open', player_id, currency, amount, placement_request_id)
    on conflict do nothing;
    if not found then
        select b.* into earlier from predictu_dispatch.bet b where b.operator_id = operator_id and b.bet_id = bet_id;
        if not found then
            raise exception using errcode = 'PD004',
                message = format('placement_request_id %s of operator %s belongs to another bet', placement_request_id, operator_id),
                hint = 'One debit is one bet; look at the id under which the operator has booked this one.';
        end if;
        if (earlier.player_id, earlier.currency, earlier.amount, earlier.placement_request_id)
           is distinct from (player_id, currency, amount, placement_request_id) then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'adoption', 'the bet exists already with other content',
                'A bet is adopted once; adopting it again with the same content is harmless.');
        end if;
    end if;
end $$;

-- How producers read an outcome; null columns for what is not known yet, no row for an unknown request.
create function predictu_dispatch.outcome(operator_id text, request_id uuid)
returns table (state text, reason text, effect text, operator_status text, operator_transaction_id text, balance bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select c.state, c.reason, c.effect, c.operator_status, c.operator_transaction_id, c.balance
      from predictu_dispatch.callback c
     where c.operator_id = outcome.operator_id and c.request_id = outcome.request_id
$$;
