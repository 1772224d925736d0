-- Ends callbacks that must not wait any longer; see expire() in 0007_fleet.sql.
-- $1 at most so many of each operator and kind
select operator_id, request_id, method, lane, state, reason, cause, attempt
  from predictu_dispatch.expire($1)
