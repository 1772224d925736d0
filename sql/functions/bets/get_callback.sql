-- Returns what decides about a bet, of a callback by its key. A function of its own is planned as a
-- lookup by key, whatever the planner assumes about table sizes. It does not read params, which may
-- be unreadable.
create or replace function predictu_dispatch.get_callback(operator_id text, request_id uuid)
returns table (request_id uuid, method text, state text, reason text, effect text)
language sql stable rows 1 set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
    select c.request_id, c.method, c.state, c.reason, c.effect from predictu_dispatch.callback c
     where c.operator_id = get_callback.operator_id and c.request_id = get_callback.request_id
$$;

revoke all on function predictu_dispatch.get_callback from public;
