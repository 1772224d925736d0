-- Returns what is wrong with a parameter that is not a string of 1 to 200 characters, and what is
-- right.
create or replace function predictu_dispatch.not_a_text(key text, value jsonb) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array[format('"%s" is %s', key, left(value::text, 80)),
                 format('"%s" must be a string of 1 to 200 characters.', key)]
$$;

revoke all on function predictu_dispatch.not_a_text from public;
