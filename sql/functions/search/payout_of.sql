-- Returns a payout's currency and amount in subunits, such as 'EUR 641', for the index of payouts.
-- Null if the params cannot be read: such a callback must still end.
create or replace function predictu_dispatch.payout_of(params jsonb) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
    return (params ->> 'currency') || ' ' || (params ->> 'amount');
exception when others then
    return null;
end $$;

revoke all on function predictu_dispatch.payout_of from public;
grant execute on function predictu_dispatch.payout_of
    to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;
