-- Returns the tombstone of a request. A function of its own is planned as a lookup by key, whatever
-- the planner assumes about table sizes.
create or replace function predictu_dispatch.get_request_tombstone(operator_id text, request_id uuid)
returns setof predictu_dispatch.request_tombstone
language sql stable rows 1 set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
    select r.* from predictu_dispatch.request_tombstone r
     where r.operator_id = get_request_tombstone.operator_id and r.request_id = get_request_tombstone.request_id
$$;

revoke all on function predictu_dispatch.get_request_tombstone from public;
