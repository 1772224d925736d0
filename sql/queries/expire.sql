-- Ends callbacks whose deadline passed.
-- $1 at most so many
select operator_id, request_id, method, lane, state, reason, cause, attempt
  from predictu_dispatch.expire($1)
