-- The interventions on a callback, in their order.
-- $1 operator_id; $2 request_id
select action, reason, done_by, database_role, client_addr, done_at, before::text as before, after::text as after
  from predictu_dispatch.intervention
 where operator_id = $1 and request_id = $2
 order by done_at, intervention_id
