-- Ends an operator's maintenance window and says what it was; see resume_operator() in 0008_interventions.sql.
-- $1 operator_id; $2 why or null; $3 who does it
select operator_id, paused_at, paused_by, pause_reason, extract(epoch from clock_timestamp() - paused_at)::double precision as paused_s
  from predictu_dispatch.resume_operator($1, $2, $3)
