-- Registers a bet that was opened before this system existed, so that it can be settled here.
-- placement_request_id is the id under which the operator booked its debit, and amount the debit in
-- subunits. A repeated call with the same content changes nothing. Raises PD002 (unknown or disabled
-- operator), PD003 (bad params), PD004 (placement_request_id belongs to something else), PD005 (the bet
-- exists with other content), PD008 (the login may not act for this operator).
create or replace function predictu_dispatch.adopt_bet(
    operator_id text, bet_id text, player_id text, currency text, amount bigint, placement_request_id uuid
) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    earlier predictu_dispatch.bet;
begin
    perform predictu_dispatch.check_producer_scope(operator_id);
    -- retire_operator() waits for this lock, and the next statement sees what it did.
    perform from predictu_dispatch.operator o where o.operator_id = operator_id for key share;
    perform predictu_dispatch.enabled_operator(operator_id);
    perform predictu_dispatch.check_params('adopt_bet', jsonb_build_object(
        'player_id', player_id, 'currency', currency, 'amount', amount, 'bet_id', bet_id));
    if amount = 0 or placement_request_id is null then
        perform predictu_dispatch.refuse_params('adopt_bet',
            case when amount = 0 then '"amount" is 0' else '"placement_request_id" is NULL' end,
            'Give the booked debit and the request_id under which the operator booked it.');
    end if;
    if exists (select from predictu_dispatch.callback c
                where c.operator_id = operator_id and c.request_id = placement_request_id) then
        raise exception using errcode = 'PD004',
            message = format('placement_request_id %s of operator %s is a callback of this system',
                             placement_request_id, operator_id),
            hint = 'Adopt only bets that were placed before this system existed.';
    end if;
    insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount, placement_request_id)
    values (operator_id, bet_id, 'open', player_id, currency, amount, placement_request_id)
    on conflict do nothing;
    if not found then
        -- The lock makes this commit wait for the standby that may not have the first one yet.
        select b.* into earlier from predictu_dispatch.bet b
         where b.operator_id = operator_id and b.bet_id = bet_id for key share;
        if not found then
            raise exception using errcode = 'PD004',
                message = format('placement_request_id %s of operator %s belongs to another bet',
                                 placement_request_id, operator_id),
                hint = 'Each debit belongs to one bet: check the id under which the operator has booked this one.';
        end if;
        if (earlier.player_id, earlier.currency, earlier.amount, earlier.placement_request_id)
           is distinct from (player_id, currency, amount, placement_request_id) then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'adoption',
                'the bet exists already with other content',
                'A bet is adopted once; adopting it again with the same content changes nothing.');
        end if;
    end if;
end $$;

revoke all on function predictu_dispatch.adopt_bet from public;
revoke all on function predictu_dispatch.adopt_bet from predictu_producer;
grant execute on function predictu_dispatch.adopt_bet to predictu_importer;
