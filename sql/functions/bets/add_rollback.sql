-- Enqueues the bet's BET_ROLLBACK and returns its request_id. The caller has already cancelled a
-- waiting terminal callback.
create or replace function predictu_dispatch.add_rollback(
    bet predictu_dispatch.bet, bet_state text, callback_state text, cause text, note text
) returns uuid language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    id uuid := gen_random_uuid();
begin
    update predictu_dispatch.bet b set state = bet_state, terminal_request_id = id, updated_at = clock_timestamp()
     where b.operator_id = bet.operator_id and b.bet_id = bet.bet_id;
    insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, reason, params, note)
    values (bet.operator_id, id, 'BET_ROLLBACK', bet.bet_id, 'interactive', callback_state, cause,
            jsonb_build_object('player_id', bet.player_id, 'currency', bet.currency, 'amount', bet.amount,
                               'bet_id', bet.bet_id, 'rollback_of', bet.placement_request_id), note);
    if callback_state = 'ready' then
        perform predictu_dispatch.notify('predictu_dispatch_due', bet.operator_id);
    end if;
    return id;
end $$;

revoke all on function predictu_dispatch.add_rollback from public;
