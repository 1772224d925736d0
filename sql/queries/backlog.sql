-- Unfinished callbacks by operator, lane and state. Ages are seconds since enqueueing; oldest_due_s
-- counts from due_at.
select operator_id, lane, state, callbacks, unknown_effect, oldest_due_s, unknown_for_s, rollbacks, rollback_for_s
  from predictu_dispatch.backlog()
