-- The interventions on a bet or on one of its callbacks, in their order.
-- $1 operator_id, $2 bet_id
select i.intervention_id, i.action, i.reason, i.done_by, i.database_role, i.client_addr, i.done_at, i.request_id,
       i.before::text as before, i.after::text as after
  from predictu_dispatch.intervention i
 where i.operator_id = $1
   and (i.bet_id = $2
        or i.request_id in (select c.request_id from predictu_dispatch.callback c where c.operator_id = $1 and c.bet_id = $2))
 order by i.done_at, i.intervention_id
