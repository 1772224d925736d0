-- Checks that a terminal callback's params agree with its bet. Raises PD003.
create or replace function predictu_dispatch.check_terminal(method text, params jsonb, bet predictu_dispatch.bet)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    fault text;
begin
    fault := case
        when params ->> 'player_id' <> bet.player_id
            then format('"player_id" is %s, the bet''s is %s', params ->> 'player_id', bet.player_id)
        when params ->> 'currency' <> bet.currency
            then format('"currency" is %s, the bet''s is %s', params ->> 'currency', bet.currency)
        when method in ('BET_REFUND', 'BET_ROLLBACK') and (params ->> 'amount')::bigint <> bet.amount
            then format('"amount" is %s, the bet''s debit is %s', params ->> 'amount', bet.amount)
        when method = 'BET_ROLLBACK' and params -> 'rollback_of' <> to_jsonb(bet.placement_request_id::text)
            then format('"rollback_of" is %s, the bet''s placement is %s', left(params ->> 'rollback_of', 80),
                        bet.placement_request_id)
    end;
    if fault is not null then
        perform predictu_dispatch.refuse_params(method, fault,
            format('They must agree with bet %s of operator %s.', bet.bet_id, bet.operator_id));
    end if;
end $$;

revoke all on function predictu_dispatch.check_terminal from public;
