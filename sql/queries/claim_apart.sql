-- Leases due callbacks for one attempt each, each operator alone; the last two columns of a
-- callback that failed say why.
-- $1 to $7 as in claim.sql; $8 request ids to leave out
select operator_id, request_id, method, bet_id, lane, attempt, budget_from, effect, reason, params, created_at, due_at, expires_in_s,
       leased_at, lease_s, amount_format, minor_digits, placement_ended_s_ago, failed_sqlstate, failed_message
  from predictu_dispatch.claim_apart($1, $2, $3, $4, $5, $6, $7, $8)
