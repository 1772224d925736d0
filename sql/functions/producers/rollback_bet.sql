-- Rolls back a bet whose trade failed, or whose outcome is unknown; at any time, and as often as you
-- like. Returns the request_id of the BET_ROLLBACK, or null if nothing has to be sent. Keeps the
-- first 1,000 characters of the reason: a long one must not stop a rollback. Raises PD005 (the bet is unknown,
-- or another terminal callback may have been sent), PD008 (the login may not act for this operator).
create or replace function predictu_dispatch.rollback_bet(operator_id text, bet_id text, reason text) returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    bet predictu_dispatch.bet;
    placement predictu_dispatch.callback;
    terminal predictu_dispatch.callback;
    rollback_id uuid;
begin
    perform predictu_dispatch.check_producer_scope(operator_id);
    reason := left(reason, 1000);
    select b.* into bet from predictu_dispatch.bet b
     where b.operator_id = operator_id and b.bet_id = bet_id for no key update;
    if not found then
        perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'rollback', 'the bet is unknown',
            'Check the operator_id and the bet_id; a bet that was never placed needs no rollback.');
    end if;
    -- A concurrent claim locks the placement briefly; its result must be visible here.
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

revoke all on function predictu_dispatch.rollback_bet from public;
grant execute on function predictu_dispatch.rollback_bet to predictu_producer;
