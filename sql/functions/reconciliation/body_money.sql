-- Returns method, player_id, currency, amount and bet_id of a request's body. The amount is as it was
-- sent, in subunits or decimal. Null if the body cannot be read.
create or replace function predictu_dispatch.body_money(request_body text) returns text[]
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    body jsonb;
    params jsonb;
begin
    -- Here, because an error in the declarations would not be caught.
    body := request_body::jsonb;
    params := body -> 'params';
    return array[body ->> 'method', params ->> 'player_id', params ->> 'currency', (params ->> 'amount')::numeric::text,
                 params ->> 'bet_id'];
exception when others then
    return null;
end $$;

revoke all on function predictu_dispatch.body_money from public;
grant execute on function predictu_dispatch.body_money
    to predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;
