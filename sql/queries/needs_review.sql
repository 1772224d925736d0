-- What a person must look at, the oldest first.
-- $1 at most so many
select request_id, operator_id, method, bet_id, state, effect, amount, since, reason
  from predictu_dispatch.needs_review order by since limit $1
