-- Checks that a parameter is a string of 1 to 200 characters. Raises PD003.
create or replace function predictu_dispatch.check_text(method text, key text, value jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if jsonb_typeof(value) <> 'string' or length(value #>> '{}') not between 1 and 200 then
        perform predictu_dispatch.refuse_params(method, format('"%s" is %s', key, left(value::text, 80)),
            format('"%s" must be a string of 1 to 200 characters.', key));
    end if;
end $$;

revoke all on function predictu_dispatch.check_text from public;
