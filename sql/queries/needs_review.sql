-- The callbacks that need manual review, the oldest first.
-- $1 limit
select request_id, operator_id, method, bet_id, state, effect, amount, since, reason
  from predictu_dispatch.needs_review order by since limit $1
