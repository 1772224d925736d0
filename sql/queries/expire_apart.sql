-- Ends callbacks that must not wait any longer, each alone; the last two columns of a callback
-- that failed say why.
-- $1 limit for each operator and kind; $2 request ids to leave out
select operator_id, request_id, method, lane, state, reason, cause, attempt, failed_sqlstate, failed_message
  from predictu_dispatch.expire_apart($1, $2)
