-- Unfinished callbacks by operator, lane, state, method and the reason of the last failed attempt.
select operator_id, lane, state, method, reason, callbacks, unknown_effect, unknown_request_id, oldest_due_s, oldest_s
  from predictu_dispatch.callback_groups()
 order by operator_id, callbacks desc, lane, state, method, reason
