-- Ends callbacks that must not wait any longer.
-- $1 limit for each operator and kind
select operator_id, request_id, method, lane, state, reason, cause, attempt
  from predictu_dispatch.expire($1)
