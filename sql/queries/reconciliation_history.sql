-- What people said about a difference, in its order.
-- $1 operator_id; $2 item_id
select i.action, i.reason, i.done_by, i.database_role, i.client_addr, i.done_at, i.before::text as before, i.after::text as after
  from predictu_dispatch.intervention i
 where i.operator_id = $1 and i.action in ('explain', 'accept') and i.before ->> 'item_id' = $2::uuid::text
 order by i.done_at, i.intervention_id
