-- Returns currency_digits(), under the name that commands of older releases use.
create or replace function predictu_dispatch.minor_digits(currency text) returns integer
language sql stable set search_path = pg_catalog, pg_temp as $$
    select predictu_dispatch.currency_digits(minor_digits.currency)
$$;

revoke all on function predictu_dispatch.minor_digits from public;
grant execute on function predictu_dispatch.minor_digits to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor;
