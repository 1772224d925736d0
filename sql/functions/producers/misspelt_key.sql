-- Returns what is wrong with the first key that is a misspelling of one of ours, see is_misspelling(),
-- and what is right; null if there is none. Other further keys are sent to the operator as they are.
create or replace function predictu_dispatch.misspelt_key(ours text[], given jsonb) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    refusal text[];
begin
    select array[format('"%s" is written "%s"', known.key, left(further.key, 80)),
                 format('Write "%s". Further keys are sent to the operator as they are.', known.key)]
      into refusal
      from jsonb_object_keys(given) as further (key)
     cross join unnest(ours) as known (key)
     where further.key <> all (ours) and predictu_dispatch.is_misspelling(further.key, known.key)
     limit 1;
    return refusal;
end $$;

revoke all on function predictu_dispatch.misspelt_key from public;
