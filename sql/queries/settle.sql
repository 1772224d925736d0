-- Settles attempts.
-- $1 reports
select operator_id, request_id, method, lane, state, reason, cause, attempt
  from predictu_dispatch.settle($1::predictu_dispatch.attempt_report[])
