-- Begins an operator's maintenance window; see pause_operator() in 0008_interventions.sql.
-- $1 operator_id; $2 why; $3 who does it
select operator_id, paused_at, paused_by, pause_reason from predictu_dispatch.pause_operator($1, $2, $3)
