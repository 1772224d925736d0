-- Unfinished callbacks by operator, lane and state. Ages count from enqueueing, except
-- oldest_due_s.
select operator_id, lane, state, callbacks, unknown_effect, oldest_due_s, unknown_for_s, rollbacks, rollback_for_s
  from predictu_dispatch.backlog()
