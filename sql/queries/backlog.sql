-- What is not final yet, by operator, lane and state; each part reads one partial index, never the history.
select operator_id, lane, state, count(*) as callbacks, count(*) filter (where effect = 'unknown') as unknown_effect,
       extract(epoch from now() - min(due_at))::double precision as oldest_due_s
  from (
      select operator_id, lane, state, effect, due_at from predictu_dispatch.callback where state = 'ready'
      union all
      select operator_id, lane, state, effect, null from predictu_dispatch.callback where state = 'in_flight'
      union all
      select operator_id, lane, state, effect, null from predictu_dispatch.callback where state = 'waiting'
  ) unfinished
 group by operator_id, lane, state
