-- Ends a callback that is being retried.
-- $1 operator_id; $2 request_id; $3 reason; $4 done_by
select operator_id, request_id, method, bet_id, state, effect, attempts, needs_review, bet_state, rollback_request_id,
       warning, abandoned_at, abandoned_by, abandon_reason, is_repeated
  from predictu_dispatch.abandon_callback($1, $2, $3, $4)
