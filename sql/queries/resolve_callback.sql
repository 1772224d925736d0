-- Removes a callback from the review list.
-- $1 operator_id; $2 request_id; $3 reason; $4 done_by
select operator_id, request_id, method, bet_id, state, attempts
  from predictu_dispatch.resolve_callback($1, $2, $3, $4)
