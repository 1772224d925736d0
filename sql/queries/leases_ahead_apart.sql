-- Attempts whose lease began later than now, as leases_ahead.sql returns them, without those whose
-- rows are unreadable; the last two columns of a row that failed say why.
-- $1 maximum rows
select operator_id, request_id, method, bet_id, lane, attempt, budget_from, effect, reason, params, created_at, due_at,
       expires_in_s, leased_at, lease_s, amount_format, minor_digits, placement_ended_s_ago, leased_by, reaped_at,
       failed_sqlstate, failed_message
  from predictu_dispatch.leases_apart(now() + interval '5 seconds', now() + interval '36500 days', $1)
 where failed_sqlstate is not null or leased_at > now() + interval '5 seconds'
