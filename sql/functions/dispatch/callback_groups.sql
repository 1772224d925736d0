-- Counts unfinished callbacks as backlog() does, also by method and by the reason of the last
-- attempt that failed, for people. unknown_request_id is one callback of unknown effect, the oldest
-- if its id begins with the time.
create or replace function predictu_dispatch.callback_groups() returns table (
    operator_id text, lane text, state text, method text, reason text, callbacks bigint, unknown_effect bigint,
    unknown_request_id uuid, oldest_due_s double precision, oldest_s double precision
) language sql stable set search_path = pg_catalog, pg_temp set jit = off set max_parallel_workers_per_gather = 0 as $$
    select operator_id, lane, state, method, reason, count(*) as callbacks,
           count(*) filter (where effect = 'unknown') as unknown_effect,
           min(request_id::text) filter (where effect = 'unknown')::uuid as unknown_request_id,
           extract(epoch from now() - min(due_at))::double precision as oldest_due_s,
           extract(epoch from now() - min(created_at))::double precision as oldest_s
      from (
          select operator_id, lane, state, method, reason, effect, request_id, created_at, due_at
            from predictu_dispatch.callback where state = 'ready'
          union all
          select operator_id, lane, state, method, reason, effect, request_id, created_at, null
            from predictu_dispatch.callback where state = 'in_flight'
          union all
          select operator_id, lane, state, method, reason, effect, request_id, created_at, null
            from predictu_dispatch.callback where state = 'waiting'
      ) unfinished
     group by operator_id, lane, state, method, reason
$$;

revoke all on function predictu_dispatch.callback_groups from public;
grant execute on function predictu_dispatch.callback_groups to predictu_dispatcher, predictu_support, predictu_operations;
