-- Ends an operator's maintenance window and returns it.
-- $1 operator_id; $2 reason or null; $3 done_by
select operator_id, paused_at, paused_by, pause_reason,
       greatest(extract(epoch from clock_timestamp() - paused_at), 0)::double precision as paused_s
  from predictu_dispatch.resume_operator($1, $2, $3)
