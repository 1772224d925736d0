-- Counts unfinished callbacks as backlog() does, also by method and by the reason of the last
-- attempt that failed, for people. unknown_request_id is one of those of unknown effect.
create or replace function predictu_dispatch.callback_groups() returns table (
    operator_id text, lane text, state text, method text, reason text, callbacks bigint, unknown_effect bigint,
    unknown_request_id uuid, oldest_due_s double precision, oldest_s double precision
) language sql stable set search_path = pg_catalog, pg_temp set jit = off set max_parallel_workers_per_gather = 0 as $$
    select operator_id, lane, state, method, reason, callbacks, unknown_effect,
           -- By its place in the table: comparing a million ids costs a third of the whole count.
           (select c.request_id from predictu_dispatch.callback c where c.ctid = unknown_place) as unknown_request_id,
           oldest_due_s, oldest_s
      from (
          select operator_id, lane, state, method, reason, count(*) as callbacks,
                 count(*) filter (where effect = 'unknown') as unknown_effect,
                 min(place) filter (where effect = 'unknown') as unknown_place,
                 extract(epoch from now() - min(due_at))::double precision as oldest_due_s,
                 extract(epoch from now() - min(created_at))::double precision as oldest_s
            from (
                select operator_id, lane, state, method, reason, effect, ctid as place, created_at, due_at
                  from predictu_dispatch.callback where state = 'ready'
                union all
                select operator_id, lane, state, method, reason, effect, ctid, created_at, null
                  from predictu_dispatch.callback where state = 'in_flight'
                union all
                select operator_id, lane, state, method, reason, effect, ctid, created_at, null
                  from predictu_dispatch.callback where state = 'waiting'
            ) unfinished
           group by operator_id, lane, state, method, reason
      ) groups
$$;

revoke all on function predictu_dispatch.callback_groups from public;
grant execute on function predictu_dispatch.callback_groups to predictu_dispatcher, predictu_support, predictu_operations;
