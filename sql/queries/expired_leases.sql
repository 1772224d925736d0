-- Attempts whose lease expired without a report, if this daemon reaps for the fleet in this
-- interval; the chore is claimed only if there are any. Ages are as of leased_at, like those of a
-- claim. The operators take turns, so that one whose bets stay locked does not keep the others
-- waiting.
-- $1 maximum rows; $2 interval in seconds; $3 instance
with expired as materialized (
    select c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts as attempt, c.budget_from, c.effect, c.reason,
           -- Not the callback's: nothing is sent, and they may be unreadable.
           '{}' as params, c.created_at, c.due_at,
           extract(epoch from c.expires_at - c.leased_at)::double precision as expires_in_s, c.leased_at,
           extract(epoch from c.lease_until - c.leased_at)::double precision as lease_s, c.amount_format,
           null::integer as minor_digits, null::double precision as placement_ended_s_ago, c.leased_by, now() as reaped_at
      from predictu_dispatch.callback c
     where c.state = 'in_flight' and c.lease_until < now()
     order by row_number() over (partition by c.operator_id order by c.lease_until), c.lease_until
     limit $1
)
select operator_id, request_id, method, bet_id, lane, attempt, budget_from, effect, reason, params, created_at, due_at,
       expires_in_s, leased_at, lease_s, amount_format, minor_digits, placement_ended_s_ago, leased_by, reaped_at
  from expired
 where (select predictu_dispatch.claim_chore('reap', $2, $3) where exists (select from expired))
