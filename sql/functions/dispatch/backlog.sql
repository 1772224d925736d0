-- Counts unfinished callbacks by operator, lane and state. Each part reads one partial index, never
-- the history. Ages count from created_at, because a retry moves due_at. It may count millions, so
-- it uses one core and no JIT compilation.
create or replace function predictu_dispatch.backlog() returns table (
    operator_id text, lane text, state text, callbacks bigint, unknown_effect bigint, oldest_due_s double precision,
    unknown_for_s double precision, rollbacks bigint, rollback_for_s double precision
) language sql stable set search_path = pg_catalog, pg_temp set jit = off set max_parallel_workers_per_gather = 0 as $$
    select operator_id, lane, state, count(*) as callbacks, count(*) filter (where effect = 'unknown') as unknown_effect,
           extract(epoch from now() - min(due_at))::double precision as oldest_due_s,
           extract(epoch from now() - min(created_at) filter (where effect = 'unknown'))::double precision as unknown_for_s,
           count(*) filter (where method = 'BET_ROLLBACK') as rollbacks,
           extract(epoch from now() - min(created_at) filter (where method = 'BET_ROLLBACK'))::double precision as rollback_for_s
      from (
          select operator_id, lane, state, method, effect, created_at, due_at
            from predictu_dispatch.callback where state = 'ready'
          union all
          select operator_id, lane, state, method, effect, created_at, null
            from predictu_dispatch.callback where state = 'in_flight'
          union all
          select operator_id, lane, state, method, effect, created_at, null
            from predictu_dispatch.callback where state = 'waiting'
      ) unfinished
     group by operator_id, lane, state
$$;

revoke all on function predictu_dispatch.backlog from public;
grant execute on function predictu_dispatch.backlog to predictu_dispatcher, predictu_support, predictu_operations;
