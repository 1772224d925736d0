-- Returns a callback by its key. A function of its own is planned as a lookup by key, whatever the
-- planner assumes about table sizes.
create or replace function predictu_dispatch.get_callback(operator_id text, request_id uuid)
returns setof predictu_dispatch.callback language sql stable rows 1 set enable_seqscan = off as $$
    select c.* from predictu_dispatch.callback c
     where c.operator_id = get_callback.operator_id and c.request_id = get_callback.request_id
$$;

revoke all on function predictu_dispatch.get_callback from public;
