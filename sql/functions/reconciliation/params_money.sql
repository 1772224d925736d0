-- Returns player_id, currency, amount (whole subunits) and bet_id of a callback's params. Null if they
-- cannot be read, so that one such callback hides no other one.
create or replace function predictu_dispatch.params_money(params jsonb) returns text[]
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
    return array[params ->> 'player_id', params ->> 'currency', (params ->> 'amount')::bigint::text, params ->> 'bet_id'];
exception when others then
    return null;
end $$;

revoke all on function predictu_dispatch.params_money from public;
grant execute on function predictu_dispatch.params_money
    to predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;
