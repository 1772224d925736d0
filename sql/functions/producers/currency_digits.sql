-- Returns the minor digits of a currency: 2 for EUR, 0 for JPY, 3 for BHD; null for an unknown code.
-- An amount of 12.50 EUR is 1250 subunits. The currencies are those of ISO 4217 and those that the
-- owner has added.
create or replace function predictu_dispatch.currency_digits(currency text) returns integer
language sql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
    select c.minor_digits from predictu_dispatch.currency c where c.currency = currency_digits.currency
$$;

revoke all on function predictu_dispatch.currency_digits from public;
grant execute on function predictu_dispatch.currency_digits
    to predictu_producer, predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;
