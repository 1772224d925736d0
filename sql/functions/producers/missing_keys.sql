-- Returns what is wrong with params that lack keys, and what is right. It names keys that were perhaps
-- meant: misspellings of a missing one, those that differ in one letter, and its beginning.
create or replace function predictu_dispatch.missing_keys(fault text, hint text, required text[], given jsonb)
returns text[] language sql stable set search_path = pg_catalog, pg_temp as $$
    with missing as (
        select m.key, m.number from unnest(required) with ordinality as m (key, number) where not given ? m.key
    )
    select array[
        format(fault, string_agg(m.key, ', ' order by m.number)),
        format(hint, array_to_string(required, ', ')) || coalesce((
            select format(' If "%s" is meant for "%s", rename it.', left(g.key, 80), m.key)
              from missing m cross join jsonb_object_keys(given) as g (key)
             where g.key <> all (required)
               and (predictu_dispatch.is_misspelling(g.key, m.key) or predictu_dispatch.differ_in_one_letter(g.key, m.key)
                    or length(g.key) >= 3 and starts_with(m.key, lower(g.key)))
             order by m.number limit 1
        ), '')]
      from missing m
$$;

revoke all on function predictu_dispatch.missing_keys from public;
