-- Starts an operator's maintenance window.
-- $1 operator_id; $2 reason; $3 done_by
select operator_id, paused_at, paused_by, pause_reason from predictu_dispatch.pause_operator($1, $2, $3)
