-- Raises PD003.
create or replace function predictu_dispatch.refuse_params(method text, fault text, hint text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD003', message = format('bad params for %s: %s', method, fault), hint = hint;
end $$;

revoke all on function predictu_dispatch.refuse_params from public;
