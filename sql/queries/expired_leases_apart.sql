-- Attempts whose lease expired without a report, as expired_leases.sql returns them, without those
-- whose rows are unreadable; the last two columns of a row that failed say why.
-- $1 maximum rows; $2 interval in seconds; $3 instance
with expired as materialized (
    select * from predictu_dispatch.leases_apart(now() - interval '36500 days', now(), $1)
)
select operator_id, request_id, method, bet_id, lane, attempt, budget_from, effect, reason, params, created_at, due_at,
       expires_in_s, leased_at, lease_s, amount_format, minor_digits, placement_ended_s_ago, leased_by, reaped_at,
       failed_sqlstate, failed_message
  from expired
 where failed_sqlstate is not null
    or (select predictu_dispatch.claim_chore('reap', $2, $3)
         where exists (select from expired e where e.failed_sqlstate is null))
