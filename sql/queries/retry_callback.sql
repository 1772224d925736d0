-- Makes a terminal callback that needs review due again.
-- $1 operator_id; $2 request_id; $3 done_by
select operator_id, request_id, method, bet_id, state, attempts, due_at, expires_at
  from predictu_dispatch.retry_callback($1, $2, $3)
