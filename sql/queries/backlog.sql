-- What is not final yet, by operator, lane and state.
select operator_id, lane, state, callbacks, unknown_effect, oldest_due_s from predictu_dispatch.backlog()
