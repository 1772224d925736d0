-- Adds a currency, for the owner of the schema only. Returns false if it is there already with the
-- same digits. It can never be changed or removed, because stored amounts are in its subunits.
-- Raises PD003.
create or replace function predictu_dispatch.add_currency(currency text, minor_digits integer) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    digits integer;
begin
    if coalesce(currency !~ '^[0-9]*[A-Z][A-Z0-9]*$' or length(currency) not between 3 and 10, true) then
        raise exception using errcode = 'PD003',
            message = format('%s is no currency code', coalesce(quote_literal(left(currency, 80)), 'NULL')),
            hint = 'A code has 3 to 10 capital letters and digits, and at least one letter, for example USDT.';
    elsif coalesce(minor_digits not between 0 and 18, true) then
        raise exception using errcode = 'PD003',
            message = format('%s are no minor digits of a currency', coalesce(minor_digits::text, 'NULL')),
            hint = 'A currency has 0 to 18 minor digits.';
    end if;
    insert into predictu_dispatch.currency (currency, minor_digits) values (currency, minor_digits)
    on conflict do nothing;
    if found then
        return true;
    end if;
    select c.minor_digits into digits from predictu_dispatch.currency c where c.currency = currency;
    if digits <> minor_digits then
        raise exception using errcode = 'PD003',
            message = format('currency %s has %s minor digits, not %s', currency, digits, minor_digits),
            hint = 'A currency''s digits never change, because stored amounts are in its subunits; add another code.';
    end if;
    return false;
end $$;

revoke all on function predictu_dispatch.add_currency from public;
