-- Takes back what was never attempted; see cancel_callback() in 0008_interventions.sql.
-- $1 operator_id; $2 request_id; $3 why; $4 who does it
select operator_id, request_id, method, bet_id, state, attempts
  from predictu_dispatch.cancel_callback($1, $2, $3, $4)
