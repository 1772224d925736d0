-- Makes a bet's terminal that needs review due again; see retry_callback() in 0008_interventions.sql.
-- $1 operator_id; $2 request_id; $3 who does it
select operator_id, request_id, method, bet_id, state, attempts, due_at, expires_at
  from predictu_dispatch.retry_callback($1, $2, $3)
