-- Leases due callbacks for one attempt each.
-- $1 instance; $2 operator ids; $3 lanes; $4 free slots; $5 lease seconds; $6 lease seconds of
-- BET_ROLLBACK; $7 amount formats; $8 smallest due_at, or null for the start
select operator_id, request_id, method, bet_id, lane, attempt, budget_from, effect, reason, params, created_at, due_at, expires_in_s,
       leased_at, lease_s, amount_format, minor_digits, placement_ended_s_ago
  from predictu_dispatch.claim($1, $2, $3, $4, $5, $6, $7, $8)
